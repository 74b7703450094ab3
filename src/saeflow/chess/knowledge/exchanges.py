"""What a series of captures on one square wins: values, x-rays, pins and whose move it is, which
counts do not see.

The swap algorithm: both sides capture on the square with their least valuable piece in turn, what
stands behind a piece that has captured joins in, and either side stops when going on would lose. A
piece that is pinned to its king takes no part unless it captures along the pin; pins are those
before the first capture.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int, UInt64

from saeflow.chess.games import attacks
from saeflow.chess.games.boards import Boards, bits
from saeflow.chess.knowledge.views import BLACK, WHITE, View, square_of

VALUES = np.array([1, 3, 3, 5, 9, 100], np.float32)
"""Of pawn, knight, bishop, rook, queen, king, in pawns; a king is never given for anything."""
_DEEPEST = 32
_PAIRS_AT_ONCE = 1 << 14


def gains(view: View, side: int) -> Float32[np.ndarray, "64 n"]:
    """What the first capture on each square wins in the end, in pawns; 0 where there is nothing to
    take, or to win.

    Args:
        view: positions.
        side: whose piece makes the first capture, `WHITE` or `BLACK`.
    """
    counts = view.attack_counts.white if side == WHITE else view.attack_counts.black
    prey = (view.squares >= 6) & (view.squares < 12) if side == WHITE else view.squares < 6
    kings = view.squares == (5 + (BLACK if side == WHITE else WHITE))
    square, position = np.nonzero(prey & ~kings & (counts > 0))
    gained = np.zeros(view.squares.shape, np.float32)
    free = _free(view)
    for start in range(0, len(square), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        here, on = position[part], square[part]
        boards = view.boards.part(here)
        gained[on, here] = _swapped_off(
            boards, on, side, _allowed(free, view, here, on), view.squares[on, here]
        )
    return gained


def _swapped_off(
    boards: Boards,
    squares: Int[np.ndarray, " m"],
    side: int,
    allowed: UInt64[np.ndarray, " m"],
    first: np.ndarray,
) -> Float32[np.ndarray, " m"]:
    """The value of each exchange to the side that begins."""
    occupied, each = boards.occupied, np.arange(len(squares))
    steps = [VALUES[first % 6]]  # what the capture of each step takes
    going = [np.ones(len(squares), bool)]
    while len(steps) < _DEEPEST:
        both = [
            (reach & occupied & allowed) for reach in attacks.attackers(boards, squares, occupied)
        ]
        mine, theirs = both if side == WHITE else both[::-1]
        ranks = np.stack([(boards.pieces[:, side + piece] & mine) != 0 for piece in range(6)])
        piece = ranks.argmax(axis=0)
        # a king takes only what nobody protects any more
        able = going[-1] & ranks.any(axis=0) & ~((piece == 5) & (theirs != 0))
        if not able.any():
            break
        chosen = boards.pieces[each, side + piece] & mine
        occupied = np.where(able, occupied & ~(chosen & (~chosen + np.uint64(1))), occupied)
        going.append(able)
        steps.append(VALUES[piece])
        side = BLACK - side
    value = np.zeros(
        len(squares), np.float32
    )  # of going on, to the side whose turn it is; it may stop
    for taken, able in zip(steps[-2::-1], going[:0:-1], strict=True):
        value = np.where(able, np.maximum(0, taken - value), 0)
    return value


def _free(view: View) -> tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"]]:
    """The pinned pieces of White and of Black."""
    return view.pinned, view.theirs.pinned.byteswap()


def _allowed(
    pinned: tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"]],
    view: View,
    position: Int[np.ndarray, " m"],
    square: Int[np.ndarray, " m"],
) -> UInt64[np.ndarray, " m"]:
    """Pieces that may capture on a square: those not pinned, and those pinned along the line they
    capture on."""
    allowed = np.full(len(square), ~np.uint64(0))
    for held, side in zip(pinned, (WHITE, BLACK), strict=True):
        king = square_of(view.pieces(5, side))
        pair, origin = bits(held[position]).nonzero()
        stuck = ~_ON_LINE[king[position[pair]], origin, square[pair]]
        np.bitwise_and.at(allowed, pair[stuck], ~attacks.BIT[origin[stuck]])
    return allowed


def _on_line() -> np.ndarray:
    """Whether three squares lie on one line of a rook or a bishop."""
    empty = np.zeros(64, np.uint64)
    every, reached = np.arange(64), np.zeros((64, 64, 64), bool)
    for reach in (attacks.bishop, attacks.rook):
        sees = bits(reach(every, empty))
        with_self = sees | np.eye(64, dtype=bool)
        reached |= (
            sees[:, :, None] & with_self[:, None, :] & with_self[None, :, :] & _same_direction()
        )
    return reached


def _same_direction() -> np.ndarray:
    rank, file = np.divmod(np.arange(64), 8)
    up, right = rank[None, :] - rank[:, None], file[None, :] - file[:, None]
    return up[:, :, None] * right[:, None, :] == right[:, :, None] * up[:, None, :]


_ON_LINE = _on_line()
