"""Concepts about a whole position, each a small function of a view of positions; "mine" is the
player's to move.

The names are those of the published list (CSSLab, maia2-sae), the meanings those of chess where its
code is of two minds: a passed pawn is one that no opponent's pawn stands before, on its file or a
neighbouring one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt64

from saeflow.chess.games import attacks, moves
from saeflow.chess.games.boards import bits
from saeflow.chess.knowledge.views import BLACK, View

Labels = Bool[np.ndarray, " n"]
Function = Callable[[View], Labels]

_FILES = [np.uint64(0x0101010101010101 << file) for file in range(8)]
_LIGHT = np.uint64(0x55AA55AA55AA55AA)  # squares of h1's colour, on which a8 lies, too
_CAPTURE_SQUARES = ("d1", "d2", "d3", "e1", "e2", "e3", "g5", "b5")
_HEAVIER = {"pawn": (1, 2, 3, 4, 5), "knight": (3, 4, 5), "bishop": (3, 4, 5), "rook": (4, 5)}
_PIECES = ("pawn", "knight", "bishop", "rook", "queen")


def in_check(view: View) -> Labels:
    """The player to move is in check."""
    return moves.in_check(view.boards)


def has_mate_threat(view: View) -> Labels:
    """The player to move can mate with this move."""
    return np.asarray(view.mating.any(axis=1))


def has_connected_rooks(view: View) -> Labels:
    """Two rooks protect each other: on one rank or file, nothing between."""
    position, square = bits(view.pieces(3)).nonzero()
    seen = attacks.rook(square, view.occupied[position]) & view.pieces(3)[position]
    return _any(view, position, seen != 0)


def has_bishop_pair(view: View) -> Labels:
    """Two bishops."""
    return np.bitwise_count(view.pieces(2)) == 2


def has_control_of_open_file(view: View) -> Labels:
    """A rook or queen stands on a file without pawns, and none of the opponent's does."""
    return _open_file(view, lambda mine, theirs: mine & ~theirs)


def has_contested_open_file(view: View) -> Labels:
    """Rooks or queens of both sides stand on a file without pawns."""
    return _open_file(view, lambda mine, theirs: mine & theirs)


def can_capture_queen(view: View) -> Labels:
    """A legal move takes a queen."""
    queens = bits(view.pieces(4, BLACK))
    return (view.legal & queens[:, moves.TO]).any(axis=1)


def has_right_bc_ha_promotion(view: View) -> Labels:
    """A passed pawn on the a- or h-file, and a bishop of the colour of the square it promotes
    on."""
    pawns, theirs = view.pieces(0), view.pieces(0, BLACK)
    holds = np.zeros(view.count, bool)
    for file, beside, colour in ((0, 1, _LIGHT), (7, 6, ~_LIGHT)):
        stoppers = theirs & (_FILES[file] | _FILES[beside])
        rank = (
            np.bitwise_count(_below(stoppers)) // 8
        )  # of the most advanced stopper, 0 where there is none
        ahead = pawns & _FILES[file] & _from_rank(np.where(stoppers == 0, 0, rank))
        holds |= (ahead != 0) & (view.pieces(2) & colour != 0)
    return holds


def capture_possible_on(square: int) -> Function:
    """A legal move takes a piece on the square."""
    to_square = square == moves.TO

    def possible(view: View) -> Labels:
        there = view.boards.black >> np.uint64(square) & np.uint64(1) != 0
        return there & (view.legal & to_square).any(axis=1)

    return possible


def fork(piece: str) -> Function:
    """A piece that is not pinned attacks at least two of more value (a king counts)."""
    kind = _PIECES.index(piece)

    def forks(view: View) -> Labels:
        targets = np.bitwise_or.reduce([view.pieces(other, BLACK) for other in _HEAVIER[piece]])
        position, square = bits(view.pieces(kind) & ~view.pinned).nonzero()
        reach = _reach(kind, square, view.occupied[position])
        return _any(view, position, np.bitwise_count(reach & targets[position]) >= 2)

    return forks


def has_pinned(piece: str) -> Function:
    """A piece of the kind is pinned to its king."""
    kind = _PIECES.index(piece)
    return lambda view: view.pinned & view.pieces(kind) != 0


def of_opponent(function: Function) -> Function:
    """The same of the opponent, as if it were its move."""
    return lambda view: function(view.theirs)


def _reach(kind: int, square: np.ndarray, occupied: np.ndarray) -> UInt64[np.ndarray, " m"]:
    by_kind: dict[int, Callable[[], np.ndarray]] = {
        0: lambda: attacks.pawn(square),
        1: lambda: attacks.knight(square),
        2: lambda: attacks.bishop(square, occupied),
        3: lambda: attacks.rook(square, occupied),
    }
    return by_kind[kind]()


def _any(view: View, position: np.ndarray, true: np.ndarray) -> Labels:
    holds = np.zeros(view.count, bool)
    holds[position[true]] = True
    return holds


def _open_file(view: View, judge: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Labels:
    pawns = view.pieces(0) | view.pieces(0, BLACK)
    mine, theirs = view.pieces(3) | view.pieces(4), view.pieces(3, BLACK) | view.pieces(4, BLACK)
    holds = np.zeros(view.count, bool)
    for file in _FILES:
        holds |= (pawns & file == 0) & judge(mine & file != 0, theirs & file != 0)
    return holds


def _below(bitboards: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The ranks below that of each bitboard's highest square, full."""
    filled = bitboards
    for shift in (8, 16, 32):
        filled = filled | filled >> np.uint64(shift)
    highest = np.zeros_like(bitboards)
    for rank in range(1, 8):
        reaches = filled & np.uint64(0xFF << 8 * rank) != 0
        highest = np.where(reaches, np.uint64((1 << 8 * rank) - 1), highest)
    return highest


def _from_rank(rank: np.ndarray) -> UInt64[np.ndarray, " n"]:
    """All squares on a rank (0 to 7) and above."""
    return ~np.uint64(0) << (rank.astype(np.uint64) * np.uint64(8))


def _both(name: str, function: Function) -> dict[str, Function]:
    return {f"{name}_mine": function, f"{name}_opponent": of_opponent(function)}


def _strategic() -> dict[str, Function]:
    functions: dict[str, Function] = {
        "in_check": in_check,
        "has_mate_threat": has_mate_threat,
        "has_contested_open_file": has_contested_open_file,
    }
    for function in (
        has_connected_rooks,
        has_bishop_pair,
        has_control_of_open_file,
        can_capture_queen,
        has_right_bc_ha_promotion,
    ):
        functions |= _both(function.__name__, function)
    for square in _CAPTURE_SQUARES:
        functions |= _both(
            f"capture_possible_on_{square}", capture_possible_on(moves.SQUARES.index(square))
        )
    return functions


def _tactical() -> dict[str, Function]:
    functions: dict[str, Function] = {}
    for piece in _HEAVIER:
        functions |= _both(f"{piece}_fork", fork(piece))
    for piece in _PIECES:
        functions |= _both(f"has_pinned_{piece}", has_pinned(piece))
    return functions


STRATEGIC = _strategic()
"""The published list of 29; ``_opponent`` sees the board from the other side, so that its d1 is the
mover's d8."""
TACTICAL = _tactical()
"""Forks and pins, which the published code defines and does not use."""
