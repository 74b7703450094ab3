"""How many pieces attack each square, for all squares of many positions at once.

An attacker is a piece that could capture on the square if it were its turn and its king did not
matter, as python-chess has it: a pinned piece attacks, and nothing attacks through another piece
(no x-rays, no rear of a battery).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from saeflow.chess.games.boards import EMPTY

PAWN, KNIGHT, BISHOP, ROOK, QUEEN, KING = range(6)
BLACK = 6
"""Added to a piece of White it gives the same piece of Black."""
_AT_ONCE = 2048  # positions whose arrays stay in the processor's cache

Step = tuple[int, int]  # ranks up, files to the right
Board = UInt8[np.ndarray, "8 8 positions"]
_STRAIGHT: tuple[Step, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
_DIAGONAL: tuple[Step, ...] = ((1, 1), (1, -1), (-1, -1), (-1, 1))
_JUMPS: tuple[Step, ...] = ((2, 1), (1, 2), (-1, 2), (-2, 1), (-2, -1), (-1, -2), (1, -2), (2, -1))


class AttackCounts(NamedTuple):
    """How many pieces of each side attack each square."""

    white: UInt8[np.ndarray, "64 positions"]
    black: UInt8[np.ndarray, "64 positions"]


def attack_counts(squares: UInt8[np.ndarray, "64 positions"]) -> AttackCounts:
    """Count the attackers of every square.

    Args:
        squares: the piece on every square as `Boards.squares` has it, squares first, so that every
            step is one operation on contiguous rows.
    """
    counts = AttackCounts(np.zeros_like(squares), np.zeros_like(squares))
    for start in range(0, squares.shape[1], _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        counts.white[:, part], counts.black[:, part] = _counted(
            np.ascontiguousarray(squares[:, part])
        )
    return counts


def _counted(squares: UInt8[np.ndarray, "64 positions"]) -> AttackCounts:
    board = squares.reshape(8, 8, -1)
    white, black = np.zeros_like(board), np.zeros_like(board)
    for step in _STRAIGHT + _DIAGONAL:
        slider = ROOK if step in _STRAIGHT else BISHOP
        seen = _first_seen(board, step)
        for count, side in ((white, 0), (black, BLACK)):
            count += (seen == slider + side) | (seen == QUEEN + side)
    for piece, steps in ((KING, _STRAIGHT + _DIAGONAL), (KNIGHT, _JUMPS)):
        for step in steps:
            here, there = _pairs(step)
            white[here] += board[there] == piece
            black[here] += board[there] == piece + BLACK
    for files in (-1, 1):  # a pawn of White stands below what it attacks
        here, there = _pairs((-1, files))
        white[here] += board[there] == PAWN
        here, there = _pairs((1, files))
        black[here] += board[there] == PAWN + BLACK
    return AttackCounts(white.reshape(64, -1), black.reshape(64, -1))


def _pairs(step: Step) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The squares that have a neighbour a step away, and those neighbours, as slices of ranks and
    files."""
    (ranks, to_ranks), (files, to_files) = map(_shifted, step)
    return (ranks, files), (to_ranks, to_files)


def _shifted(size: int) -> tuple[slice, slice]:
    return slice(max(0, -size), 8 - max(0, size)), slice(max(0, size), 8 + min(0, size))


def _first_seen(board: Board, step: Step) -> Board:
    """The first piece that is met from each square in one direction; `EMPTY` where there is
    none."""
    seen = np.full_like(board, EMPTY)
    for here, there in _from_edge(step):
        beside = board[there]
        seen[here] = seen[there]
        np.copyto(seen[here], beside, where=beside != EMPTY)
    return seen


def _from_edge(step: Step) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Lines of squares and their neighbours in a direction, those next to the edge first."""
    (ranks, files), (to_ranks, to_files) = _pairs(step)
    along, sign = (0, step[0]) if step[0] else (1, step[1])
    for line in range(6, -1, -1) if sign > 0 else range(1, 8):
        here, there = slice(line, line + 1), slice(line + sign, line + sign + 1)
        yield (
            ((here, files), (there, to_files)) if along == 0 else ((ranks, here), (to_ranks, there))
        )
