"""What finding transitions takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.transitions.settings import Transitions
from saeflow.chess.games.positions import RATING_BINS
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: Transitions, scope: Scope) -> list[StagePlan]:
    """Every position at every rating."""
    what = f"each position at {len(RATING_BINS)} ratings"
    return [StagePlan("transitions", 1, own.positions, 0, 0, what)]
