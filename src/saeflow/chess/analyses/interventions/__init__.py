"""What becomes of the model's moves when a concept's latents are changed, or its direction is moved
along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.interventions.settings import Interventions
from saeflow.chess.needs import needs_best_moves, needs_concepts
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy

TABLES = ("interventions", "transitions", "shifts")


def _complaints(study: ChessStudy, own: Interventions) -> list[Complaint]:
    return [
        *needs_concepts(study, "interventions"),
        *needs_best_moves(study, "interventions", own.correct),
    ]


ANALYSIS: Analysis[ChessStudy, Interventions] = Analysis(
    key="interventions",
    settings=Interventions,
    builds_on=("concepts", "engine", "transitions"),
    outputs=lambda study, own: [f"interventions/{{sae}}/{table}.parquet" for table in TABLES],
    complaints=_complaints,
)
