"""Games to positions: what is read, what is left out, what is counted, and that the way of reading
does not matter."""

from __future__ import annotations

import bz2
import gzip
import io
import subprocess
import sys

import chess
import chess.engine
import chess.pgn
import polars as pl
import pytest
import zstandard
from chess_games import ALL_GAMES, HEADERS, SCHOLAR, game_text, random_turns

from saeflow.chess.games import files
from saeflow.chess.games.files import read_chunks
from saeflow.chess.games.io import load_examples, read_positions, write_positions
from saeflow.chess.games.moves import MOVES
from saeflow.chess.games.positions import (
    RATING_BINS,
    SCHEMA,
    pgn_positions,
    rating_bin,
    split_of,
)
from saeflow.chess.games.settings import Games
from saeflow.errors import SaeflowError


def positions_of(
    tmp_path, text: str | bytes, settings: Games = ALL_GAMES, name: str = "games.pgn", jobs: int = 1
):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    output = tmp_path / "positions.parquet"
    counts = write_positions(output, pgn_positions(path, settings, jobs))
    return read_positions(output), counts


@pytest.fixture(scope="module")
def thirty_games() -> str:
    """Random games with clocks and evaluations."""
    texts = []
    for number in range(30):
        board, game = chess.Board(), chess.pgn.Game()
        game.headers.update(
            HEADERS
            | {"Site": f"https://lichess.org/game{number:04d}", "WhiteElo": str(900 + 40 * number)}
        )
        node: chess.pgn.GameNode = game
        for ply, turn in enumerate(random_turns(40, seed=number)):
            if turn.board.fen() != board.fen():
                break
            node = node.add_variation(turn.move)
            node.set_clock(60 - ply)
            node.set_eval(chess.engine.PovScore(chess.engine.Cp(10 * ply), chess.WHITE))
            board.push(turn.move)
        texts.append(str(game) + "\n\n")
    return "".join(texts)


def test_every_half_move_is_a_position_seen_by_its_player(tmp_path):
    table, counts = positions_of(tmp_path, game_text(SCHOLAR))
    assert table["move"].to_list() == ["e2e4", "e2e4", "f1c4", "b1c3", "d1h5", "g1f3", "h5f7"]
    assert table["black"].to_list() == [False, True, False, True, False, True, False]
    assert table["fen"][1] == "rnbqkbnr/pppp1ppp/8/4p3/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1"
    assert table["result"].to_list() == [1, -1, 1, -1, 1, -1, 1]
    assert table["rating_self"].to_list() == [1650, 2010, 1650, 2010, 1650, 2010, 1650]
    assert table["bin_oppo"].to_list() == [10, 6, 10, 6, 10, 6, 10]
    assert table["ply"].to_list() == list(range(7))
    assert table["game"].unique().to_list() == ["abcdefgh"]
    assert table["clock"].null_count() == table["evaluation"].null_count() == 7
    assert counts == {"games": {"kept": 1}, "positions": 7, "faults": []}
    assert dict(table.schema) == SCHEMA


def test_positions_are_those_that_python_chess_replays(tmp_path, thirty_games):
    table, counts = positions_of(
        tmp_path, thirty_games, ALL_GAMES.model_copy(update={"minimum_clock": 0.0})
    )
    assert counts["games"] == {"kept": 30}
    stream, row = io.StringIO(thirty_games), 0
    while game := chess.pgn.read_game(stream):
        for node in game.mainline():
            board = node.parent.board()
            seen = board if board.turn else board.mirror()
            assert table["fen"][row].split(" ")[:4] == seen.fen().split(" ")[:4]
            move = chess.Move.from_uci(table["move"][row])
            assert move in seen.legal_moves
            assert (
                move
                if board.turn
                else chess.Move(move.from_square ^ 56, move.to_square ^ 56, move.promotion)
            ) == node.move
            row += 1
    assert row == table.height


def test_clocks_and_evaluations_are_the_players_own(tmp_path):
    moves = (
        "1. e4 { [%eval 0.3] [%clk 0:05:00] } e5 { [%eval 0.5] [%clk 0:04:58] } "
        "2. Ke2 { [%eval #-7] [%clk 1:00:31.5] } Qh4 { [%eval -9.5] [%clk 0:04:00] } 0-1"
    )
    table, _ = positions_of(tmp_path, game_text(moves, Result="0-1"))
    assert table["clock"].to_list() == [300, 298, 3631.5, 240]
    assert table["evaluation"].to_list() == [
        None,
        pytest.approx(-0.3),
        0.5,
        100,
    ]  # before the move, the player's view


def test_moves_in_haste_are_left_out_and_games_without_clocks_where_they_are_required(
    tmp_path, thirty_games
):
    hasty, _ = positions_of(tmp_path, thirty_games)
    assert hasty["clock"].min() == 31
    slow, _ = positions_of(
        tmp_path, thirty_games, ALL_GAMES.model_copy(update={"minimum_clock": 50.0})
    )
    assert slow["clock"].min() == 51
    assert slow.height == hasty.filter(pl.col("clock") > 50).height
    required = ALL_GAMES.model_copy(update={"clocks": "required"})
    both, counts = positions_of(tmp_path, thirty_games + game_text(SCHOLAR), required)
    assert counts["games"] == {"kept": 30, "without clocks": 1}
    assert both.height == hasty.height


def test_plies_before_the_first_and_after_the_last_are_left_out(tmp_path):
    table, _ = positions_of(
        tmp_path, game_text(SCHOLAR), ALL_GAMES.model_copy(update={"first_ply": 2, "last_ply": 4})
    )
    assert table["ply"].to_list() == [2, 3, 4]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"WhiteElo": "?"}, "without ratings"),
        ({"BlackElo": None}, "without ratings"),
        ({"Event": "Casual game"}, "other events"),
        ({"Result": "*"}, "without a result"),
        ({"Variant": "Atomic"}, "other kinds of chess"),
        ({"WhiteTitle": "BOT"}, "played by a program"),
    ],
)
def test_games_that_are_not_wanted_are_counted_by_the_reason(headers, reason, tmp_path):
    _, counts = positions_of(tmp_path, game_text(SCHOLAR) + game_text(SCHOLAR, **headers))
    assert counts["games"] == {"kept": 1, reason: 1}


@pytest.mark.parametrize(
    ("moves", "fault"),
    [
        ("1. e4 e5 2. Ke3 1-0", "illegal san"),
        ("1. e4 e5 2. Nd4 Nc6 1-0", "illegal san"),
        ("1. e4 e5 2. Nf3", "ends without a result"),
        ("1. e4 e5 2. Nf3 {a comment without an end 1-0", "ends without a result"),
        ("", "ends without a result"),
    ],
)
def test_a_malformed_game_is_counted_told_and_left_out(moves, fault, tmp_path):
    bad = game_text(moves, Site="https://lichess.org/badbadba")
    table, counts = positions_of(
        tmp_path, game_text(SCHOLAR) + bad + game_text(SCHOLAR, Site="https://lichess.org/later000")
    )
    assert counts["games"] == {"kept": 2, "malformed": 1}
    assert counts["faults"][0].startswith(f"badbadba: {fault}")
    assert table["game"].unique().sort().to_list() == ["abcdefgh", "later000"]


def test_a_position_that_is_none_is_a_malformed_game(tmp_path):
    bad = game_text(SCHOLAR, SetUp="1", FEN="what is this")
    _, counts = positions_of(tmp_path, game_text(SCHOLAR) + bad)
    assert counts["games"] == {"kept": 1, "malformed": 1}


def test_variations_comments_and_glyphs_do_not_count(tmp_path):
    moves = (
        "{first} 1. e4 $1 e5 (1... c5 2. Nf3 (2. c3 d5)) 2. Bc4!? Nc6 3. Qh5 {aha [Event] } Nf6?? "
        "4. Qxf7# 1-0"
    )
    plain, _ = positions_of(tmp_path, game_text(SCHOLAR))
    rich, counts = positions_of(tmp_path, game_text(moves))
    assert counts["games"] == {"kept": 1}
    assert rich.equals(plain)


PACKED = {
    "games.pgn.zst": zstandard.ZstdCompressor().compress,
    "games.pgn.gz": gzip.compress,
    "games.pgn.bz2": bz2.compress,
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_are_read_as_plain_ones(name, tmp_path, thirty_games):
    plain, _ = positions_of(tmp_path, thirty_games)
    packed, counts = positions_of(tmp_path, PACKED[name](thirty_games.encode()), name=name)
    assert packed.equals(plain)
    assert counts["games"] == {"kept": 30}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_file_that_is_cut_gives_the_games_before_the_cut(name, tmp_path, thirty_games):
    many = (
        thirty_games * 25
    ).encode()  # more than one block of every kind: a part of a block is nothing
    whole = PACKED[name](many)
    _, counts = positions_of(
        tmp_path, whole[:-20], ALL_GAMES.model_copy(update={"first_ply": 28}), name
    )
    assert counts["games"]["malformed"] == 1
    assert 200 < counts["games"]["kept"] < 750
    assert "the file is cut or damaged" in counts["faults"][0]


BOMBS = {
    "zeros": lambda size: b"\0" * size,
    "moves": lambda size: b"1. Nf3 Nf6 2. Ng1 Ng8 " * (size // 22),
    "lines": lambda size: b"\n" * size,
}


@pytest.mark.parametrize(
    ("name", "content"),
    [*((name, "zeros") for name in PACKED), ("games.pgn.zst", "moves"), ("games.pgn.zst", "lines")],
)
def test_a_small_file_that_unpacks_to_much_more_is_refused_in_a_sentence_before_it_fills_the_memory(
    name, content, tmp_path
):
    text = game_text(SCHOLAR).encode() + b'[Event "Rated"]\n\n' + BOMBS[content](200 << 20)
    (tmp_path / name).write_bytes(PACKED[name](text))
    del text
    assert (tmp_path / name).stat().st_size < 4 << 20
    code = (
        "import resource, sys; from pathlib import Path; from saeflow.chess.games.files import "
        "read_chunks\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: print(sum(len(chunk.games) for chunk in read_chunks(Path(sys.argv[1]), 5000)))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)"
    )
    run = [sys.executable, "-c", code, str(tmp_path / name)]
    memory, more = subprocess.run(
        run, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "SaeflowError" in memory
    assert "no other game begins ([Event …) within 16 MiB" in memory
    assert int(more) < 200  # MiB


def test_a_chunk_holds_fewer_games_where_they_are_long(tmp_path, monkeypatch):
    texts = [
        game_text("{" + "x" * 900 + f"}} {SCHOLAR}", Site=f"https://lichess.org/{n}")
        for n in range(50)
    ]
    (tmp_path / "games.pgn").write_text("".join(texts))
    whole = list(read_chunks(tmp_path / "games.pgn", 1000))
    monkeypatch.setattr(files, "_CHUNK", 5000)
    parts = list(read_chunks(tmp_path / "games.pgn", 1000))
    assert [game for chunk in parts for game in chunk.games] == whole[0].games
    assert max(len(chunk.games) for chunk in parts) == 5
    starts = [
        sum(len(game) for chunk in parts[:place] for game in chunk.games)
        for place in range(len(parts))
    ]
    assert [chunk.offset for chunk in parts] == starts


def test_games_and_names_that_are_too_long_are_no_part_of_the_table(tmp_path):
    endless = game_text(
        "{" + "x" * (1 << 20) + f"}} {SCHOLAR}", Site="https://lichess.org/endless0"
    )
    named = game_text(SCHOLAR, Site="https://lichess.org/" + "n" * 100_000)
    strong = game_text(SCHOLAR, Site="https://lichess.org/strong", WhiteElo="123456789")
    table, counts = positions_of(tmp_path, game_text(SCHOLAR) + endless + named + strong)
    assert counts["games"] == {"kept": 2, "malformed": 1, "without ratings": 1}
    assert counts["faults"] == ["endless0: is longer than 1 MiB"]
    assert table["game"].str.len_chars().max() < 30


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path, thirty_games):
    plain, _ = positions_of(tmp_path, thirty_games)
    other, _ = positions_of(tmp_path, b"\xef\xbb\xbf" + thirty_games.replace("\n", "\r\n").encode())
    assert other.equals(plain)


def test_the_number_of_processes_and_the_size_of_chunks_change_nothing(tmp_path, thirty_games):
    plain, counts = positions_of(tmp_path, thirty_games)
    small = ALL_GAMES.model_copy(update={"games_per_chunk": 7})
    for jobs in (1, 2):
        other, again = positions_of(tmp_path, thirty_games, small, jobs=jobs)
        assert other.equals(plain)
        assert again == counts


def test_at_most_so_many_games_of_a_range_of_ratings_are_taken_from_a_chunk(tmp_path):
    text = "".join(
        game_text(SCHOLAR, Site=f"https://lichess.org/number{number:02d}", WhiteElo="1500")
        for number in range(6)
    )
    text += game_text(SCHOLAR, Site="https://lichess.org/mirror", WhiteElo="2050", BlackElo="1510")
    settings = ALL_GAMES.model_copy(update={"games_per_range": 2, "games_per_chunk": 4})
    table, counts = positions_of(tmp_path, text, settings)
    assert table["game"].unique(maintain_order=True).to_list() == [
        "number00",
        "number01",
        "number04",
        "number05",
    ]
    assert counts["games"] == {"kept": 4, "more of one range of ratings than wanted": 3}


def test_a_file_without_a_usable_game_is_told_in_a_sentence(tmp_path):
    with pytest.raises(SaeflowError, match=r"no game gave a position \(1 other events\)"):
        positions_of(tmp_path, game_text(SCHOLAR, Event="Casual game"))
    with pytest.raises(SaeflowError, match="the file holds none"):
        positions_of(tmp_path, "what is this?\n")
    with pytest.raises(SaeflowError, match="convert it"):
        positions_of(tmp_path, "", name="games.zip")
    with pytest.raises(SaeflowError, match="no such file"):
        list(pgn_positions(tmp_path / "absent.pgn", ALL_GAMES))
    assert not (tmp_path / "positions.parquet").exists()


def test_rating_bins_are_the_published_ones():
    bins = rating_bin([0, 1099, 1100, 1199, 1200, 1999, 2000, 3200])
    assert bins.tolist() == [0, 0, 1, 1, 2, 9, 10, 10]
    assert RATING_BINS[0] == "<1100"
    assert RATING_BINS[1] == "1100-1199"
    assert RATING_BINS[10] == ">=2000"


def test_splits_share_no_game_and_have_their_shares():
    games = [f"game{number}" for number in range(5000)]
    shares = {
        split: sum(split_of(game) == split for game in games) / 5000
        for split in ("model", "sae", "eval")
    }
    assert list(shares.values()) == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_examples_are_the_rows_of_a_split_in_their_order(tmp_path, thirty_games):
    table, _ = positions_of(tmp_path, thirty_games)
    chosen = table.filter(split="model")
    loaded = load_examples(tmp_path / "positions.parquet", "model")
    assert [MOVES[move] for move in loaded.moves] == chosen["move"].to_list()
    assert loaded.rating_self.tolist() == chosen["bin_self"].to_list()
    assert len(set(loaded.games.tolist())) == chosen["game"].n_unique()
    assert len(load_examples(tmp_path / "positions.parquet").moves) == table.height
