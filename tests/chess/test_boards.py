"""Boards, attacks and moves: all of it held to python-chess on positions of random games."""

from __future__ import annotations

import chess
import numpy as np
import pytest
from chess_games import random_turns

from saeflow.chess.games import attacks
from saeflow.chess.games.boards import START, Boards, join, read_fens, write_fens
from saeflow.chess.games.moves import (
    MOVE_INDEX,
    MOVES,
    SIDE_INFORMATION,
    in_check,
    legal_moves,
    mirrored_move,
    move_indices,
    play,
    side_information,
)
from saeflow.errors import SaeflowError

PASSING = "rnbqkbnr/ppp1pppp/8/3pP3/8/8/PPPP1PPP/RNBQKBNR w KQkq d6 0 3"


@pytest.fixture(scope="module")
def turns():
    return random_turns(3000)


@pytest.fixture(scope="module")
def boards(turns):
    return read_fens([turn.board.fen() for turn in turns])


@pytest.fixture(scope="module")
def legal(boards):
    return legal_moves(boards)


def essence(fen: str) -> list[str]:
    """A FEN without its counters."""
    return fen.split(" ")[:4]


def equal(first: Boards, other: Boards) -> bool:
    return all(
        np.array_equal(getattr(first, field), getattr(other, field)) for field in Boards.__slots__
    )


def moves_of(fen: str) -> set[str]:
    return {MOVES[index] for index in np.flatnonzero(legal_moves(read_fens([fen]))[0])}


def test_squares_are_counted_from_a1_and_the_player_to_move_is_white():
    boards = read_fens([START, "4k3/8/8/8/8/7p/8/K7 b - - 0 1"])
    assert boards.pieces[0, 5] == 1 << chess.E1
    assert boards.pieces[0, 3] == 1 << chess.A1 | 1 << chess.H1
    assert boards.pieces[1, 0] == 1 << chess.H6  # Black's pawn on h3, seen by Black
    assert boards.pieces[1, 5] == 1 << chess.E1
    assert boards.pieces[1, 11] == 1 << chess.A8


def test_a_position_with_black_to_move_is_the_mirror_image_that_python_chess_makes(turns, boards):
    assert [essence(fen) for fen in write_fens(boards)] == [
        essence(turn.seen.fen()) for turn in turns
    ]
    assert equal(read_fens(write_fens(boards)), boards)


def test_mirroring_twice_changes_nothing(boards):
    assert equal(boards.mirrored().mirrored(), boards)


def test_bitboards_are_those_of_python_chess(turns, boards):
    for turn, pieces in zip(turns[:500], boards.pieces, strict=False):
        expected = [
            int(turn.seen.pieces(kind, colour))
            for colour in (chess.WHITE, chess.BLACK)
            for kind in range(1, 7)
        ]
        assert pieces.tolist() == expected


def test_legal_moves_are_those_of_python_chess(turns, legal):
    for turn, row in zip(turns, legal, strict=True):
        assert {MOVES[index] for index in np.flatnonzero(row)} == {
            move.uci() for move in turn.seen.legal_moves
        }


@pytest.mark.parametrize(
    "fen",
    [
        PASSING,
        "8/8/8/KPp4r/8/8/8/7k w - c6 0 1",  # taking in passing would open the rank to the rook
        "8/8/8/1Pp4B/4k3/8/8/K7 w - c6 0 1",
        "r3k2r/8/8/8/8/8/8/R3K2R w KQkq - 0 1",
        "r3k2r/8/8/8/8/4r3/8/R3K2R w KQkq - 0 1",  # in check
        "r3k2r/8/8/8/8/5r2/8/R3K2R w KQkq - 0 1",  # f1 is attacked
        "r3k2r/8/8/8/8/1r6/8/R3K2R w KQkq - 0 1",  # b1 is attacked, which does not matter
        "4k3/8/8/8/1b6/8/3P4/4K2r w - - 0 1",  # two reasons
        "1n1n4/2P1P3/8/8/8/8/8/k1K5 w - - 0 1",
        "7k/5Q2/8/8/8/8/8/K7 b - - 0 1",  # stalemate
        "7k/6Q1/6K1/8/8/8/8/8 b - - 0 1",  # mate
    ],
)
def test_rare_moves_are_those_of_python_chess(fen):
    board = chess.Board(fen)
    seen = board if board.turn else board.mirror()
    assert moves_of(fen) == {move.uci() for move in seen.legal_moves}


def test_a_played_move_gives_the_position_that_python_chess_has(turns, boards):
    after = play(boards, move_indices([turn.seen_move for turn in turns]))
    for turn, fen in zip(turns, write_fens(after), strict=True):
        board = turn.board.copy()
        board.push(turn.move)
        assert essence(fen) == essence((board if board.turn else board.mirror()).fen())


def test_side_information_says_of_every_move_what_python_chess_says(turns, boards, legal):
    information = side_information(boards, move_indices([turn.seen_move for turn in turns]), legal)
    for turn, row, may in zip(turns, information, legal, strict=True):
        board, move = turn.seen, chess.Move.from_uci(turn.seen_move)
        expected = np.zeros(SIDE_INFORMATION)
        expected[board.piece_type_at(move.from_square) - 1] = 1
        if (
            taken := chess.PAWN
            if board.is_en_passant(move)
            else board.piece_type_at(move.to_square)
        ) is not None:
            expected[6 + taken - 1] = 1
        expected[12] = board.gives_check(move)
        expected[13 + move.from_square] = expected[77 + move.to_square] = 1
        if board.is_castling(move):
            rook = (
                (chess.H1, chess.F1) if board.is_kingside_castling(move) else (chess.A1, chess.D1)
            )
            expected[[chess.ROOK - 1, 13 + rook[0], 77 + rook[1]]] = 1
        assert np.array_equal(row[:SIDE_INFORMATION], expected)
        assert np.array_equal(row[SIDE_INFORMATION:], may)


def test_attackers_and_checks_are_those_of_python_chess(turns, boards):
    squares = np.random.default_rng(0).integers(0, 64, len(boards))
    white, black = attacks.attackers(boards, squares)
    checks = in_check(boards)
    for row, turn in enumerate(turns):
        assert white[row] == int(turn.seen.attackers(chess.WHITE, squares[row]))
        assert black[row] == int(turn.seen.attackers(chess.BLACK, squares[row]))
        assert checks[row] == turn.seen.is_check()


def test_the_list_of_moves_is_closed_and_in_the_published_order():
    assert len(MOVES) == len(MOVE_INDEX) == 1880
    # the queen's moves from a1 from the far end on, then the knight's, then the next square;
    # promotions last
    assert MOVES[:3] == ["a1h8", "a1a8", "a1g7"]
    assert MOVES[21:24] == ["a1b3", "a1c2", "b1b8"]
    assert MOVES[-88:-80] == [
        "a7a8q",
        "a7a8r",
        "a7a8b",
        "a7a8n",
        "a7b8q",
        "a7b8r",
        "a7b8b",
        "a7b8n",
    ]
    assert MOVES[-4:] == ["h7g8q", "h7g8r", "h7g8b", "h7g8n"]


def test_mirrored_moves_flip_the_ranks():
    assert mirrored_move("e7e5") == "e2e4"
    assert mirrored_move("b2a1q") == "b7a8q"


def test_rights_without_king_and_rook_in_place_are_none():
    boards = read_fens(
        ["r3k2r/8/8/8/8/8/8/4K2R w KQkq - 0 1", "r3k3/8/8/8/8/8/8/R2K3R w KQkq - 0 1"]
    )
    assert boards.castling.tolist() == [[True, False, True, True], [False, False, False, True]]


@pytest.mark.parametrize(
    ("fen", "reason"),
    [
        ("rnbqkbnr/pppppppp/8/8 w KQkq - 0 1", "8 ranks of 8 squares"),
        ("rnbqkbnr/pppppppp/9/8/8/8/PPPPPPPP/RNBQKBN w KQkq - 0 1", "8 ranks of 8 squares"),
        ("rnbqkbnr/ppppppppp/7/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1", "8 ranks of 8 squares"),
        ("rnbqkbnr/pppppppx/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1", "8 ranks of 8 squares"),
        ("rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq -", "six fields"),
        ("rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq z9 0 1", "in passing"),
    ],
)
def test_what_is_no_position_is_named(fen, reason):
    with pytest.raises(SaeflowError, match=reason) as caught:
        read_fens([START, fen])
    assert fen in str(caught.value)


def test_a_move_that_is_not_the_bottom_players_is_named():
    with pytest.raises(SaeflowError, match="'a2a1q' is no move of the player at the bottom"):
        move_indices(["e2e4", "a2a1q"])


def test_no_positions_are_no_positions():
    empty = read_fens([])
    assert len(empty) == 0
    assert legal_moves(empty).shape == (0, 1880)
    assert write_fens(empty) == []


def test_parts_join_to_the_whole(boards):
    whole = join([boards.part(slice(0, 100)), boards.part(np.arange(100, len(boards)))])
    assert equal(whole, boards)
