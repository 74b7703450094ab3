"""What analyses of chess need of each other, as complaints where it is not asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def needs_concepts(study: ChessStudy, key: str) -> list[Complaint]:
    """A complaint of an analysis that looks at the latents of concepts, where none are sought."""
    reason = "looks at the latents of concepts, which are not sought; set concepts: {}"
    return [] if study.concepts else [(key, reason)]


def needs_best_moves(study: ChessStudy, key: str, correct: str) -> list[Complaint]:
    """A complaint of an analysis whose right moves are an engine's, where none is asked."""
    if correct != "best" or (study.engine and study.engine.split == "eval"):
        return []
    reason = (
        "'best' is what an engine says of the split eval, and none is asked; set engine: "
        "{split: eval}"
    )
    return [(f"{key}.correct", reason)]
