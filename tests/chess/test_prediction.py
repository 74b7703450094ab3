"""What players of some ratings would play in one position, on the command line and in Python."""

from __future__ import annotations

from pathlib import Path

import chess
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from saeflow.chess.commands import app
from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.moves import MOVES
from saeflow.chess.player.io import embedded_maia2, load_maia2
from saeflow.chess.player.planes import encode
from saeflow.chess.player.prediction import predict
from saeflow.errors import SaeflowError

BLACK_TO_MOVE = "r1bqkbnr/pppp1ppp/2n5/4p3/2B1P3/5N2/PPPP1PPP/RNBQK2R b KQkq - 3 3"


@pytest.mark.parametrize("fen", [chess.STARTING_FEN, BLACK_TO_MOVE])
def test_probabilities_are_the_model_s_over_the_legal_moves_of_the_board_as_it_is(fen: str) -> None:
    model = load_maia2(embedded_maia2())
    table = predict(model, fen, [1250, 2400], opponent=1800)
    board = chess.Board(fen)
    seen = board if board.turn else board.mirror()
    for rating, its_bin in ((1250, 2), (2400, 10)):
        own = table.filter(rating=rating)
        with torch.no_grad():
            raw = model(encode(read_fens([seen.fen()])), torch.tensor([its_bin]), torch.tensor([8]))
        legal = {move.uci(): raw.moves[0, MOVES.index(move.uci())] for move in seen.legal_moves}
        shares = torch.stack(list(legal.values())).double().softmax(0).tolist()
        expected = dict(zip(legal, shares, strict=True))
        assert {move.uci() for move in board.legal_moves} == set(own["move"])
        for row in own.to_dicts():
            move = chess.Move.from_uci(row["move"])
            mirrored = chess.Move(move.from_square ^ 56, move.to_square ^ 56, move.promotion)
            key = (move if board.turn else mirrored).uci()
            assert row["probability"] == pytest.approx(expected[key], rel=1e-4)
            assert board.parse_san(row["san"]) == move
        assert own["probability"].is_sorted(descending=True)
        assert own["score"][0] == pytest.approx(
            min(1, max(0, float(raw.value[0]) / 2 + 0.5)), abs=1e-5
        )


def test_the_command_tells_the_first_moves_and_writes_all(tmp_path: Path) -> None:
    line = ["predict", "--fen", BLACK_TO_MOVE, "--rating", "1100", "--rating", "1900"]
    line += ["--moves", "2", "--output", str(tmp_path / "moves.csv")]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == 0
    table = pl.read_csv(tmp_path / "moves.csv")
    assert table.height == 2 * chess.Board(BLACK_TO_MOVE).legal_moves.count()
    lines = done.output.splitlines()
    assert len(lines) == 2 * 3
    assert lines[0].startswith("1100 (told 1100-1199) against 1100: expected score 0.")
    assert lines[1].split()[1:] == [table.row(0, named=True)[name] for name in ("san", "move")]


@pytest.mark.parametrize(
    ("fen", "rating", "reason"),
    [
        ("nonsense", 1500, "is no position"),
        ("8/8/8/8/8/8/8/K7 w - - 0 1", 1500, "no black king"),
        ("bqnrnkrb/pppppppp/8/8/8/8/PPPPPPPP/BQNRNKRB w KQkq - 0 1", 1500, "Chess960"),
        ("7k/5Q2/6K1/8/8/8/8/8 b - - 0 1", 1500, "the game is over"),
        (chess.STARTING_FEN, 0, "0 is no rating"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(fen: str, rating: int, reason: str) -> None:
    with pytest.raises(SaeflowError, match=reason):
        predict(load_maia2(embedded_maia2()), fen, [rating])
