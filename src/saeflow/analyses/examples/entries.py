"""Sparse latent activations on disk: token row, latent, value; a shard for as many entries as fit
the memory.

``rows.parquet`` tells the token, block and position of every row; its row groups belong to the
shards one by one, so that the entries of a shard are led back to their text without a look at any
other. Within a shard entries are sorted by latent and then by row, in small row groups with
statistics, so that one latent is read without the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int32, Int64

from saeflow import seals
from saeflow.columns import column
from saeflow.errors import DamagedError
from saeflow.seals import stamp

SHARD_ENTRIES = 1 << 22
_GROUP_ENTRIES = 1 << 16
_ENTRY = pa.schema(
    [
        pa.field(n, t, nullable=False)
        for n, t in (("row", pa.int64()), ("latent", pa.int32()), ("value", pa.float32()))
    ]
)
_ROW = pa.schema(
    [pa.field(name, pa.int32(), nullable=False) for name in ("token", "block", "position")]
)


class Rows(NamedTuple):
    """What leads rows of the cache back to their text."""

    tokens: Int32[np.ndarray, " rows"]
    blocks: Int32[np.ndarray, " rows"]
    positions: Int32[np.ndarray, " rows"]


class Firings(NamedTuple):
    """Latents that fire on some consecutive rows of the cache, sorted by latent and then by row.

    Attributes:
        first: number of the first of those rows.
        rows: per entry its row, counted from ``first``.
        latents: per entry the latent that fires.
        values: per entry how much.
        places: of all those rows.
    """

    first: int
    rows: Int64[np.ndarray, " entries"]
    latents: Int32[np.ndarray, " entries"]
    values: Float32[np.ndarray, " entries"]
    places: Rows

    @property
    def tokens(self) -> Int32[np.ndarray, " entries"]:
        """Per entry the token that it fires on."""
        return self.places.tokens[self.rows]

    @property
    def blocks(self) -> Int32[np.ndarray, " entries"]:
        """Per entry its block of text."""
        return self.places.blocks[self.rows]

    @property
    def positions(self) -> Int32[np.ndarray, " entries"]:
        """Per entry its position in the block."""
        return self.places.positions[self.rows]


class EntryWriter:
    """An open folder of shards."""

    def __init__(self, directory: Path, rows: Any) -> None:
        self._directory, self._rows = directory, rows
        self.shards = 0

    def append(self, entries: Firings) -> None:
        """Write one shard and its rows."""
        columns = [entries.first + entries.rows, entries.latents, entries.values]
        table = pa.Table.from_arrays(
            [column(values) for values in columns], schema=_ENTRY.with_metadata(stamp())
        )
        path = self._directory / f"shard-{self.shards:05d}.parquet"
        pq.write_table(
            table,
            path,
            row_group_size=_GROUP_ENTRIES,
            use_dictionary=["latent"],
            compression="zstd",
            write_statistics=["latent"],
        )
        seals.seal(path)
        rows = pa.Table.from_arrays([column(values) for values in entries.places], schema=_ROW)
        self._rows.write_table(rows, row_group_size=max(1, len(rows)))
        self.shards += 1


@contextmanager
def entry_writer(directory: Path) -> Iterator[EntryWriter]:
    """Write ``activations/`` and ``rows.parquet`` below a folder that is put in its place later."""
    (directory / "activations").mkdir(parents=True)
    with pq.ParquetWriter(
        directory / "rows.parquet", _ROW.with_metadata(stamp()), compression="zstd"
    ) as rows:
        yield EntryWriter(directory / "activations", rows)
    seals.seal(directory / "rows.parquet")


def read_entries(directory: Path) -> Iterator[Firings]:
    """The shards that `entry_writer` wrote, one at a time.

    Raises:
        SaeflowError: a file is absent or damaged.
    """
    first = 0
    with _damage_named(directory):
        seals.check(directory / "rows.parquet")
    with _damage_named(directory), pq.ParquetFile(directory / "rows.parquet") as rows:
        for number in range(rows.num_row_groups):
            places = rows.read_row_group(number, use_threads=False)
            path = directory / "activations" / f"shard-{number:05d}.parquet"
            seals.check(path)
            shard = pq.read_table(path, use_threads=False)
            yield Firings(
                first=first,
                rows=shard.column("row").to_numpy() - first,
                latents=shard.column("latent").to_numpy(),
                values=shard.column("value").to_numpy(),
                places=Rows(*(places.column(name).to_numpy() for name in _ROW.names)),
            )
            first += len(places)


@contextmanager
def _damage_named(directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise DamagedError(
            f"{directory}: cannot be read ({reason})", [directory / "rows.parquet"]
        ) from None
