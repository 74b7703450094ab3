"""Checksums inside files: one number in a file's own metadata vouches for every byte of it.

A format that takes text as metadata (safetensors, Parquet, HDF5) is written with `BLANK` among it.
`seal` then puts the CRC-32 of the whole file in the place of the zeros, and `check` computes it
again. A file without a seal, of another library or another time, is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from isal.isal_zlib import crc32

from saeflow import provenance
from saeflow.errors import DamagedError, SaeflowError

KEY = "saeflow_seal"
"""What the seal is called among a file's metadata. In HDF5 it must be the first attribute."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_MARK, _DIGITS = "saeflow-crc32:", 8
BLANK = _MARK + "0" * _DIGITS
_OTHERS = (b"PAR1", b"\x89HDF")  # how files of other formats begin
_HEADER = 1 << 22  # bytes that are searched for the seal
_PIECE = 1 << 24


def stamp() -> dict[str, str]:
    """Metadata of a file that will be sealed: a blank seal, and where the file comes from."""
    return {KEY: BLANK, "provenance": json.dumps(provenance.provenance(), sort_keys=True)}


def seal(path: Path) -> None:
    """Write the checksum into a file whose metadata hold `BLANK`."""
    with open(path, "r+b") as file:
        _order_metadata(file)
        place = _place(file)
        if place is None:
            raise ValueError(f"{path}: holds no blank seal")
        checksum = _checksum(file, place)
        file.seek(place)
        file.write(checksum)


def _order_metadata(file: BinaryIO) -> None:
    """Sort the metadata of a safetensors file, whose library writes them in any order: equal files
    are equal bytes."""
    opening = file.read(9)
    if opening[:4] in _OTHERS or opening[8:] != b"{":
        return
    length = int.from_bytes(opening[:8], "little")
    file.seek(8)
    header = json.loads(file.read(length))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > length:
        raise ValueError(f"a header of {length} bytes became one of {len(text)}")
    file.seek(8)
    file.write(text.ljust(length))


def refuse_pointer(path: Path) -> None:
    """See that a file is the file itself: a clone without git-lfs leaves a few lines in the place
    of large ones.

    Raises:
        SaeflowError: it is a pointer, or a folder.
    """
    if path.is_dir():
        raise SaeflowError(f"{path}: is a folder, and a file is needed; correct its path")
    with open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise SaeflowError(
                f"{path}: is a Git LFS pointer and not the file itself; run 'git lfs pull' where "
                "it was cloned"
            )


def check(path: Path) -> None:
    """Compare a file with its seal and, in a job, with the settings of the study.

    Raises:
        DamagedError: it has other bytes than were written.
        SaeflowError: it is a pointer of git-lfs, or was made with other settings than the study
            has.
    """
    refuse_pointer(path)
    with open(path, "rb") as file:
        if (place := _place(file)) is not None:
            file.seek(place)
            if file.read(_DIGITS) != _checksum(file, place):
                raise DamagedError(f"{path}: is damaged (its checksum differs)", [path])
    provenance.refuse_other_settings(path)


def has_seal(path: Path) -> bool:
    """Whether a seal vouches for a file."""
    with open(path, "rb") as file:
        return _place(file) is not None


def _place(file: BinaryIO) -> int | None:
    """Where the digits stand: of Parquet in the end of the file, of others in its beginning."""
    size, first = file.seek(0, 2), 0
    file.seek(0)
    if file.read(4) == b"PAR1":
        first = max(0, size - _HEADER)
    file.seek(first)
    mark = file.read(_HEADER).rfind(_MARK.encode())
    return None if mark < 0 or first + mark + len(BLANK) > size else first + mark + len(_MARK)


def _checksum(file: BinaryIO, place: int) -> bytes:
    """Of everything, with zeros for digits."""
    crc = at = 0
    file.seek(0)
    while piece := file.read(_PIECE):
        start, stop = max(place - at, 0), min(place + _DIGITS - at, len(piece))
        if start < stop:
            piece = piece[:start] + b"0" * (stop - start) + piece[stop:]
        crc, at = crc32(piece, crc), at + len(piece)
    return f"{crc:0{_DIGITS}x}".encode()


def sealed_json(value: Mapping[str, Any], within: str | None = None) -> dict[str, Any]:
    """A JSON object with the checksum of all else in it.

    Args:
        value: the object.
        within: name of the object in it that takes the seal, where a format has no room for one
            beside the rest.
    """
    if within is None:
        return {**value, KEY: _of_object(value)}
    return {**value, within: {**value[within], KEY: _of_object(_without(value, within))}}


def unsealed_json(path: Path, value: Any, within: str | None = None) -> Any:
    """A JSON value without its seal.

    Raises:
        SaeflowError: it is not what was sealed; a person may have edited it, so it is left where it
            is.
    """
    holder = value.get(within) if within and isinstance(value, dict) else value
    if not isinstance(holder, dict) or KEY not in holder:
        return value
    bare = _without(value, within)
    if holder[KEY] != _of_object(bare):
        raise SaeflowError(
            f"{path}: is damaged or was edited (its checksum differs); remove its '{KEY}' to have "
            "it taken as it is, or get it anew from where it came"
        )
    return bare


def _without(value: Mapping[str, Any], within: str | None) -> dict[str, Any]:
    if within is None:
        return {name: content for name, content in value.items() if name != KEY}
    return {**value, within: _without(value[within], None)}


def _of_object(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return f"{crc32(text.encode()):0{_DIGITS}x}"
