"""Files that may be packed, as bytes piece by piece, whatever they hold."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

_PIECE = 1 << 20  # bytes looked at in one go
# Bytes of a .zst unpacked in one go: they are 32 MiB at most, however they are packed.
_PACKED = 1 << 10
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What reading a file raises that is cut or damaged, once it has given what it could."""


def plain(path: Path) -> Iterator[bytes]:
    """The bytes of a file that is not packed."""
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


def _xz(path: Path) -> Iterator[bytes]:
    with lzma.open(path, "rb") as file:
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


UNPACKERS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    ".zst": _zstd,
    ".gz": _gzip,
    ".bz2": _bzip,
    ".xz": _xz,
}
"""What gives a file's bytes, by the end of its name; where the file is cut or damaged it raises one
of `DAMAGE` once it has given what it could."""


def reason(error: BaseException) -> str:
    """What one of `DAMAGE` says."""
    return " ".join(str(error).split()) or "it ends too early"
