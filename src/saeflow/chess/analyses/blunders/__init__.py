"""Moves that lose much, played or chosen by the model of a weak player."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.blunders.settings import Blunders
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def _complaints(study: ChessStudy, own: Blunders) -> list[Complaint]:
    return [
        ("blunders", f"{why}; set {key}: {{}}")
        for key, why in (
            ("engine", "are what an engine says of moves, and none is asked"),
            ("transitions", "are sought where a weak player is wrong, too, which is not asked for"),
        )
        if getattr(study, key) is None
    ]


ANALYSIS: Analysis[ChessStudy, Blunders] = Analysis(
    key="blunders",
    settings=Blunders,
    builds_on=("engine", "transitions"),
    outputs=lambda study, own: ["blunders/blunders.parquet"],
    complaints=_complaints,
)
