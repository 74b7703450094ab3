"""What looking for concepts takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: Concepts, scope: Scope) -> list[StagePlan]:
    """The positions that are labelled, through the player and every SAE."""
    saes = len(study.saes)
    what = f"{', '.join(own.families)}: latents of {counted(saes, 'SAE')}"
    return [StagePlan("concepts", 1 + saes, saes * own.positions, 0, 0, what)]
