"""Positions of random play, and python-chess boards of them, for the tests of chess."""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

import chess
import numpy as np
import polars as pl

from saeflow.chess.games.boards import Boards, read_fens
from saeflow.chess.games.positions import SCHEMA, rating_bin, split_of


class Played(NamedTuple):
    """Positions seen by the player to move, with the game each is from."""

    python: list[chess.Board]
    boards: Boards
    games: list[int]


@cache
def random_play(positions: int, seed: int = 0, share: float = 0.3) -> Played:
    """So many positions of random games, each a python-chess board with White to move and the same
    as bitboards."""
    generator = random.Random(seed)
    boards: list[chess.Board] = []
    games: list[int] = []
    game = 0
    while len(boards) < positions:
        board = chess.Board()
        while not board.is_game_over() and board.ply() < 150 and len(boards) < positions:
            board.push(generator.choice(list(board.legal_moves)))
            if generator.random() < share and any(board.legal_moves):
                boards.append(board.copy(stack=False) if board.turn else board.mirror())
                games.append(game)
        game += 1
    return Played(boards, read_fens([board.fen(en_passant="fen") for board in boards]), games)


def positions_table(played: Played) -> pl.DataFrame:
    """The positions as a table; of each the first legal move was played, by players of every rating
    bin in turn."""
    ratings = 1000 + 97 * (np.arange(len(played.python)) % 12)
    table = pl.DataFrame(
        {
            "fen": [board.fen() for board in played.python],
            "move": [next(iter(board.legal_moves)).uci() for board in played.python],
            "rating_self": ratings,
            "rating_oppo": ratings,
            "bin_self": rating_bin(ratings),
            "bin_oppo": rating_bin(ratings),
            "result": 0,
            "ply": 1,
            "black": False,
            "game": [f"g{game}" for game in played.games],
            "split": [split_of(f"g{game}") for game in played.games],
            "clock": None,
            "evaluation": None,
        }
    )
    return table.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
