"""What finding blunders takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.blunders.settings import Blunders
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: Blunders, scope: Scope) -> list[StagePlan]:
    """Searches of every transition; how many there are is not known before."""
    most = study.transitions.positions if study.transitions else 0
    what = f"the engine on the transitions among {counted(most, 'position')}"
    return [StagePlan("blunders", 1, 0, 0, 0, what)]
