"""Files of games, plain or packed, of any length: a stream that is cut between games.

A game is its tags and its moves. A new one begins at a line with a tag, ``[Name "…"]``, that
follows something else than a tag and stands in no comment, whatever the tag is called and whatever
blank lines there are.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from saeflow.errors import SaeflowError
from saeflow.seals import refuse_pointer
from saeflow.unpacking import DAMAGE, UNPACKERS, plain, reason

_PIECE = 1 << 20  # bytes looked at in one go
_CHUNK = 64 << 20  # bytes of games in one go, as many games as are wanted of usual length
_LONGEST = 16 << 20  # bytes within which a game begins in any file of games
LONGEST_GAME = 1 << 20  # bytes of a game that is read; those with an engine's word have a tenth
_MARK = b"\xef\xbb\xbf"  # of the order of bytes, where files were joined
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_TAG_BEGINS = rb'\[[ \t]*[A-Za-z0-9][\w+#=:-]*[ \t]*"'
# A line with a tag that follows one that ends in no bracket, as moves do.
_NEXT = re.compile(rb"\n(?<=[^\]\s]\n)\s*+(?=" + _TAG_BEGINS + rb")")
_FIRST = re.compile(rb"^[ \t]*(?=" + _TAG_BEGINS + rb")", re.MULTILINE)
_NO_MOVES = (b"[", b"%", b";")  # how lines of moves do not begin
_TAG_LINES = re.compile(rb"(?:[ \t]*+[\[%;][^\n]*+\n|\s++)*+")
_NAMES = re.compile(rb'^[ \t]*\[[ \t]*([\w+#=:-]+)[ \t]*"', re.MULTILINE)
_EVENT = re.compile(rb'^[ \t]*\[[ \t]*Event[ \t]*"', re.MULTILINE)
_BRACE = re.compile(rb"[{}]")
_MOVE = re.compile(rb"^\s*1\.\s*[a-hNBRQKO]", re.MULTILINE)


class Chunk(NamedTuple):
    """Consecutive games as text.

    Attributes:
        offset: of the first byte in the unpacked file, without marks and carriage returns.
        games: texts, each from its first tag to its end.
        damage: what is wrong with the file, where it cannot be read beyond these games.
    """

    offset: int
    games: list[bytes]
    damage: str | None = None


# What gives a file's bytes piece by piece.
READERS: dict[str, Callable[[Path], Iterator[bytes]]] = {".pgn": plain, **UNPACKERS}


def read_chunks(path: Path, games: int) -> Iterator[Chunk]:
    """Cut a PGN file into chunks of whole games; only one chunk is held in memory, whatever the
    file holds.

    Args:
        path: .pgn, or packed as .zst, .gz, .bz2 or .xz, in small letters or capitals.
        games: per chunk.

    Raises:
        SaeflowError: there is no such file, it is of no known kind, or goes on without games.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise SaeflowError(
            f"{path}: is not one of {', '.join(READERS)}; convert it or name another file"
        )
    if not path.is_file():
        raise SaeflowError(f"{path}: no such file; check the path of the games")
    refuse_pointer(path)
    stream = _Stream(path)
    offset, size, waiting = 0, 0, list[bytes]()
    for segment in _segments(stream):
        for text in _one_event_each(segment):
            waiting.append(text)
            size += len(text)
            if len(waiting) == games or size >= _CHUNK:
                yield Chunk(offset, waiting)
                offset, size, waiting = offset + size, 0, []
    if waiting or stream.damage:
        yield Chunk(offset, waiting, stream.damage)


class _Stream:
    """A file's text as bytes, in pieces of whole lines that end in ``\\n``.

    Attributes:
        damage: what was wrong with the file, once its pieces have come to an end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        held, new, begun = io.BytesIO(), 0, False
        try:
            for piece in READERS[self.path.suffix.lower()](self.path):
                if not begun and piece.startswith(_WIDE):
                    raise SaeflowError(f"{self.path}: is written in UTF-16; save it as UTF-8")
                begun = begun or bool(piece)
                new += held.write(piece)
                if new < _PIECE:
                    continue
                lines, rest = _whole_lines(held.getvalue())
                if len(rest) > _LONGEST:
                    raise _without_games(self.path)
                yield _plain_lines(lines)
                held, new = io.BytesIO(), 0
                held.write(rest)
        except DAMAGE as error:
            self.damage = f"the file is cut or damaged ({reason(error)}): its last games are lost"
            # what follows the last whole game may be anything
            yield _plain_lines(_whole_lines(held.getvalue())[0])
            return
        yield _plain_lines(held.getvalue()) + b"\n"


def _without_games(path: Path) -> SaeflowError:
    return SaeflowError(
        f"{path}: no other game begins ([Event …) within {_LONGEST >> 20} MiB, so that this is no "
        "file of games, or one that was made to fill the memory; name another"
    )


def _whole_lines(text: bytes) -> tuple[bytes, bytes]:
    """The lines that have ended, and what follows; a ``\\r\\n`` is not torn apart."""
    end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
    return text[:end], text[end:]


def _plain_lines(text: bytes) -> bytes:
    """Line ends as ``\\n``, no marks of the order of bytes, and no blanks before line ends."""
    text = text.replace(_MARK, b"")
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b" \n" in text or b"\t\n" in text:
        text = re.sub(rb"[ \t]++\n", b"\n", text)
    return text


def _segments(stream: _Stream) -> Iterator[bytes]:
    """Texts that begin with a tag and end before the next game; a comment that is cut, since it
    quotes a tag, is put together again."""
    held: list[bytes] = []
    for segment in _cut_at_tags(stream):
        brace = _BRACE.search(segment) if held else None
        if held and brace and brace[0] == b"}":
            segment = b"".join([*held, segment])
            held = []
        elif held and not brace and sum(map(len, held)) < LONGEST_GAME:
            held.append(segment)
            continue
        yield from held  # the comment has no end in its own game
        held = [segment] if _comment_is_open(segment) else []
        if not held:
            yield segment
    yield from held


def _cut_at_tags(stream: _Stream) -> Iterator[bytes]:
    """Texts that begin with a tag and end where the next one follows moves, in a comment or not."""
    rest, looked, begun = b"", 0, False
    for piece in stream:
        text, start = rest + piece, 0
        if not begun and (first := _FIRST.search(text)):
            begun, start = True, first.end()
            if _MOVE.search(text, 0, start):
                yield text[:start]
        if begun:
            for match in _NEXT.finditer(text, max(start, looked)):
                line = text.rfind(b"\n", start, match.start()) + 1 or start
                if not text[line : match.start()].lstrip().startswith(_NO_MOVES):
                    yield text[start : match.end()]
                    start = match.end()
        rest = text[start:]
        looked = max(0, rest.rstrip().rfind(b"\n"))  # the next tag may follow the last line here
        if len(rest) > _LONGEST:
            raise _without_games(stream.path)
    if not stream.damage and (begun or _MOVE.search(rest)) and rest.strip():
        yield rest


def _comment_is_open(text: bytes) -> bool:
    """Whether the text of a game ends inside a comment."""
    opened = text.rfind(b"{")
    return opened > text.rfind(b"}") and opened >= tags_end(text)


def tags_end(text: bytes, start: int = 0) -> int:
    """Where the tags of a game end and its moves begin."""
    match = _TAG_LINES.match(text, start)
    return match.end() if match else start


def _one_event_each(text: bytes) -> Iterator[bytes]:
    """A text that begins with a tag, cut where games without moves, or without an end, follow each
    other: before its first tag's name comes again, or a second ``Event``."""
    if len(_EVENT.findall(text)) < 2:
        yield text
        return
    names, start, looked, inside = list[bytes](), 0, tags_end(text), False
    for match in _NAMES.finditer(text):
        here, name = match.start(), match[1]
        if here > looked:
            opened, closed = text.rfind(b"{", looked, here), text.rfind(b"}", looked, here)
            inside = opened > closed if opened != closed else inside
            looked = here
        if inside:
            continue
        if names and (name == names[0] or (name == b"Event" and name in names)):
            yield text[start:here]
            names, start, looked = [], here, tags_end(text, here)
        names.append(name)
    yield text[start:]
