"""What the player learns from blunders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.fine_tune.settings import FineTuning
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def _complaints(study: ChessStudy, own: FineTuning) -> list[Complaint]:
    if study.blunders:
        return []
    return [("fine_tune", "learns from blunders, which are not sought; set blunders: {}")]


ANALYSIS: Analysis[ChessStudy, FineTuning] = Analysis(
    key="fine_tune",
    settings=FineTuning,
    builds_on=("blunders",),
    outputs=lambda study, own: ["fine_tune/accuracy.parquet"],
    complaints=_complaints,
)
