"""What training the player further takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.fine_tune.settings import FineTuning
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: FineTuning, scope: Scope) -> list[StagePlan]:
    """How many blunders there are is not known before they are found."""
    most = f", {counted(own.positions, 'position')} at most" if own.positions else ""
    what = f"blunders that are learned from, epochs {own.epochs}{most}"
    return [StagePlan("fine_tune", 2, own.positions or 0, 0, 0, what)]
