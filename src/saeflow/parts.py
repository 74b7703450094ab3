"""Finished parts of what a job makes, kept for the next time that it runs.

One job makes the completions of all methods of a goal. Where a method is added, or the job was
killed, those that are finished are taken from where they were kept: everything that they were made
from and with is as it was, the code included, so that making them again would give the same bits.
What is kept is a table as it is in memory. The files of the study are written anew each time, and
tell the settings of the job that wrote them.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel

from saeflow import provenance, seals
from saeflow.artifacts import CHECKSUMS, sealed, sha256
from saeflow.errors import DamagedError
from saeflow.tables import Schema, read_table

SOURCE = Path(__file__).parent
ROOMS = ("activations", "corpora", "decoding", "judging", "models", "saes", "statistics")
"""Whose code counts as what a part was made with, beside that which lies in no room."""
_IDENTITY = "saeflow_part"


class Parts:
    """The parts of one job.

    Args:
        folder: in which those of a study's item are kept; None keeps nothing.
        kind: what they are; they lie in a folder of this name, one file each.
        code: the files and folders of saeflow that make a part, beside those of `ROOMS`.
        made_with: what all parts are made with; see `digest`.
    """

    def __init__(
        self, folder: Path | None, kind: str, code: Iterable[str], *made_with: Any
    ) -> None:
        self._folder = folder / kind if folder else None
        self._made_with = digest(code_digest(*code), _machine(), *made_with)

    def tables(
        self,
        made_from: Mapping[str, Iterable[Any]],
        schema: Schema,
        make: Callable[[list[int]], Iterable[pl.DataFrame]],
    ) -> list[pl.DataFrame]:
        """All parts, those that are not kept made together.

        Args:
            made_from: by the name of a part, what it is made from beside what all are made with.
            schema: columns of a part and their types.
            make: makes the parts at some places among these. Each is kept as it comes, so what
                makes one after the other loses no more than the one that it was at.
        """
        identities = {name: digest(self._made_with, *own) for name, own in made_from.items()}
        parts = [self._read(name, schema, identity) for name, identity in identities.items()]
        missing = [place for place, part in enumerate(parts) if part is None]
        names = list(identities)
        for place, made in zip(missing, make(missing) if missing else [], strict=True):
            table = made.select(pl.col(name).cast(kind) for name, kind in schema.items())
            self._keep(names[place], table, identities[names[place]])
            parts[place] = table
        if len(missing) < len(parts):
            kept = [name for place, name in enumerate(names) if place not in missing]
            print(f"kept from an earlier run: {', '.join(kept)}", file=sys.stderr, flush=True)
        return [part for part in parts if part is not None]

    def table(
        self, name: str, schema: Schema, made_from: Iterable[Any], make: Callable[[], pl.DataFrame]
    ) -> pl.DataFrame:
        """One part, made where it is not kept; arguments as for `tables`."""
        return self.tables({name: made_from}, schema, lambda _: [make()])[0]

    def _read(self, name: str, schema: Schema, identity: str) -> pl.DataFrame | None:
        path = self._folder / f"{name}.parquet" if self._folder else None
        if path is None or not path.is_file():
            return None
        try:
            table = read_table(path, schema)
        except DamagedError:  # to be made anew is the remedy
            return None
        return table if pl.read_parquet_metadata(path).get(_IDENTITY) == identity else None

    def _keep(self, name: str, table: pl.DataFrame, identity: str) -> None:
        if self._folder:
            metadata = {seals.KEY: seals.BLANK, _IDENTITY: identity}
            with sealed(self._folder / f"{name}.parquet") as temporary:
                table.write_parquet(temporary, metadata=metadata)


def digest(*values: Any) -> str:
    """The SHA-256 of values.

    Args:
        values: texts, numbers, None; sections of the config; tables; tensors and arrays on the CPU;
            paths, which stand for what the file or folder holds; lists and dictionaries of these.
    """
    total = hashlib.sha256()
    for value in values:
        content = _bytes(value)
        total.update(b"%d:%b" % (len(content), content))
    return total.hexdigest()


def _bytes(value: Any) -> bytes:
    match value:
        case None | str() | bool() | int() | float():
            return f"{type(value).__name__} {value!r}".encode()
        case Path():
            return f"path {_content(value)}".encode()
        case BaseModel():
            return f"section {value.model_dump_json()}".encode()
        case dict():
            return f"dict {digest(*value.items())}".encode()
        case list() | tuple():
            return f"list {digest(*value)}".encode()
        case pl.DataFrame():
            stream = io.BytesIO()
            # texts one behind the other: newer layouts depend on where a table came from
            value.rechunk().write_ipc(stream, compat_level=pl.CompatLevel.oldest())
            return stream.getvalue()
    array = np.ascontiguousarray(value)
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()


def _content(path: Path) -> str:
    """Of a file its SHA-256; of a folder those that it states of its files, or of every file."""
    if path.is_file():
        return sha256(path)
    if (path / CHECKSUMS).is_file():
        return sha256(path / CHECKSUMS)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest(*((str(file.relative_to(path)), sha256(file)) for file in files))


@cache
def code_digest(*also: str) -> str:
    """The SHA-256 of the code that a part is made by: that of `ROOMS`, that in no room, and
    `also`."""
    files = [*SOURCE.glob("*.py")]
    for place in (*ROOMS, *also):
        named = SOURCE / place
        files += named.rglob("*.py") if named.is_dir() else [named]
    return digest(*sorted(files))


def _machine() -> dict[str, Any]:
    """The libraries and the kind of machine and device that a part is made on."""
    made_on = provenance.provenance()
    return {key: made_on[key] for key in ("python", "machine", "device", "packages")}
