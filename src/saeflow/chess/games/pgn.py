"""Games in Portable Game Notation: a stream of any length, cut between games, and each game's moves
and what is said of them."""

from __future__ import annotations

import bz2
import gzip
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import chess
import chess.pgn
import zstandard

from saeflow.errors import SaeflowError
from saeflow.seals import refuse_pointer

_PIECE = 1 << 20  # bytes looked at in one go
_PACKED = (
    1 << 10
)  # bytes of a .zst unpacked in one go: they are 32 MiB at most, however they are packed
_CHUNK = 64 << 20  # bytes of games in one go, as many games as are wanted of usual length
_LONGEST = 16 << 20  # bytes within which a game begins in any file of games
LONGEST_GAME = (
    1 << 20
)  # bytes of a game that is read; those with an engine's word on every move have a tenth
_GAME = b"\n[Event "
_CLOCK = re.compile(r"\[%clk\s+(\d+):(\d+):(\d+(?:\.\d+)?)\]")
_EVALUATION = re.compile(r"\[%eval\s+(#?)(-?\d+(?:\.\d+)?)")
_TAG = re.compile(r'^\[([A-Za-z0-9_]+)\s+"(.*)"\]\s*$', re.MULTILINE)
MATE = 100.0  # pawns that a forced mate is worth


class Chunk(NamedTuple):
    """Consecutive games as text.

    Attributes:
        offset: of the first byte in the (unpacked) file.
        games: texts, each from ``[Event`` to its end.
        cut: the file is packed and damaged, or its end is missing: a game after these is lost.
    """

    offset: int
    games: list[bytes]
    cut: bool = False


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _gzip(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        while piece := file.read1(_PIECE):
            yield piece


def _bzip(path: Path) -> Iterator[bytes]:
    with bz2.open(path, "rb") as file:
        while piece := file.read1(_PIECE):
            yield piece


def _zstd(path: Path) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = unpacker.decompressobj()
    with path.open("rb") as file:
        while piece := file.read(_PACKED):
            while piece:
                if frame.eof:  # another follows
                    frame = unpacker.decompressobj()
                yield frame.decompress(piece)
                piece = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError


# What gives a file's bytes piece by piece; where the file is damaged or cut it raises once it has
# given what it could.
READERS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    ".pgn": _plain,
    ".zst": _zstd,
    ".gz": _gzip,
    ".bz2": _bzip,
}


def read_chunks(path: Path, games: int) -> Iterator[Chunk]:
    """Cut a PGN file into chunks of whole games; only one chunk is held in memory, whatever the
    file holds.

    Args:
        path: .pgn, or packed as .zst, .gz or .bz2.
        games: per chunk.

    Raises:
        SaeflowError: there is no such file, it is of no known kind, or goes on without games.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise SaeflowError(
            f"{path}: is not one of {', '.join(READERS)}; convert it or name another file"
        )
    if not path.is_file():
        raise SaeflowError(f"{path}: no such file; check the path of the games")
    refuse_pointer(path)
    offset, size, waiting = 0, 0, list[bytes]()
    for text in _texts(path):
        if text is not None:
            waiting.append(text)
            size += len(text)
        if len(waiting) == games or size >= _CHUNK or text is None:
            yield Chunk(offset, waiting, cut=text is None)
            offset, size, waiting = offset + size, 0, []
    if waiting:
        yield Chunk(offset, waiting)


def _texts(path: Path) -> Iterator[bytes | None]:
    """The texts of all games; None in place of the last one where the file is cut before its
    end."""
    rest = b"\n"
    for piece in _pieces(path):
        if piece is None:
            yield None
            return
        before, *games = (rest + piece.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"")).split(
            _GAME
        )
        yield from (_GAME[1:] + text + b"\n" for text in games[:-1])
        rest = _GAME + games[-1] if games else before
        if len(rest) > _LONGEST:
            raise SaeflowError(
                f"{path}: no other game begins ([Event …) within {_LONGEST >> 20} MiB, so that "
                "this is no file of games, or one that was made to fill the memory; name another"
            )
    if rest.startswith(_GAME):
        yield rest[1:] + b"\n"


def _pieces(path: Path) -> Iterator[bytes | None]:
    """The bytes of a file, a mebibyte or more at a time; None at the end where it is cut."""
    held = bytearray()
    try:
        for piece in READERS[path.suffix](path):
            held += piece
            if len(held) >= _PIECE:
                yield bytes(held)
                held.clear()
    except (EOFError, OSError, zstandard.ZstdError):
        yield bytes(held)
        yield None
        return
    yield bytes(held)


class GameText(NamedTuple):
    """One game that could be read.

    Attributes:
        headers: its tags.
        turns: one per half move.
        result: the last token of the text, or None where the text has no end.
        fault: what is wrong with it, or None.
    """

    headers: dict[str, str]
    turns: list[Turn]
    result: str | None
    fault: str | None


class Turn(NamedTuple):
    """A half move and the position before it, as python-chess holds it: bitboards, not mirrored.

    Attributes:
        kinds: bitboards of pawns, knights, bishops, rooks, queens, kings of both colours.
        white, black: squares with White's and Black's pieces.
        castling: rooks that may still castle.
        en_passant: the square behind a pawn that can really be taken in passing, or -1.
        is_black: who moves.
        move: in UCI.
        clock: seconds that the player has left after the move, or None.
        evaluation: in pawns for White after the move, ±`MATE` where a mate is forced, or None.
    """

    kinds: tuple[int, int, int, int, int, int]
    white: int
    black: int
    castling: int
    en_passant: int
    is_black: bool
    move: str
    clock: float | None
    evaluation: float | None


def read_headers(text: bytes) -> dict[str, str]:
    """The tags of a game, without reading its moves."""
    section = text.partition(b"\n\n")[0].decode("utf-8", "replace")
    return dict(_TAG.findall(section))


def read_game(text: bytes) -> GameText:
    """Read one game's moves; whatever is wrong with it is said, never raised."""
    try:
        read = chess.pgn.read_game(io.StringIO(text.decode("utf-8", "replace")), Visitor=_Recorder)
    except (ValueError, IndexError, KeyError, AssertionError, RecursionError) as error:
        return GameText(read_headers(text), [], None, f"cannot be read ({type(error).__name__})")
    return read or GameText({}, [], None, "holds nothing")


class _Recorder(chess.pgn.BaseVisitor[GameText]):
    """Takes down the main line while python-chess reads it."""

    def begin_game(self) -> None:
        self.headers: dict[str, str] = {}
        self.turns: list[Turn] = []
        self.ending: str | None = None
        self.fault: str | None = None

    def visit_header(self, tagname: str, tagvalue: str) -> None:
        self.headers[tagname] = tagvalue

    def begin_variation(self) -> chess.pgn.SkipType:
        return chess.pgn.SKIP

    def visit_move(self, board: chess.Board, move: chess.Move) -> None:
        passing = (
            board.ep_square if board.ep_square is not None and board.has_legal_en_passant() else -1
        )
        kinds = (board.pawns, board.knights, board.bishops, board.rooks, board.queens, board.kings)
        white, black = board.occupied_co[chess.WHITE], board.occupied_co[chess.BLACK]
        castling, is_black = board.castling_rights, not board.turn
        self.turns.append(
            Turn(kinds, white, black, castling, passing, is_black, move.uci(), None, None)
        )

    def visit_comment(self, comment: str) -> None:
        if self.turns:
            self.turns[-1] = self.turns[-1]._replace(
                clock=_clock(comment), evaluation=_evaluation(comment)
            )

    def visit_result(self, result: str) -> None:
        self.ending = result

    def handle_error(self, error: Exception) -> None:
        self.fault = self.fault or str(error)

    def result(self) -> GameText:
        fault = self.fault or (None if self.ending else "ends without a result")
        return GameText(self.headers, self.turns, self.ending, fault)


def _clock(comment: str) -> float | None:
    match = _CLOCK.search(comment)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _evaluation(comment: str) -> float | None:
    match = _EVALUATION.search(comment)
    if not match:
        return None
    return MATE * (-1 if match[2].startswith("-") else 1) if match[1] else float(match[2])
