"""What pieces attack, for any number of squares and boards at once.

Sliding pieces by hyperbola quintessence: on a line without the slider's own bit ``s``, ``o - s``
changes the bits from there up to the first piece, and the same of the mirrored board those down.
Swapping bytes mirrors files and diagonals; ranks lie within one byte and have a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8, UInt64

from saeflow.chess.games.boards import Boards, bits

Squares = Int[np.ndarray, "..."]
Bitboards = UInt64[np.ndarray, "..."]


def _leaps(steps: Sequence[tuple[int, int]]) -> UInt64[np.ndarray, " 64"]:
    """Where a piece gets from every square by one of the steps (file, rank)."""
    table = np.zeros(64, np.uint64)
    for square in range(64):
        for file, rank in steps:
            to_file, to_rank = square % 8 + file, square // 8 + rank
            if 0 <= to_file < 8 and 0 <= to_rank < 8:
                table[square] |= np.uint64(1 << (8 * to_rank + to_file))
    return table


_AROUND = [(file, rank) for file in (-1, 0, 1) for rank in (-1, 0, 1) if file or rank]
_JUMPS = [
    (file, rank) for file in (-2, -1, 1, 2) for rank in (-2, -1, 1, 2) if abs(file) != abs(rank)
]
_BOARDS_AT_ONCE = 2048  # whose attacks stay in the processor's cache
_DIGITS = 7  # of a count of pieces, of which a board has 64 at most
BIT = np.uint64(1) << np.arange(64, dtype=np.uint64)
KNIGHT, KING = _leaps(_JUMPS), _leaps(_AROUND)
WHITE_PAWN, BLACK_PAWN = _leaps([(-1, 1), (1, 1)]), _leaps([(-1, -1), (1, -1)])

# Lines through each square, without the square.
_STEPS = [step for step in range(-7, 8) if step]
_FILE = _leaps([(0, step) for step in _STEPS])
_DIAGONAL = _leaps([(step, step) for step in _STEPS])
_ANTIDIAGONAL = _leaps([(step, -step) for step in _STEPS])
_SWAPPED = BIT.byteswap()


def _rank_table() -> UInt64[np.ndarray, "8 256"]:
    """What a slider on a file attacks along its rank, by the rank's occupancy."""
    table = np.zeros((8, 256), np.uint64)
    for file in range(8):
        for occupied in range(256):
            for squares in (range(file + 1, 8), range(file - 1, -1, -1)):
                for square in squares:
                    table[file, occupied] |= np.uint64(1 << square)
                    if occupied >> square & 1:
                        break
    return table


_RANK = _rank_table()


def knight(squares: Squares) -> Bitboards:
    """What a knight on each square attacks."""
    return KNIGHT[squares]


def king(squares: Squares) -> Bitboards:
    """What a king on each square attacks."""
    return KING[squares]


def pawn(squares: Squares) -> Bitboards:
    """What a pawn of the player to move attacks from each square."""
    return WHITE_PAWN[squares]


def bishop(squares: Squares, occupied: Bitboards) -> Bitboards:
    """What a bishop on each square attacks, up to and with the first piece on its way."""
    return _line(squares, occupied, _DIAGONAL) | _line(squares, occupied, _ANTIDIAGONAL)


def rook(squares: Squares, occupied: Bitboards) -> Bitboards:
    """What a rook on each square attacks, up to and with the first piece on its way."""
    shift = (squares & 56).astype(np.uint64)
    along = (occupied >> shift & np.uint64(255)).astype(np.intp)
    return _line(squares, occupied, _FILE) | (_RANK[squares & 7, along] << shift)


def queen(squares: Squares, occupied: Bitboards) -> Bitboards:
    """What a queen on each square attacks."""
    return bishop(squares, occupied) | rook(squares, occupied)


def _line(squares: Squares, occupied: Bitboards, lines: UInt64[np.ndarray, " 64"]) -> Bitboards:
    mask = lines[squares]
    on_line = occupied & mask
    up = on_line - BIT[squares]
    down = (on_line.byteswap() - _SWAPPED[squares]).byteswap()
    return (up ^ down) & mask


def attackers(
    boards: Boards, squares: Squares, occupied: Bitboards | None = None
) -> tuple[Bitboards, Bitboards]:
    """The pieces that attack a square of each board: White's and Black's.

    Neither pins nor whose move it is are considered, and nothing attacks through another piece (no
    x-rays), as ``chess.Board.attackers`` has it.

    Args:
        boards: ``[n]``.
        squares: one per board.
        occupied: what stops sliders; by default every piece of the board.
    """
    occupied = boards.occupied if occupied is None else occupied
    return _attacking(boards, squares, occupied, 0), _attacking(boards, squares, occupied, 6)


def attacked(boards: Boards, squares: Squares, by: int) -> Shaped[np.ndarray, " n"]:
    """Whether a square of each board is attacked: by White (``by`` 0) or by Black (``by`` 6)."""
    return _attacking(boards, squares, boards.occupied, by) != 0


def _attacking(boards: Boards, squares: Squares, occupied: Bitboards, by: int) -> Bitboards:
    """The pieces of one side, whose bitboards begin at column ``by``, that attack a square."""
    pawns, knights, bishops, rooks, queens, kings = boards.pieces[:, by : by + 6].T
    # what a pawn of the other side would attack from the square is where this side's pawns attack
    # it from
    reach = (BLACK_PAWN if by == 0 else WHITE_PAWN)[squares] & pawns
    reach |= KNIGHT[squares] & knights
    reach |= KING[squares] & kings
    reach |= bishop(squares, occupied) & (bishops | queens)
    reach |= rook(squares, occupied) & (rooks | queens)
    return reach


class AttackCounts(NamedTuple):
    """How many pieces of each side attack each square.

    A pinned piece attacks, and nothing attacks through another piece, as in `attackers`.
    """

    white: UInt8[np.ndarray, "64 n"]
    black: UInt8[np.ndarray, "64 n"]


def attack_counts(boards: Boards) -> AttackCounts:
    """Count the attackers of every square, by adding up what each piece attacks.

    Bitboards are added as binary digits, so that 64 squares are counted by one operation.
    """
    counts = np.zeros((2, 64, len(boards)), np.uint8)
    for start in range(0, len(boards), _BOARDS_AT_ONCE):
        part = boards.part(slice(start, start + _BOARDS_AT_ONCE))
        for side, count in enumerate(counts):
            board, reach = _attacks_of(part, 6 * side)
            first = np.searchsorted(board, np.arange(len(part)))
            place = np.arange(len(board)) - first[board]  # of the piece among those of its side
            digits = np.zeros((_DIGITS, len(part)), np.uint64)
            for nth in range(int(place.max(initial=-1)) + 1):
                carry = np.zeros(len(part), np.uint64)
                carry[board[place == nth]] = reach[place == nth]
                for digit in digits:
                    digit[:], carry = digit ^ carry, digit & carry
            for power, digit in enumerate(digits):
                if digit.any():
                    count[:, start : start + len(part)] += (bits(digit).view(np.uint8) << power).T
    return AttackCounts(*counts)


def _attacks_of(boards: Boards, side: int) -> tuple[Squares, Bitboards]:
    """The board of every piece of one side, in their order, and what that piece attacks."""
    pawns = WHITE_PAWN if side == 0 else BLACK_PAWN
    occupied, board, reach = boards.occupied, list[Squares](), list[Bitboards]()
    leaps, slides = {0: pawns, 1: KNIGHT, 5: KING}, {2: bishop, 3: rook, 4: queen}
    for piece in range(6):
        flat = np.flatnonzero(bits(boards.pieces[:, side + piece]))
        here, square = flat >> 6, flat & 63
        board.append(here)
        reach.append(
            leaps[piece][square] if piece in leaps else slides[piece](square, occupied[here])
        )
    together = np.concatenate(board)
    order = together.argsort(kind="stable")
    return together[order], np.concatenate(reach)[order]
