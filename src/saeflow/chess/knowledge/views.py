"""What concepts read of positions; each part is computed when first asked for, once for all
concepts."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

from saeflow.chess.games import attacks, moves
from saeflow.chess.games.boards import Boards, bits

Bitboards = UInt64[np.ndarray, " n"]
WHITE, BLACK = 0, 6  # where a side's bitboards begin


class View:
    """Positions as concepts read them. White is to move; "mine" is White's, "theirs" is Black's.

    Args:
        boards: the positions.
    """

    def __init__(self, boards: Boards) -> None:
        self.boards = boards

    @property
    def count(self) -> int:
        """Number of positions."""
        return len(self.boards)

    def pieces(self, piece: int, side: int = WHITE) -> Bitboards:
        """Where the pieces of a kind are: 0 pawns, 1 knights, 2 bishops, 3 rooks, 4 queens, 5 the
        king."""
        return self.boards.pieces[:, side + piece]

    @cached_property
    def squares(self) -> UInt8[np.ndarray, "64 n"]:
        """The piece on every square, as its place in `boards.PIECES`."""
        return np.ascontiguousarray(self.boards.squares().T)

    @cached_property
    def occupied(self) -> Bitboards:
        """Squares with any piece."""
        return self.boards.occupied

    @cached_property
    def attack_counts(self) -> attacks.AttackCounts:
        """How many pieces of each side attack each square."""
        return attacks.attack_counts(self.boards)

    @cached_property
    def legal(self) -> Bool[np.ndarray, "n 1880"]:
        """The legal moves."""
        return moves.legal_moves(self.boards)

    @cached_property
    def theirs(self) -> View:
        """The same pieces with the other side to move, which is then White; nothing is taken in
        passing."""
        turned = self.boards.mirrored()
        return View(replace(turned, en_passant=np.full_like(turned.en_passant, -1)))

    @cached_property
    def pinned(self) -> Bitboards:
        """White's pieces that stand alone between their king and a slider of Black on its line."""
        pinned = np.zeros(self.count, np.uint64)
        king, blockers = square_of(self.pieces(5)), self.boards.black
        queens, mine = self.pieces(4, BLACK), self.boards.white
        for reach, piece in ((attacks.bishop, 2), (attacks.rook, 3)):
            snipers = reach(king, blockers) & (self.pieces(piece, BLACK) | queens)
            position, square = bits(snipers).nonzero()
            between = _BETWEEN[king[position], square] & self.occupied[position]
            alone = (np.bitwise_count(between) == 1) & (between & mine[position] == between)
            np.bitwise_or.at(pinned, position[alone], between[alone])
        return pinned

    @cached_property
    def mating(self) -> Bool[np.ndarray, "n 1880"]:
        """The legal moves that mate."""
        mates = np.zeros_like(self.legal)
        position, move = self.legal.nonzero()
        for start in range(0, len(position), MOVES_AT_ONCE):
            here, played = (
                position[start : start + MOVES_AT_ONCE],
                move[start : start + MOVES_AT_ONCE],
            )
            after = moves.play(self.boards.part(here), played)
            checked = np.flatnonzero(moves.in_check(after))
            mated = checked[~moves.legal_moves(after.part(checked)).any(axis=1)]
            mates[here[mated], played[mated]] = True
        return mates


MOVES_AT_ONCE = 1 << 14


def square_of(pieces: Bitboards) -> Int[np.ndarray, " n"]:
    """The lowest square of each bitboard; 0 where it is empty."""
    return bits(pieces).argmax(axis=1)


def _between() -> UInt64[np.ndarray, "64 64"]:
    """The squares strictly between two squares on a line; nothing where they share none."""
    table = np.zeros((64, 64), np.uint64)
    squares, far = np.divmod(np.arange(64 * 64), 64)
    for reach in (attacks.bishop, attacks.rook):
        seen = reach(squares, attacks.BIT[far])
        back = reach(far, attacks.BIT[squares])
        on_line = reach(squares, np.zeros(len(squares), np.uint64)) & attacks.BIT[far] != 0
        table.ravel()[on_line] = (seen & back)[on_line]
    return table


_BETWEEN = _between()
