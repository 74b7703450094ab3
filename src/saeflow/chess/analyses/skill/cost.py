"""What measuring skill takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.skill.settings import Skill
from saeflow.chess.games.positions import RATING_BINS
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: Skill, scope: Scope) -> list[StagePlan]:
    """Of every group positions with its concepts and as many without, at every rating."""
    saes, groups, ratings = len(study.saes), len(own.groups), len(RATING_BINS)
    positions = saes * groups * 2 * own.positions
    what = (
        f"{counted(groups, 'group')} × {counted(saes, 'SAE')}, each position at "
        f"{counted(ratings, 'rating')}"
    )
    return [StagePlan("skill", saes, positions, 0, 0, what)]
