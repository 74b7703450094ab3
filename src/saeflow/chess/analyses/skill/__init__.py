"""How knowing a concept and acting on it go with the rating that the model is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.skill.settings import Skill
from saeflow.chess.needs import needs_best_moves, needs_concepts
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def _complaints(study: ChessStudy, own: Skill) -> list[Complaint]:
    return [*needs_concepts(study, "skill"), *needs_best_moves(study, "skill", own.correct)]


ANALYSIS: Analysis[ChessStudy, Skill] = Analysis(
    key="skill",
    settings=Skill,
    builds_on=("concepts", "engine"),
    outputs=lambda study, own: ["skill/{sae}/skill.parquet", "skill/{sae}/awareness.parquet"],
    complaints=_complaints,
)
