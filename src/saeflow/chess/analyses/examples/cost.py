"""What reading latents takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.examples.settings import Examples
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: Examples, scope: Scope) -> list[StagePlan]:
    """One pass over the positions per SAE."""
    saes = len(study.saes)
    what = f"latents of {counted(saes, 'SAE')}"
    return [StagePlan("examples", saes, saes * own.positions, 0, 0, what)]
