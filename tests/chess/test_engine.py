"""An engine's word on positions: its best moves, what others lose, and what is wrong with an engine
in one sentence."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import chess
import polars as pl
import pytest
from chess_positions import positions_table, random_play
from typer.testing import CliRunner

from saeflow.chess.analyses.blunders.blunders import BLUNDERS
from saeflow.chess.analyses.blunders.settings import Blunders
from saeflow.chess.analyses.engine import engine as engine_module
from saeflow.chess.analyses.engine.engine import ENGINE, EVALUATIONS, MATE, evaluate
from saeflow.chess.analyses.engine.settings import Engine
from saeflow.chess.analyses.transitions.transitions import TRANSITIONS
from saeflow.chess.commands import app
from saeflow.chess.games.io import best_moves
from saeflow.chess.games.moves import MOVES
from saeflow.errors import SaeflowError
from saeflow.tables import read_table, write_table

# Speaks UCI; wants the move after which it has most material, and says how much that is.
COUNTING = """#!{python}
import sys
import chess

VALUES = dict(zip(range(1, 7), (100, 300, 300, 500, 900, 0)))


def material(board, side):
    return sum(VALUES[piece.piece_type] * (1 if piece.color == side else -1) for piece in
    board.piece_map().values())


def after(board, move):
    board.push(move)
    found = material(board, not board.turn)
    board.pop()
    return found


board = chess.Board()
for line in sys.stdin:
    word = line.split()[0] if line.split() else ""
    if word == "uci":
        print("id name counting\\nuciok", flush=True)
    elif word == "isready":
        print("readyok", flush=True)
    elif word == "position":
        fen, _, played = line.partition("fen ")[2].partition(" moves ")
        board = chess.Board(fen.strip() or chess.STARTING_FEN)
        for move in played.split():
            board.push_uci(move)
    elif word == "go":
        best = max(sorted(board.legal_moves, key=str), key=lambda move: after(board, move))
        print(f"info depth 1 score cp {{after(board, best)}} pv {{best}}\\nbestmove {{best}}",
        flush=True)
    elif word == "quit":
        break
"""
LOOSE_QUEEN = "q5k1/8/8/8/8/8/6B1/6K1 w - - 0 1"
MATE_IN_ONE = "6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1"


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = tmp_path_factory.mktemp("engine") / "counting"
    path.write_text(COUNTING.format(python=sys.executable))
    path.chmod(0o755)
    return Engine(command=str(path), depth=1)


def test_a_move_loses_what_the_evaluation_falls_by(counting: Engine) -> None:
    asked: list[tuple[int, int]] = []
    fens = [LOOSE_QUEEN, LOOSE_QUEEN, MATE_IN_ONE]
    evaluated = evaluate(
        fens, ["g2a8", "g1f1", "a1a8"], counting, lambda done, total: asked.append((done, total))
    )
    assert dict(evaluated.schema) == EVALUATIONS
    taken, left, mated = evaluated.rows(named=True)
    assert (taken["best"], taken["evaluation"], taken["loss"], taken["engine"]) == (
        "g2a8",
        3.0,
        0.0,
        "counting",
    )
    # Black's queen takes the bishop then: nine pawns to nothing.
    assert (left["evaluation_after"], left["loss"]) == (-9.0, 12.0)
    assert (mated["evaluation_after"], mated["loss"]) == (MATE, 0.0)
    assert asked == [(1, 3), (2, 3), (3, 3)]


def test_what_is_wrong_with_an_engine_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match="engine 'no-such-engine' is not installed; install one"):
        evaluate([LOOSE_QUEEN], ["g1f1"], Engine(command="no-such-engine"))
    silent = tmp_path / "silent"
    silent.write_text(f"#!{sys.executable}\n")
    with pytest.raises(SaeflowError, match="may not be run"):
        evaluate([LOOSE_QUEEN], ["g1f1"], Engine(command=str(silent)))
    silent.chmod(0o755)
    with pytest.raises(SaeflowError, match="does not answer as UCI asks"):
        evaluate([LOOSE_QUEEN], ["g1f1"], Engine(command=str(silent)))


# Speaks UCI until it is asked; then does what the word in its place says.
MISBEHAVING = """#!{python}
import sys, time
for line in sys.stdin:
    word = line.split()[0] if line.split() else ""
    if word == "uci":
        print("id name odd\\nuciok", flush=True)
    elif word == "isready":
        print("readyok", flush=True)
    elif word == "go":
        {answer}
    elif word == "quit":
        break
"""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("time.sleep(600)", r"no answer within 2 seconds to q5k1/"),
        ("print('info score cp 3 pv a1a8\\nbestmove a1a8', flush=True)", "illegal uci: 'a1a8'"),
        ("print('bestmove g1f1', flush=True)", "says of none of 1 positions what it is worth"),
        ("sys.exit(3)", "engine process died"),
    ],
)
def test_an_engine_that_does_not_answer_as_it_should_ends_the_job_in_one_sentence(
    answer: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_SECONDS", 2.0)
    odd = tmp_path / "odd"
    odd.write_text(MISBEHAVING.format(python=sys.executable, answer=answer))
    odd.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(SaeflowError, match=reason):
        evaluate([LOOSE_QUEEN], ["g1f1"], Engine(command=str(odd), depth=2))
    assert time.monotonic() - began < 60


def test_what_an_engine_does_not_say_is_null_and_loses_nothing_but_itself(tmp_path: Path) -> None:
    asked = "asked = globals().get('asked', 0) + 1"
    said = "'' if asked == 1 else 'info score cp 20 pv g1f1\\n'"
    odd = tmp_path / "odd"
    answer = f"{asked}; print(({said}) + 'bestmove g1f1', flush=True)"
    odd.write_text(MISBEHAVING.format(python=sys.executable, answer=answer))
    odd.chmod(0o755)
    fens = [LOOSE_QUEEN, LOOSE_QUEEN]
    table = evaluate(fens, ["g1f1", "g1f1"], Engine(command=str(odd), depth=2))
    assert table["best"].to_list() == ["g1f1", "g1f1"]
    assert table["evaluation"].to_list() == [None, 0.2]
    assert table["loss"].to_list() == [0.0, 0.0]  # its own move


def test_blunders_are_moves_played_and_the_weakest_rating_s_choices_that_lose_much(
    counting: Engine, tmp_path: Path
) -> None:
    rows = [
        {
            "row": 0,
            "fen": LOOSE_QUEEN,
            "right": "g2a8",
            "kind": "transition",
            "transition": 4,
            "weakest_choice": "g1f1",
        },
        {
            "row": 1,
            "fen": LOOSE_QUEEN,
            "right": "g2a8",
            "kind": "irregular",
            "weakest_choice": "g1f1",
        },
        {
            "row": 2,
            "fen": MATE_IN_ONE,
            "right": "a1a8",
            "kind": "transition",
            "transition": 2,
            "weakest_choice": "a1a2",
        },
    ]
    write_table(tmp_path / "transitions.parquet", pl.DataFrame(rows, schema=TRANSITIONS))
    played = evaluate([LOOSE_QUEEN, LOOSE_QUEEN], ["g1h2", "g2a8"], counting)
    evaluated = played.with_columns(split=pl.lit("sae"), row=pl.Series([7, 9]))
    write_table(tmp_path / "engine.parquet", evaluated, ENGINE)
    line = ["blunders"]
    for name in ("transitions", "engine"):
        line += [
            {"engine": "--evaluations"}.get(name, f"--{name}"),
            str(tmp_path / f"{name}.parquet"),
        ]
    line += ["--output", str(tmp_path / "blunders.parquet")]
    done = CliRunner().invoke(
        app,
        [*line, "--settings", "{}", "--search", counting.model_dump_json()],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    blunders = read_table(tmp_path / "blunders.parquet", BLUNDERS)
    assert blunders.select("source", "split", "row", "fen", "move", "best").rows() == [
        ("played", "sae", 7, LOOSE_QUEEN, "g1h2", "g2a8"),
        ("transition", "eval", 0, LOOSE_QUEEN, "g1f1", "g2a8"),
    ]


def test_positions_of_a_split_are_evaluated_with_the_moves_that_were_played(
    counting: Engine, tmp_path: Path
) -> None:
    table = positions_table(random_play(60, seed=12))
    table.write_parquet(tmp_path / "positions.parquet")
    settings = counting.model_copy(
        update={"split": "model", "positions": 20, "positions_per_job": 8}
    )
    assert settings.jobs == 3
    parts = [str(tmp_path / f"part-{part}.parquet") for part in range(4)]
    for part, path in enumerate(parts):  # one more than there are positions for
        line = [
            "evaluate",
            "--positions",
            str(tmp_path / "positions.parquet"),
            "--seed",
            "0",
            "--part",
            str(part),
        ]
        line += ["--output", path, "--settings", settings.model_dump_json()]
        assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    whole = str(tmp_path / "evaluations.parquet")
    done = CliRunner().invoke(
        app, ["gather-evaluations", *parts, "--output", whole], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert [read_table(Path(path)).height for path in parts] == [8, 8, 4, 0]
    read_back = read_table(tmp_path / "evaluations.parquet", ENGINE)
    assert read_back.height == read_back["row"].n_unique() == 20
    own = table.filter(split="model")
    assert own["move"].gather(read_back["row"]).to_list() == read_back["move"].to_list()
    played = {
        " ".join(fen.split()[:4]): move for fen, move in table.select("fen", "move").iter_rows()
    }
    for row in read_back.to_dicts():
        assert played[" ".join(row["fen"].split()[:4])] == row["move"]
        assert chess.Move.from_uci(row["best"]) in chess.Board(row["fen"]).legal_moves
    best = best_moves(tmp_path / "evaluations.parquet", read_back["fen"].to_list())
    assert best is not None
    assert [MOVES[move] for move in best] == read_back["best"].to_list()


stockfish = pytest.mark.skipif(
    not (shutil.which("stockfish") or shutil.which("stockfish", path="/usr/games")),
    reason="Stockfish is not installed",
)


@stockfish
def test_stockfish_says_the_same_in_any_order_whether_depth_or_nodes_end_its_search() -> None:
    fens = [board.fen() for board in random_play(4, seed=3).python]
    moves = [next(iter(chess.Board(fen).legal_moves)).uci() for fen in fens]
    for settings in (Engine(depth=6), Engine(depth=None, nodes=3000), Engine(nodes=500)):
        evaluated = evaluate(fens, moves, settings)
        assert evaluated.reverse().equals(evaluate(fens[::-1], moves[::-1], settings))
        assert evaluated["loss"].min() >= 0


@stockfish
def test_stockfish_takes_queens_and_mates() -> None:
    settings = Engine(depth=8)
    twice = [evaluate([LOOSE_QUEEN, MATE_IN_ONE], ["g1f1", "a1a2"], settings) for _ in range(2)]
    assert twice[0].equals(twice[1])
    assert twice[0]["best"].to_list() == ["g2a8", "a1a8"]
    assert (twice[0]["loss"] > Blunders().least).to_list() == [True, True]
    assert twice[0]["engine"][0].startswith("Stockfish")
    assert twice[0]["evaluation"][1] == MATE
    board = chess.Board(LOOSE_QUEEN)
    assert chess.Move.from_uci(twice[0]["best"][0]) in board.legal_moves
    assert json.loads(settings.model_dump_json())["depth"] == 8
