"""Where latents are active: the strongest positions of different games, others of every part of the
range, and correlations with pieces on squares as numpy has them."""

from __future__ import annotations

import chess
import numpy as np
import polars as pl
import pytest
import torch
from chess_positions import random_play
from numpy.typing import NDArray

from saeflow.chess.analyses.examples.boards import TABLES, Active, active_positions
from saeflow.chess.analyses.examples.settings import Examples as Settings
from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import MOVES, legal_moves
from saeflow.statistics.sparse_latents import SparseLatents

SETTINGS = Settings(top=4, strata=3, per_stratum=2, bins=5, minimum=20)
PIECES = ("pawn", "knight", "bishop", "rook", "queen", "king")


class Planted:
    """Positions and six latents: a knight of the opponent on f6, that knight where a pawn of mine is
    on e4, noise, a constant, one that never fires, and one that fires in one game."""

    def __init__(self) -> None:
        played = random_play(1500, seed=4, share=0.3)
        n = len(played.boards)
        generator = np.random.default_rng(0)
        moves = legal_moves(played.boards).argmax(axis=1).astype(np.int16)
        bins = generator.integers(0, 11, n).astype(np.int8)
        games = np.array(played.games, np.int64)
        self.examples = Examples(played.boards, moves, bins, bins, np.zeros(n, np.int8), games)
        self.fens = write_fens(played.boards)
        boards = [chess.Board(fen) for fen in self.fens]
        self.stands = {
            (side, kind, square): np.array(
                [board.piece_at(square) == chess.Piece(kind, side == "my") for board in boards]
            )
            for side in ("my", "their")
            for kind in chess.PIECE_TYPES
            for square in chess.SQUARES
        }
        knight = self.stands["their", chess.KNIGHT, chess.F6]
        pawn = self.stands["my", chess.PAWN, chess.E4]
        size = generator.uniform(1, 2, n)
        self.dense: NDArray[np.float32] = np.stack(
            [
                knight * size,
                (knight & pawn) * size,
                np.maximum(generator.normal(-1, 1, n), 0),
                np.full(n, 0.5),
                np.zeros(n),
                (games == games[n // 2]) * size,
            ],
            axis=1,
        ).astype(np.float32)
        latents = SparseLatents.of([torch.from_numpy(self.dense)])
        self.active = active_positions(latents, self.examples, SETTINGS, seed=0)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def test_tables_have_their_columns(planted: Planted) -> None:
    for table, schema in zip(planted.active, TABLES.values(), strict=True):
        assert dict(table.schema) == schema
    assert tuple(TABLES) == Active._fields


def test_a_latent_s_numbers_are_those_of_its_column(planted: Planted) -> None:
    table = planted.active.latents
    assert table["latent"].to_list() == list(range(6))
    for row, column in zip(table.to_dicts(), planted.dense.T, strict=True):
        fired = column > 0
        assert row["density"] == pytest.approx(fired.mean())
        assert row["games"] == len(set(planted.examples.games[fired].tolist()))
        if fired.any():
            assert row["maximum"] == pytest.approx(column.max())
            assert row["mean_active"] == pytest.approx(column[fired].mean())
        else:
            assert row["maximum"] is None
            assert row["mean_active"] is None
    for row in planted.active.histogram.to_dicts():
        column = planted.dense[:, row["latent"]]
        assert sum(row["counts"]) == (column > 0).sum()
        above = column > row["high"] * 0.8  # the last of five bins
        assert row["counts"][-1] == pytest.approx(above.sum(), abs=1)


def test_the_strongest_positions_are_the_largest_of_different_games(planted: Planted) -> None:
    top = planted.active.boards.filter(group="top")
    for latent in (0, 1, 2):
        column = planted.dense[:, latent]
        largest = {
            game: column[planted.examples.games == game].max()
            for game in set(planted.examples.games.tolist())
        }
        shown = top.filter(latent=latent)
        assert shown["activation"].to_list() == pytest.approx(
            sorted(largest.values(), reverse=True)[:4]
        )
        for row in shown.to_dicts():
            places = [
                place
                for place in np.flatnonzero(np.isclose(column, row["activation"]))
                if planted.fens[place] == row["fen"]
                and MOVES[planted.examples.moves[place]] == row["move"]
                and planted.examples.rating_self[place] == row["rating"]
            ]
            assert places
    assert top.filter(latent=5).height == 1  # it fires in one game
    assert 4 not in planted.active.boards["latent"]


def test_other_positions_are_of_every_part_of_the_range(planted: Planted) -> None:
    column = planted.dense[:, 2]
    for number in (1, 2, 3):
        drawn = planted.active.boards.filter(latent=2, group=f"q{number}")["activation"]
        low, high = column.max() * (number - 1) / 3, column.max() * number / 3
        assert len(drawn) == min(2, int(((column > low) & (column <= high)).sum()))
        assert drawn.is_between(low, high * (1 + 1e-6)).all()
    assert planted.active.boards.filter(latent=3, group="q1").is_empty()


def test_pieces_on_squares_are_correlated_as_numpy_says(planted: Planted) -> None:
    squares = planted.active.squares
    n = len(planted.fens)
    names = {
        f"{side}_{PIECES[kind - 1]}_on_{chess.square_name(square)}": (held, square)
        for (side, kind, square), held in planted.stands.items()
    }
    enough = {name for name, (held, _) in names.items() if 20 <= held.sum() <= n - 20}
    assert set(squares["concept"]) == enough
    for row in squares.sample(200, seed=1).to_dicts():
        held, square = names[row["concept"]]
        column = planted.dense[:, row["latent"]].astype(np.float64)
        assert row["square"] == square
        assert row["positions"] == held.sum()
        assert row["mean_with"] == pytest.approx(column[held].mean(), abs=1e-9)
        assert row["mean_without"] == pytest.approx(column[~held].mean(), abs=1e-9)
        if row["latent"] == 3:
            assert row["correlation"] is None  # it never changes
        else:
            assert row["correlation"] == pytest.approx(np.corrcoef(column, held)[0, 1], abs=1e-9)


def test_the_piece_that_a_latent_was_planted_for_leads(planted: Planted) -> None:
    by_size = planted.active.squares.sort(
        pl.col("correlation").abs(), descending=True, nulls_last=True
    )
    for latent in (0, 1):
        assert by_size.filter(latent=latent)["concept"][0] == "their_knight_on_f6"
    assert by_size.filter(latent=0)["correlation"][0] > 0.9
    assert by_size.filter(latent=2)["correlation"].abs().max() < 0.2  # noise goes with nothing


def test_the_same_seed_draws_the_same_positions(planted: Planted) -> None:
    again = active_positions(
        SparseLatents.of(torch.split(torch.from_numpy(planted.dense), 77)),
        planted.examples,
        SETTINGS,
        seed=0,
    )
    for table, other in zip(planted.active, again, strict=True):
        assert table.equals(other, null_equal=True)
