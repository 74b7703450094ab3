"""Positions that the model solves from some rating upwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.transitions.settings import Transitions
from saeflow.chess.needs import needs_best_moves
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def _complaints(study: ChessStudy, own: Transitions) -> list[Complaint]:
    return needs_best_moves(study, "transitions", own.correct)


ANALYSIS: Analysis[ChessStudy, Transitions] = Analysis(
    key="transitions",
    settings=Transitions,
    builds_on=("engine",),
    outputs=lambda study, own: ["transitions/transitions.parquet"],
    complaints=_complaints,
)
