"""Positions as a model is taught and asked: numbers without text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int, Int8, Int16, Int64

from saeflow.chess.games.boards import Boards, join, read_fens
from saeflow.chess.games.moves import move_indices
from saeflow.seeds import row_keys, uniforms


class Examples(NamedTuple):
    """Positions, the move that was played, and who played.

    Attributes:
        boards: in the view of the player.
        moves: place in `MOVES`.
        rating_self: bin of the player.
        rating_oppo: bin of the opponent.
        result: 1 if the player wins in the end, 0 draw, −1.
        games: number of the game, from 0.
    """

    boards: Boards
    moves: Int16[np.ndarray, " n"]
    rating_self: Int8[np.ndarray, " n"]
    rating_oppo: Int8[np.ndarray, " n"]
    result: Int8[np.ndarray, " n"]
    games: Int64[np.ndarray, " n"]

    def part(self, which: slice | Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> Examples:
        """Some of the positions."""
        return Examples(self.boards.part(which), *(column[which] for column in self[1:]))


def examples(table: pl.DataFrame) -> Examples:
    """The rows of a table of positions; those of one game stand together.

    Raises:
        SaeflowError: a position or a move cannot be read.
    """
    return Examples(
        boards=read_fens(table["fen"].to_list()),
        moves=move_indices(table["move"].to_list()).astype(np.int16),
        rating_self=table["bin_self"].to_numpy(),
        rating_oppo=table["bin_oppo"].to_numpy(),
        result=table["result"].to_numpy(),
        games=table["game"].rle_id().to_numpy().astype(np.int64)
        if table.height
        else np.empty(0, np.int64),
    )


def join_examples(parts: Sequence[Examples]) -> Examples:
    """All positions of the parts, in their order."""
    return Examples(
        boards=join([part.boards for part in parts]),
        moves=np.concatenate([part.moves for part in parts]),
        rating_self=np.concatenate([part.rating_self for part in parts]),
        rating_oppo=np.concatenate([part.rating_oppo for part in parts]),
        result=np.concatenate([part.result for part in parts]),
        games=np.concatenate([part.games for part in parts]),
    )


def game_draws(
    games: Int64[np.ndarray, " n"], seed: int, purpose: str
) -> Float64[np.ndarray, " n"]:
    """A uniform number per position, the same for all of a game, named by the game."""
    different, which = np.unique(games, return_inverse=True)
    return uniforms(row_keys(seed, purpose, ((int(game),) for game in different)), 1)[which, 0]


def drawn(games: Int64[np.ndarray, " n"], most: int, seed: int) -> Int64[np.ndarray, " m"]:
    """The rows of so many positions, game after game drawn at random, in their order."""
    draws = game_draws(games, seed, "chess games")
    return np.sort(np.lexsort((np.arange(len(draws)), draws))[:most])
