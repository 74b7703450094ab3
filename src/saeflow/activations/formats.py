"""Shards in Parquet and HDF5: pieces of a fixed number of rows, each with a checksum of its own.

A Parquet shard holds ``activation`` as fixed-size bytes (a row's numbers, little-endian) and
``token``, ``position``, ``block`` as int32, in row groups of `PIECE_ROWS` whose pages have
checksums. An HDF5 shard holds datasets of the same names in chunks of `PIECE_ROWS`, bfloat16 as
uint16, and ``checksum``, the CRC-32 of every chunk of ``activation``. What the shard is stands as
JSON under ``saeflow``, in the schema's metadata or an attribute.

In both, a piece that is not compressed lies in the file as one run of bytes, and is read as that:
from the file to its place in memory, with no library between, which takes a quarter of the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from isal.isal_zlib import crc32
from jaxtyping import Int32, UInt8
from torch import Tensor

from saeflow.activations.store import ActivationRows
from saeflow.artifacts import json_of
from saeflow.columns import column
from saeflow.tensors import open_hdf5

PIECE_ROWS = 4096  # what can be read alone
PLACES = {"token": "tokens", "position": "positions", "block": "blocks"}
_SHARDS_KNOWN = 64  # whose pieces' places are remembered
_PAGE_HEADER = 64  # more bytes than the first fields of a page's header take
Raw = UInt8[np.ndarray, "rows bytes"]


class ShardWriter(Protocol):
    """An open shard."""

    def append(self, rows: ActivationRows) -> None:
        """Write one piece."""

    def close(self, about: dict[str, Any]) -> None:
        """Say what the shard is, and end it."""


class Run(NamedTuple):
    """Where in a file the activations of a piece lie as they are: ``rows × width`` bytes from
    ``start``."""

    start: int
    rows: int
    width: int
    checksum: int
    """Their CRC-32."""


class Format(NamedTuple):
    """How shards of one file format are written and read; damage is found by the checksum of the
    piece that is read."""

    suffix: str
    writer: Callable[[Path, bool], Any]
    """A context manager that gives a `ShardWriter`; True asks for compression."""
    about: Callable[[Path], dict[str, Any]]
    runs: Callable[[Path], Sequence[Run] | None]
    """Where the pieces lie; None where one is compressed."""
    unpack: Callable[[Path, int, Raw], None]
    """Put the activations of one piece, compressed or not, where they belong."""
    places: Callable[[Path], dict[str, Int32[np.ndarray, " rows"]]]
    """``tokens``, ``positions`` and ``blocks`` of all rows."""

    def read(self, path: Path, index: int, out: Raw) -> None:
        """Put the activations of one piece, as bytes, where they belong.

        Raises:
            ValueError: the piece has another checksum, or another number of rows or bytes.
        """
        file = path.stat()
        runs = _known_runs(self.runs, path, file.st_ino, file.st_mtime_ns, file.st_size)
        if runs is None:
            self.unpack(path, index, out)
        else:
            _read_run(path, runs[index], out)


@lru_cache(_SHARDS_KNOWN)
def _known_runs(
    runs: Callable[[Path], Sequence[Run] | None], path: Path, *_: int
) -> Sequence[Run] | None:
    """The runs of a file, looked up once for as long as its inode, time and size tell that it is
    the same."""
    return runs(path)


def _read_run(path: Path, run: Run, out: Raw) -> None:
    _as_large(out, (run.rows, run.width))
    whole = out if out.flags.c_contiguous else np.empty(out.shape, np.uint8)
    left = whole.data.cast("B")
    with open(path, "rb", buffering=0) as file:
        file.seek(run.start)
        while len(left) and (read := file.readinto(left)):
            left = left[read:]
    if crc32(whole.data) != run.checksum:
        raise ValueError("its checksum differs")
    if whole is not out:
        out[:] = whole


class _ParquetWriter:
    def __init__(self, path: Path, compress: bool) -> None:
        self._path, self._compression = path, "zstd" if compress else "none"
        self._writer: Any = None

    def append(self, rows: ActivationRows) -> None:
        raw = as_numpy(rows.activations).view(np.uint8)
        values = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(raw.shape[1]), len(raw), [None, pa.py_buffer(raw)]
        )
        columns = [values, *(column(getattr(rows, field)) for field in PLACES.values())]
        names = ["activation", *PLACES]
        schema = pa.schema(
            [
                pa.field(name, values.type, nullable=False)
                for name, values in zip(names, columns, strict=True)
            ]
        )
        self._writer = self._writer or pq.ParquetWriter(
            self._path,
            schema,
            compression=self._compression,
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
            data_page_size=raw.nbytes + 1,  # so that a piece is one page
        )
        self._writer.write_table(
            pa.Table.from_arrays(columns, schema=schema), row_group_size=PIECE_ROWS
        )

    def close(self, about: dict[str, Any]) -> None:
        self._writer.add_key_value_metadata({"saeflow": json.dumps(about, sort_keys=True)})

    def release(self) -> None:
        if self._writer:
            self._writer.close()


@contextmanager
def _parquet_writer(path: Path, compress: bool) -> Iterator[ShardWriter]:
    writer = _ParquetWriter(path, compress)
    try:
        yield writer
    finally:
        writer.release()


def _about_parquet(path: Path) -> dict[str, Any]:
    with pq.ParquetFile(path) as file:
        return _object(file.metadata.metadata[b"saeflow"], path)


def _runs_of_parquet(path: Path) -> Sequence[Run] | None:
    """Each piece is a page: the end of a column chunk, after its header and, where one may be
    absent, a mask."""
    runs = []
    with pq.ParquetFile(path) as parquet, open(path, "rb") as file:
        width = parquet.schema_arrow.field("activation").type.byte_width
        place = parquet.schema_arrow.get_field_index("activation")
        for index in range(parquet.num_row_groups):
            chunk = parquet.metadata.row_group(index).column(place)
            size = chunk.num_values * width
            file.seek(chunk.data_page_offset)
            kind, unpacked, packed, checksum = _page_header(file.read(_PAGE_HEADER))
            if (
                chunk.compression != "UNCOMPRESSED"
                or kind != 0
                or unpacked != size
                or packed != size
            ):
                return None
            start = chunk.data_page_offset + chunk.total_compressed_size - size
            runs.append(Run(start, chunk.num_values, width, checksum))
    return runs


def _page_header(header: bytes) -> tuple[int, int, int, int]:
    """Kind, size unpacked and packed, and CRC-32 of a page.

    They are the first four fields of a struct in Thrift's compact protocol: each one byte that says
    so, then a number in sevens of bits, the lowest first, with its sign in the lowest bit.

    Source: the Parquet format, ``PageHeader`` in ``parquet.thrift``.

    Raises:
        ValueError: it begins in another way, as one without a checksum does.
    """
    numbers, place = [], 0
    for _ in range(4):
        if header[place] != 0x15:  # the next field, an int32
            raise ValueError("its pages have no checksums")
        number = shift = 0
        while True:
            place += 1
            number |= (header[place] & 0x7F) << shift
            shift += 7
            if header[place] < 0x80:
                break
        place += 1
        numbers.append(number >> 1 ^ -(number & 1))
    kind, unpacked, packed, checksum = numbers
    return kind, unpacked, packed, checksum & 0xFFFFFFFF


def _unpack_parquet(path: Path, index: int, out: Raw) -> None:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        rows = file.read_row_group(index, columns=["activation"], use_threads=False).column(
            "activation"
        )
    width, start = rows.type.byte_width, 0
    _as_large(out, (len(rows), width))
    for chunk in rows.chunks:
        values = np.frombuffer(chunk.buffers()[1], dtype=np.uint8).reshape(-1, width)
        out[start : start + len(chunk)] = values[chunk.offset : chunk.offset + len(chunk)]
        start += len(chunk)


def _places_of_parquet(path: Path) -> dict[str, Int32[np.ndarray, " rows"]]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read(columns=list(PLACES), use_threads=False)
    return {field: table.column(name).to_numpy() for name, field in PLACES.items()}


class _Disk(FileIO):
    """A file for HDF5, whose library crashes where a write fails: the failure is kept to be told
    afterwards."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data)
        written = 0
        try:
            while written < len(view):
                written += super().write(view[written:]) or 0
        except OSError as error:
            self.failure = error
        return len(view)

    def tell_failure(self) -> None:
        """Raise what befell a write."""
        if self.failure:
            raise self.failure


class _Hdf5Writer:
    def __init__(self, file: Any, disk: _Disk, compress: bool) -> None:
        self._file, self._disk = file, disk
        self._compression = (
            {"compression": "gzip", "compression_opts": 1, "shuffle": True} if compress else {}
        )
        self._checksums: list[int] = []

    def append(self, rows: ActivationRows) -> None:
        values = as_numpy(rows.activations)
        # HDF5 has a checksum of its own (fletcher32), which takes as long as writing and reading
        # together.
        self._checksums.append(crc32(values.data))
        self._extend("activation", values, self._compression)
        for name, field in PLACES.items():
            self._extend(name, getattr(rows, field), {"fletcher32": True, **self._compression})
        self._disk.tell_failure()

    def _extend(self, name: str, values: np.ndarray[Any, Any], filters: dict[str, Any]) -> None:
        rest = values.shape[1:]
        if name not in self._file:
            # The first piece is the only one that may be a short last one.
            chunk = (len(values), *rest)
            self._file.create_dataset(
                name,
                shape=(0, *rest),
                maxshape=(None, *rest),
                dtype=values.dtype,
                chunks=chunk,
                **filters,
            )
        dataset = self._file[name]
        written = len(dataset)
        dataset.resize(written + len(values), axis=0)
        if dataset.chunks == values.shape and not (filters or values.ndim == 1):
            # One chunk whole and as it is, which HDF5 need not copy: half as fast again.
            dataset.id.write_direct_chunk((written, 0), values)
        else:
            dataset[written:] = values

    def close(self, about: dict[str, Any]) -> None:
        self._file["checksum"] = np.array(self._checksums, np.uint32)
        self._file.attrs["saeflow"] = json.dumps(about, sort_keys=True)


@contextmanager
def _hdf5_writer(path: Path, compress: bool) -> Iterator[ShardWriter]:
    with _Disk(path, "w+") as disk:
        with h5py.File(
            disk, "w", libver="v110"
        ) as file:  # from 1.10 on the library's own records have checksums
            yield _Hdf5Writer(file, disk, compress)
        disk.tell_failure()


def _about_hdf5(path: Path) -> dict[str, Any]:
    with open_hdf5(path) as file:
        return _object(file.attrs["saeflow"], path)


def _object(text: str | bytes, path: Path) -> dict[str, Any]:
    about = json_of(text, path)
    if not isinstance(about, dict):
        raise ValueError("what it says of itself is no names and values")
    return about


def _runs_of_hdf5(path: Path) -> Sequence[Run] | None:
    """Each piece is a chunk; the last may be longer than what it holds."""
    with open_hdf5(path) as file:
        dataset, checksums = file["activation"], file["checksum"][:]
        if dataset.compression:
            return None
        rows, columns = dataset.shape
        starts = range(0, rows, dataset.chunks[0])
        return [
            Run(
                start=dataset.id.get_chunk_info_by_coord((first, 0)).byte_offset,
                rows=min(dataset.chunks[0], rows - first),
                width=columns * dataset.dtype.itemsize,
                checksum=int(checksum),
            )
            for first, checksum in zip(starts, checksums, strict=True)
        ]


def _unpack_hdf5(path: Path, index: int, out: Raw) -> None:
    with open_hdf5(path) as file:
        dataset = file["activation"]
        rows = slice(index * PIECE_ROWS, min((index + 1) * PIECE_ROWS, len(dataset)))
        _as_large(out, (rows.stop - rows.start, dataset.shape[1] * dataset.dtype.itemsize))
        whole = out if out.flags.c_contiguous else np.empty(out.shape, np.uint8)
        dataset.read_direct(whole.view(dataset.dtype), rows)
        if crc32(whole.data) != file["checksum"][index]:
            raise ValueError("its checksum differs")
        if whole is not out:
            out[:] = whole


def _places_of_hdf5(path: Path) -> dict[str, Int32[np.ndarray, " rows"]]:
    with open_hdf5(path) as file:
        return {field: file[name][:] for name, field in PLACES.items()}


def _as_large(out: Raw, shape: tuple[int, int]) -> None:
    """Raise an error where rows of one size are to be put into a place of another."""
    if out.shape != shape:
        raise ValueError(
            f"it holds {shape[0]} rows of {shape[1]} bytes, not {out.shape[0]} of {out.shape[1]}"
        )


def as_numpy(activations: Tensor) -> np.ndarray[Any, Any]:
    """The same numbers in NumPy, which has no bfloat16: those as the uint16 of their bits."""
    bare = activations.contiguous()
    return (bare.view(torch.uint16) if bare.dtype == torch.bfloat16 else bare).numpy()


FORMATS = {
    "parquet": Format(
        ".parquet",
        _parquet_writer,
        _about_parquet,
        _runs_of_parquet,
        _unpack_parquet,
        _places_of_parquet,
    ),
    "hdf5": Format(".h5", _hdf5_writer, _about_hdf5, _runs_of_hdf5, _unpack_hdf5, _places_of_hdf5),
}
