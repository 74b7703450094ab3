"""Files of games as programs write them: every game is read or counted, whatever stands around it,
and every stored move is legal on its own board. python-chess is the oracle."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import struct
from pathlib import Path

import chess
import chess.pgn
import numpy as np
import polars as pl
import pytest
import zstandard
from chess_games import ALL_GAMES, SCHOLAR, game_text, random_turns

from saeflow.chess.games import files
from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.files import read_chunks
from saeflow.chess.games.io import load_examples, read_positions, write_positions
from saeflow.chess.games.moves import MOVES, are_legal, legal_moves
from saeflow.chess.games.positions import pgn_positions, split_of
from saeflow.errors import SaeflowError


def read(tmp_path: Path, text: str | bytes, name: str = "games.pgn"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    counts = write_positions(tmp_path / "out.parquet", pgn_positions(tmp_path / name, ALL_GAMES))
    return read_positions(tmp_path / "out.parquet"), counts


def first(text: str) -> chess.pgn.Game:
    game = chess.pgn.read_game(io.StringIO(text))
    assert game is not None
    return game


def three(**headers: str) -> list[str]:
    moves = ("1. e4 { [%clk 0:03:00] } e5 1-0", "1. d4 d5 2. c4 1-0", SCHOLAR)
    return [
        game_text(text, Site=f"https://lichess.org/number{n:02d}", **headers)
        for n, text in enumerate(moves)
    ]


MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
FORMS = {
    "tags_in_another_order": lambda games: "".join(
        "\n".join(sorted(game.split("\n\n")[0].split("\n"), reverse=True))
        + "\n\n"
        + game.split("\n\n", 1)[1]
        for game in games
    ),
    "blank_lines_between_tags": lambda games: "".join(games).replace("]\n[", "]\n\n\n["),
    "no_line_between_tags_and_moves": lambda games: "".join(games).replace("]\n\n1.", "]\n1."),
    "no_line_between_games": lambda games: "".join(game.rstrip("\n") + "\n" for game in games),
    "several_tags_in_a_line": lambda games: "".join(games).replace("]\n[", "] ["),
    "blanks_around_tags": lambda games: (
        "".join(games)
        .replace("[Event", " [ Event")
        .replace("]\n[", "]\n [ ")
        .replace('"]', '" ]  ')
    ),
    "blank_lines_inside_moves": lambda games: "".join(games).replace(" 2.", "\n\n\n2."),
    "carriage_returns": lambda games: "".join(games).replace("\n", "\r"),
    "both_line_ends": lambda games: "".join(games).replace("\n", "\r\n"),
    "marks_where_files_were_joined": lambda games: MARK + MARK.join(games),
    "lines_that_are_passed_over": lambda games: "".join(games).replace(
        "]\n[Site", "]\n% a line\n; another\n[Site"
    ),
    "a_tag_that_is_none": lambda games: "".join(games).replace("]\n[Site", ']\n[Odd "\n[Site'),
    "comments_that_quote_tags": lambda games: "".join(games).replace(
        " 2.", ' { see\n[Event "Rated"]\n[Site "there"]\nand\n\n[Event "x"]\n } 2.'
    ),
    "a_comment_of_several_lines": lambda games: "".join(games).replace(
        " 2.", " { one\n\n [%cal Ga1a2]\n[two] } 2."
    ),
    "rests_of_lines": lambda games: "".join(games).replace(" 2.", " ; { see (1. a4 [x]\n2."),
    "trailing_blanks": lambda games: "".join(games).replace("\n", "  \t\n"),
    "text_before": lambda games: "; made by a program\n\n% and more\n\n" + "".join(games),
    "long_algebra": lambda games: "".join(games).replace("1. e4", "1. e2-e4").replace("d5", "d7d5"),
    "glyphs": lambda games: "".join(games).replace("1. e4", "1. e4!? $13 \N{PLUS-MINUS SIGN}"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_another_form_gives_the_same_positions(form: str, tmp_path: Path) -> None:
    plain, counts = read(tmp_path, "".join(three()))
    assert counts["games"] == {"kept": 3}
    assert plain.height == 2 + 3 + 7
    other, again = read(tmp_path, FORMS[form](three()))
    assert other.equals(plain), again
    assert again == counts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 301])
def test_where_a_file_is_cut_for_reading_changes_nothing(
    form: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FORMS[form](three() * 3)
    (tmp_path / "games.pgn").write_text(text, newline="")
    whole = [chunk.games for chunk in read_chunks(tmp_path / "games.pgn", 100)]
    assert [len(games) for games in whole] == [9]
    monkeypatch.setattr(files, "_PIECE", piece)
    pieces = [chunk.games for chunk in read_chunks(tmp_path / "games.pgn", 100)]
    assert [[game.strip() for game in games] for games in pieces] == [
        [game.strip() for game in games] for games in whole
    ]


def test_every_game_is_kept_or_counted_and_every_stored_move_is_legal_in_any_mixture_of_forms(
    tmp_path: Path,
) -> None:
    draw = random.Random(3)
    faulty = {
        "null": "1. e4 -- 2. d4 1-0",
        "german": "1. e4 e5 2. Sf3 Sc6 1-0",
        "illegal": "1. e4 e5 2. Ke3 1-0",
        "open": "1. e4 { no end 1-0",
        "endless": "1. e4 e5",
        "twice": "1. e4 e5 1-0\n\n1. e3 e6 0-1",
        "none": "",
    }
    text, games, good = "", 0, 0
    for _ in range(60):
        chosen = three()
        text += FORMS[draw.choice([form for form in FORMS if form != "carriage_returns"])](chosen)
        games, good = games + 3, good + 3
        bad = draw.choice(list(faulty))
        if bad != "open" or not text.endswith("}"):
            text += game_text(faulty[bad], Site="https://lichess.org/badbadba")
            games += 1
    table, counts = read(tmp_path, text)
    assert sum(counts["games"].values()) == games
    assert counts["games"]["kept"] == good
    for fen, move in table.select("fen", "move").unique().iter_rows():
        assert chess.Move.from_uci(move) in chess.Board(fen).legal_moves


def test_games_without_moves_are_told_from_each_other_by_their_tags(tmp_path: Path) -> None:
    bare = [game_text("", Site=f"https://lichess.org/nomoves{n}") for n in range(3)]
    turned = ["\n".join(sorted(game.strip().split("\n"), reverse=True)) + "\n\n" for game in bare]
    for games in (bare, turned):
        _, counts = read(tmp_path, "".join(games) + game_text(SCHOLAR))
        assert counts["games"] == {"kept": 1, "malformed": 3}


def test_a_comment_without_an_end_loses_its_own_game_only(tmp_path: Path) -> None:
    games = [game_text("1. e4 { no end 1-0"), *three(), game_text("1. e4 { no end 1-0"), *three()]
    _, counts = read(tmp_path, "".join(games))
    assert counts["games"] == {"kept": 6, "malformed": 2}


@pytest.mark.parametrize(
    ("moves", "fault"),
    [
        ("1. e4 e5 2. Nf3 -- 3. Nxe5 Nc6 1-0", "null move"),
        ("1. e4 e5 2. Nf3 Z0 3. Nxe5 Nc6 1-0", "null move"),
        ("1. e4 e5 2. Nf3 0000 3. Nxe5 Nc6 1-0", "null move"),
        ("1. e4 e5 2. Sf3 Sc6 1-0", "what is 'Sf3'"),  # Nf3 in German, no move of the pawn
        ("1. e4 e5 1-0 2. Nf3 Nc6", "goes on after its result"),
        ("1. e4 e5 1-0 0-1", "two results"),
    ],
)
def test_what_no_board_can_play_is_malformed(moves: str, fault: str, tmp_path: Path) -> None:
    table, counts = read(tmp_path, game_text(moves) + "".join(three()))
    assert counts["games"] == {"kept": 3, "malformed": 1}
    assert fault in counts["faults"][0]
    assert table.height == 12


def test_a_game_whose_rooks_castle_from_elsewhere_is_another_kind_of_chess(tmp_path: Path) -> None:
    fen = "bqnrnkrb/pppppppp/8/8/8/8/PPPPPPPP/BQNRNKRB w KQkq - 0 1"
    moves = "1. b3 c5 2. Nf3 d5 3. d4 b6 4. O-O Nf6 1-0"
    assert first(game_text(moves, FEN=fen, SetUp="1")).board().chess960
    _, counts = read(tmp_path, game_text(moves, FEN=fen, SetUp="1") + "".join(three()))
    assert counts["games"] == {"kept": 3, "other kinds of chess": 1}


def test_a_game_cannot_begin_without_a_king(tmp_path: Path) -> None:
    fen = "8/8/8/8/8/8/PPPPPPPP/RNBQKBNR w - - 0 1"
    _, counts = read(tmp_path, game_text("1. e4 1-0", FEN=fen) + "".join(three()))
    assert counts["games"] == {"kept": 3, "malformed": 1}


COMMENTED = (
    "1. e4 { [%eval +0.16] [%clk 0:03:00] } { B00 } e5 { [%eval -.5] } { [%clk 0:02:59] } "
    "2. Nf3 { [%eval .5] [%clk 0:02:58.3] } (2. f4 { [%clk 9:00:00] } d5) { [%clk 8:00:00] } "
    "Nc6 { [%eval #+3] } 3. Bc4 $1 { said } Bc5 { [%eval #-3,18] [%clk 1:02:57] } "
    "4. d3 { [%eval 0.3] } { [%eval 9.9] } d6 { [%clk 0:00:59] } 1-0"
)


def test_clocks_and_evaluations_are_those_that_python_chess_reads_in_any_comment(
    tmp_path: Path,
) -> None:
    table, _ = read(tmp_path, game_text(COMMENTED))
    nodes = list(first(game_text(COMMENTED)).mainline())
    assert (
        table["clock"].to_list()
        == [None if node.clock() is None else pytest.approx(node.clock()) for node in nodes][
            : table.height
        ]
    )
    scores = [node.eval() for node in nodes]
    expected = [None] + [
        None if score is None else score.white().score(mate_score=10_000) / 100 for score in scores
    ]
    seen = [
        None if value is None else -value if black else value
        for value, black in table.select("evaluation", "black").iter_rows()
    ]
    # a mate in three is a mate
    assert seen == [
        None if value is None else pytest.approx(value, abs=0.04)
        for value in expected[: table.height]
    ]


def test_no_evaluation_is_larger_than_a_mate(tmp_path: Path) -> None:
    table, _ = read(tmp_path, game_text("1. e4 { [%eval 153.0] } e5 { [%eval -999.9] } 2. d4 1-0"))
    assert table["evaluation"].to_list() == [None, -100, -100]


@pytest.mark.parametrize("rating", ["0", "-5", "70000", "?", "", "1500.5"])
def test_a_rating_that_no_player_has_is_none(rating: str, tmp_path: Path) -> None:
    _, counts = read(tmp_path, game_text(SCHOLAR, WhiteElo=rating) + "".join(three()))
    assert counts["games"] == {"kept": 3, "without ratings": 1}


@pytest.mark.parametrize(
    "site",
    [
        "http://www.chessbomb.com",
        "https://lichess.org/",
        "https://lichess.org",
        "https://lichess.org/analysis",
        "https://lichess.org/tournament/abcdefgh",
        "https://www.chess.com/live",
        "Berlin GER",
        "?",
    ],
)
def test_games_of_one_page_are_divided_between_the_splits(site: str, tmp_path: Path) -> None:
    games = [game_text(SCHOLAR, Site=site, Round=str(n)) for n in range(60)]
    table, _ = read(tmp_path, "".join(games))
    assert table["game"].n_unique() == 60
    assert set(table["split"]) == {"model", "sae", "eval"}
    again, _ = read(tmp_path, "".join(reversed(games)))
    assert set(again["game"]) == set(table["game"])  # not by their place in a file


def test_a_game_is_named_by_its_server_whatever_of_it_is_linked(tmp_path: Path) -> None:
    for site in ("abcdefgh", "abcdefghWxYz", "abcdefgh/black", "abcdefgh#12"):
        table, _ = read(tmp_path, game_text(SCHOLAR, Site=f"https://lichess.org/{site}"))
        assert set(table["game"]) == {"abcdefgh"}


@pytest.mark.parametrize("name", ["GAMES.PGN", "games.pgn.GZ", "games.Pgn.Bz2", "games.ZST"])
def test_names_in_capitals_are_read(name: str, tmp_path: Path) -> None:
    pack = {
        ".pgn": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }[Path(name).suffix.lower()]
    assert read(tmp_path, pack("".join(three()).encode()), name)[1]["games"] == {"kept": 3}


def test_text_of_two_bytes_a_letter_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match="save it as UTF-8"):
        read(tmp_path, "".join(three()).encode("utf-16"))


@pytest.mark.parametrize("end", [1022, 1023, 1024, 1025, 2048, 131_072])
def test_frames_of_a_packed_file_may_end_anywhere(end: int, tmp_path: Path) -> None:
    pack = zstandard.ZstdCompressor().compress
    frames = [pack(game.encode()) for game in three()]
    padding = end - len(frames[0]) - 8
    skipped = struct.pack("<II", 0x184D2A50, padding) + bytes(padding)
    packed = frames[0] + skipped + frames[1] + frames[2]
    whole = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True)
    assert whole.read() == "".join(three()).encode()
    assert read(tmp_path, packed, "games.pgn.zst")[1]["games"] == {"kept": 3}


@pytest.mark.parametrize("name", ["games.pgn.gz", "games.pgn.bz2", "games.pgn.zst"])
def test_a_damaged_file_is_told_with_the_games_that_could_be_read(
    name: str, tmp_path: Path
) -> None:
    draw = random.Random(0)
    text = "".join(
        game_text(SCHOLAR, White="".join(draw.choices("abcdefghij", k=12)), Round=str(n))
        for n in range(400)
    )
    pack = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    }[Path(name).suffix]
    packed = pack(text.encode())
    cut_files = 0
    for _ in range(60):
        damaged = bytearray(packed)
        at = draw.randrange(len(packed) // 4, len(packed) - 8)
        damaged[at : at + 8] = draw.randbytes(8)
        try:
            _, counts = read(tmp_path, bytes(damaged), name)
        except SaeflowError:  # nothing could be read
            cut_files += 1
            continue
        cut_files += "cut or damaged" in counts["faults"][0]
        assert counts["games"]["malformed"] >= 1
    assert cut_files == 60


def test_a_move_is_legal_where_python_chess_says_so() -> None:
    boards, moves, truth = [], [], []
    draw = random.Random(5)
    for seed in range(40):
        for turn in random_turns(60, seed=seed):
            board = turn.board if turn.board.turn else turn.board.mirror()
            boards.append(board.fen(en_passant="fen"))
            legal = [move.uci() for move in board.legal_moves]
            moves.append(draw.choice(legal) if draw.random() < 0.5 else draw.choice(MOVES))
            truth.append(moves[-1] in legal)
    index = np.array([MOVES.index(move) for move in moves])
    positions = read_fens(boards)
    assert are_legal(positions, index).tolist() == truth
    assert are_legal(positions, np.full(len(boards), -1)).sum() == 0
    every = legal_moves(positions.part(slice(0, 60)))
    for move in range(0, len(MOVES), 7):
        same = are_legal(positions.part(slice(0, 60)), np.full(60, move))
        assert same.tolist() == every[:, move].tolist()


def test_months_that_are_for_tests_are_the_split_eval_and_share_no_game_with_training(
    tmp_path: Path,
) -> None:
    games = [game_text(SCHOLAR, Site="?", Round=str(n)) for n in range(120)]
    for name, own in (("a", games[:50]), ("b", games[50:100]), ("t", games[90:])):
        (tmp_path / f"{name}.pgn").write_text("".join(own))
    first, two, later = (tmp_path / f"{name}.pgn" for name in "abt")
    results = []
    for jobs in (1, 2):
        parts = pgn_positions([first, two], ALL_GAMES, jobs, test=[later])
        counts = write_positions(tmp_path / "out.parquet", parts)
        results.append((read_positions(tmp_path / "out.parquet"), counts))
    assert results[0][0].equals(results[1][0])
    table, counts = results[0]
    assert counts["games"] == {"kept": 120, "in a test file, too": 10}
    assert len(load_examples(tmp_path / "out.parquet", "eval").moves) == 30 * 7
    names = {split: set(table.filter(split=split)["game"]) for split in ("model", "sae", "eval")}
    assert names["eval"] == set(read(tmp_path, "".join(games[90:]))[0]["game"])
    assert len(names["model"]) + len(names["sae"]) == 90
    assert not names["eval"] & (names["model"] | names["sae"])


def test_games_tested_elsewhere_are_divided_in_the_proportion_of_the_other_splits() -> None:
    names = [f"game{number}" for number in range(9000)]
    shares = pl.Series([split_of(name, tested_elsewhere=True) for name in names]).value_counts()
    by_split = dict(shares.iter_rows())
    assert set(by_split) == {"model", "sae"}
    assert by_split["sae"] / 9000 == pytest.approx(1 / 9, abs=0.012)
