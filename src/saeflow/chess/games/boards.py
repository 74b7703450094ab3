"""Boards as bitboards, many at once, seen by the player to move.

One convention everywhere: the player to move is White (a position with Black to move is mirrored:
ranks flipped, colours and rights exchanged), and squares are counted a1 = 0, b1 = 1, … h8 = 63, so
that a square is the bit ``1 << square``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int8, UInt8, UInt64

from saeflow.errors import SaeflowError

PIECES = "PNBRQKpnbrqk"  # in the order of `Boards.pieces`
CASTLING = "KQkq"
START = "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1"
EMPTY = 12  # the code of a square without a piece
_FIELDS = 6  # of a FEN
_A1, _E1, _H1, _A8, _E8, _H8 = (np.uint64(1 << square) for square in (0, 4, 7, 56, 60, 63))


@dataclass(frozen=True, slots=True)
class Boards:
    """Positions in which White is to move.

    Attributes:
        pieces: bitboards of White's pawns, knights, bishops, rooks, queens and king, then of
            Black's.
        castling: whether White may still castle king side, queen side, and Black.
        en_passant: the square behind a pawn that has just made a double step, or -1.
    """

    pieces: UInt64[np.ndarray, "n 12"]
    castling: Bool[np.ndarray, "n 4"]
    en_passant: Int8[np.ndarray, " n"]

    @property
    def white(self) -> UInt64[np.ndarray, " n"]:
        """Squares with a piece of the player to move."""
        return np.bitwise_or.reduce(self.pieces[:, :6], axis=1)

    @property
    def black(self) -> UInt64[np.ndarray, " n"]:
        """Squares with a piece of the opponent."""
        return np.bitwise_or.reduce(self.pieces[:, 6:], axis=1)

    @property
    def occupied(self) -> UInt64[np.ndarray, " n"]:
        """Squares with any piece."""
        return np.bitwise_or.reduce(self.pieces, axis=1)

    def __len__(self) -> int:
        return len(self.en_passant)

    def part(self, which: slice | Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> Boards:
        """Some of the positions."""
        return Boards(self.pieces[which], self.castling[which], self.en_passant[which])

    def squares(self) -> UInt8[np.ndarray, "n 64"]:
        """The piece on every square as its place in `PIECES`, `EMPTY` where there is none."""
        codes = np.full((len(self), 64), EMPTY, np.uint8)
        for code in range(len(PIECES)):
            codes[bits(self.pieces[:, code])] = code
        return codes

    def mirrored(self) -> Boards:
        """The same positions seen by the other player: ranks flipped, colours, rights and squares
        exchanged."""
        flipped = self.pieces.byteswap()
        square = np.where(self.en_passant < 0, np.int8(-1), self.en_passant ^ np.int8(56))
        return Boards(np.roll(flipped, 6, axis=1), self.castling[:, [2, 3, 0, 1]], square)

    def where(self, which: Bool[np.ndarray, " n"], other: Boards) -> Boards:
        """These positions, but those of ``other`` where ``which`` holds."""
        return Boards(
            np.where(which[:, None], other.pieces, self.pieces),
            np.where(which[:, None], other.castling, self.castling),
            np.where(which, other.en_passant, self.en_passant),
        )


def join(parts: Sequence[Boards]) -> Boards:
    """All positions of the parts, in their order."""
    return Boards(
        np.concatenate([part.pieces for part in parts]),
        np.concatenate([part.castling for part in parts]),
        np.concatenate([part.en_passant for part in parts]),
    )


def bits(bitboards: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, "n 64"]:
    """The squares of bitboards, one column per square."""
    as_bytes = np.ascontiguousarray(bitboards).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(as_bytes.reshape(-1, 8), axis=1, bitorder="little").view(bool)


def from_bits(squares: Bool[np.ndarray, "n 64"]) -> UInt64[np.ndarray, " n"]:
    """Bitboards from one column per square."""
    return (
        np.packbits(squares, axis=1, bitorder="little")
        .view("<u8")
        .astype(np.uint64, copy=False)
        .reshape(-1)
    )


def read_fens(fens: Sequence[str]) -> Boards:
    """Read positions; where Black is to move they are mirrored.

    A right to castle without king and rook in their places is no right, as python-chess has it.

    Args:
        fens: positions of standard chess in Forsyth–Edwards notation, with all six fields.

    Raises:
        SaeflowError: one is no such text.
    """
    if not len(fens):
        return Boards(np.empty((0, 12), np.uint64), np.empty((0, 4), bool), np.empty(0, np.int8))
    text = np.frombuffer(" ".join(fens).encode("ascii", "replace") + b" ", np.uint8)
    starts = np.cumsum([0, *(len(fen) + 1 for fen in fens)])
    spaces = np.flatnonzero(text == ord(" "))
    if (
        len(spaces) != _FIELDS * len(fens)
        or (spaces[_FIELDS - 1 :: _FIELDS] + 1 != starts[1:]).any()
    ):
        wrong = next((fen for fen in fens if len(fen.split(" ")) != _FIELDS), fens[0])
        raise SaeflowError(f"chess: '{wrong}' is no FEN of six fields; correct it")
    ends = spaces.reshape(-1, _FIELDS)
    codes = _placement(text, starts[:-1], ends[:, 0], fens)
    # a1 first: the text begins with rank 8
    pieces = np.stack(
        [
            from_bits((codes == code).reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64))
            for code in range(12)
        ],
        1,
    )
    castling = np.zeros((len(fens), 4), bool)
    for right, letter in enumerate(CASTLING):
        counts = np.cumsum(np.concatenate([[0], text == ord(letter)]))
        castling[:, right] = counts[ends[:, 2]] > counts[ends[:, 1]]
    file, rank = (
        text[ends[:, 2] + 1].astype(np.int16) - ord("a"),
        text[ends[:, 2] + 2].astype(np.int16) - ord("1"),
    )
    none = text[ends[:, 2] + 1] == ord("-")
    if (~none & ((file < 0) | (file > 7) | (rank < 0) | (rank > 7))).any():
        wrong = fens[
            int(np.flatnonzero(~none & ((file < 0) | (file > 7) | (rank < 0) | (rank > 7)))[0])
        ]
        raise SaeflowError(
            f"chess: '{wrong}' names no square after which a pawn is taken in passing; correct it"
        )
    en_passant = np.where(none, -1, rank * 8 + file).astype(np.int8)
    boards = Boards(pieces, with_king_and_rook(pieces, castling), en_passant)
    turned = text[ends[:, 0] + 1] == ord("b")
    return boards.where(turned, boards.mirrored()) if turned.any() else boards


def _placement(
    text: UInt8[np.ndarray, " bytes"],
    starts: Int[np.ndarray, " n"],
    ends: Int[np.ndarray, " n"],
    fens: Sequence[str],
) -> UInt8[np.ndarray, "n 64"]:
    """The piece on every square in the order of the text, a8 first."""
    widths = np.zeros(256, np.int64)
    code_of = np.full(256, EMPTY, np.uint8)
    for code, letter in enumerate(PIECES):
        widths[ord(letter)], code_of[ord(letter)] = 1, code
    widths[ord("1") : ord("9")] = range(1, 9)
    legible = (widths > 0) | (np.arange(256) == ord("/"))
    lengths = ends - starts
    inside = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    placed = text[inside]
    row = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(widths[placed]) - widths[placed]
    square = before - before[np.cumsum(lengths) - lengths][row]
    totals = np.bincount(row, widths[placed], len(starts))
    slashes = np.bincount(row, placed == ord("/"), len(starts))
    wrong = (totals != 64) | (slashes != 7) | (np.bincount(row, ~legible[placed], len(starts)) > 0)
    at_slash = placed == ord("/")
    wrong |= np.bincount(row, at_slash & (square % 8 != 0), len(starts)) > 0
    if wrong.any():
        raise SaeflowError(
            f"chess: '{fens[int(np.flatnonzero(wrong)[0])]}' does not place 8 ranks of 8 squares"
        )
    codes = np.full((len(starts), 64), EMPTY, np.uint8)
    piece = code_of[placed] != EMPTY
    codes[row[piece], square[piece]] = code_of[placed[piece]]
    return codes


def with_king_and_rook(
    pieces: UInt64[np.ndarray, "n 12"], castling: Bool[np.ndarray, "n 4"]
) -> Bool[np.ndarray, "n 4"]:
    rook, king, black_rook, black_king = pieces[:, 3], pieces[:, 5], pieces[:, 9], pieces[:, 11]
    """The rights to castle whose king and rook stand in their places."""
    places = [(king, _E1, rook, _H1), (king, _E1, rook, _A1), (black_king, _E8, black_rook, _H8)]
    places.append((black_king, _E8, black_rook, _A8))
    stand = [
        ((kings & home) != 0) & ((rooks & corner) != 0) for kings, home, rooks, corner in places
    ]
    return castling & np.stack(stand, axis=1)


def write_fens(boards: Boards) -> list[str]:
    """Positions as text, White to move; the counters, which a board does not know, are ``0 1``."""
    codes = boards.squares().reshape(-1, 8, 8)[:, ::-1].astype(np.uint32)
    ranks = (codes << (4 * np.arange(8, dtype=np.uint32))).sum(
        axis=2, dtype=np.uint32
    )  # few different ones occur
    different, which = np.unique(ranks, return_inverse=True)
    words = np.array([_rank_text(int(rank)) for rank in different], object)[which.reshape(-1, 8)]
    rights = np.array(
        ["".join(c for i, c in enumerate(CASTLING) if s >> i & 1) or "-" for s in range(16)], object
    )
    right = rights[(boards.castling << np.arange(4)).sum(axis=1)]
    names = np.array(
        [*(f"{'abcdefgh'[square % 8]}{square // 8 + 1}" for square in range(64)), "-"], object
    )
    return [
        f"{'/'.join(rank)} w {can} {behind} 0 1"
        for rank, can, behind in zip(words, right, names[boards.en_passant], strict=True)
    ]


def _rank_text(rank: int) -> str:
    letters = "".join((PIECES + " ")[rank >> 4 * file & 15] for file in range(8))
    for count in range(8, 0, -1):
        letters = letters.replace(" " * count, str(count))
    return letters
