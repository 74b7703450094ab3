"""Which positions of a corpus are studied, which half their games are in, and which concepts hold
in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.chess.games.examples import Examples, drawn, game_draws
from saeflow.chess.knowledge.concepts import Labels, label
from saeflow.errors import SaeflowError


class Halves(NamedTuple):
    """Positions by what their games are for; positions of one game are neighbours.

    Attributes:
        selection: indices of the positions that latents are chosen on.
        held_out: indices of the others.
    """

    selection: Int64[np.ndarray, " chosen"]
    held_out: Int64[np.ndarray, " kept"]


class Labelled(NamedTuple):
    """Studied positions.

    Attributes:
        rows: their places in the corpus.
        games: the game of each.
        held_out: whether its game is held out.
        labels: the concepts that hold in each.
    """

    rows: Int64[np.ndarray, " n"]
    games: Int64[np.ndarray, " n"]
    held_out: Bool[np.ndarray, " n"]
    labels: Labels

    @property
    def parts(self) -> Halves:
        """The two halves."""
        order = np.argsort(self.games, kind="stable")
        held = self.held_out[order]
        return Halves(order[~held], order[held])


def held_out_games(
    games: Int64[np.ndarray, " n"], share: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """Whether each position's game is held out, by a draw that is named by the game."""
    return game_draws(games, seed, "chess halves") < share


def label_positions(examples: Examples, settings: Concepts, seed: int) -> Labelled:
    """Draw games until there are enough positions, split them, and say which concepts hold.

    Args:
        examples: the positions of a split of the corpus.
        settings: of the stage.
        seed: of the study.

    Raises:
        SaeflowError: all games fall into one half.
    """
    rows = drawn(examples.games, settings.positions, seed)
    games = examples.games[rows]
    held = held_out_games(games, settings.held_out, seed)
    if held.all() or not held.any():
        raise SaeflowError(
            f"chess: the {len(rows)} positions come from too few games to hold some out; take more "
            "games or positions"
        )
    return Labelled(rows, games, held, label(examples.boards.part(rows), settings.families))
