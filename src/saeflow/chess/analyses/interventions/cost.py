"""What editing latents takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.interventions.settings import Interventions
from saeflow.chess.games.positions import RATING_BINS
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: Interventions, scope: Scope) -> list[StagePlan]:
    """Of every group positions of three sets in both halves of the games, at every rating; what is
    looked through to find them is not counted."""
    saes, groups = len(study.saes), len(own.groups)
    ratings = len(own.bins) or len(RATING_BINS) - 1
    along = len(set(own.modes) & {"add", "clamp"}) * len(own.direction_strengths)
    edits = len(own.modes) * len(own.strengths) * len(own.latents) + len(own.directions) * along
    positions = saes * groups * 2 * 3 * own.positions
    what = (
        f"{counted(groups, 'group')} × {counted(saes, 'SAE')}, {counted(edits, 'edit')} of each "
        f"position at {counted(ratings, 'rating')}"
    )
    return [StagePlan("interventions", saes, positions, 0, 0, what)]
