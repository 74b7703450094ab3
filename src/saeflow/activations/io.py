"""The cache on disk: shards in Parquet or HDF5, and the manifest that vouches for them.

A Parquet shard holds ``activation`` as fixed-size bytes (a row's numbers, little-endian; the dtype is in the schema's
metadata) and ``token``, ``position``, ``block`` as int32; it is read by row groups. An HDF5 shard holds datasets of the
same names, bfloat16 as uint16.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from saeflow.activations.store import ActivationShard, Statistics, merge, statistics, torch_dtype
from saeflow.artifacts import atomic, read_json, sha256, write_json
from saeflow.config.sections import Activations
from saeflow.errors import SaeflowError

PIECE_ROWS = 4096  # rows of a Parquet row group and of an HDF5 chunk: what can be read alone
SUFFIXES = {"parquet": ".parquet", "hdf5": ".h5"}
_IDENTITY = ("model", "hook", "dtype", "exclude_bos", "d_model")  # in which all shards of a cache agree
_PLACES = {"token": "tokens", "position": "positions", "block": "blocks"}


def write_shard(path: Path, shard: ActivationShard, settings: Activations, metadata: dict[str, Any]) -> None:
    """Write one shard atomically, with its statistics.

    Args:
        path: ends in .parquet or .h5, as ``settings.format`` has it.
        metadata: must hold ``hook`` and ``model``.
    """
    path = Path(path)
    if path.suffix != SUFFIXES[settings.format]:
        raise SaeflowError(
            f"{path}: a shard in format '{settings.format}' ends in {SUFFIXES[settings.format]}; rename it"
        )
    measured = statistics(shard.activations)
    about = {
        **metadata,
        "dtype": settings.dtype,
        "exclude_bos": settings.exclude_bos,
        "d_model": shard.activations.shape[1],
        "statistics": {**measured._asdict(), "mean": measured.mean.tolist()},
    }
    with atomic(path) as temporary:
        _FORMATS[path.suffix].write(temporary, shard, about)


def read_shard(path: Path) -> ActivationShard:
    """Read one shard whole.

    Raises:
        SaeflowError: the file is absent or damaged.
    """
    with _told(path):
        return _FORMATS[Path(path).suffix].read(Path(path))


def shard_path(directory: Path, shard: int, settings: Activations) -> Path:
    """Where a shard of a cache lies."""
    return Path(directory) / f"shard-{shard:05d}{SUFFIXES[settings.format]}"


def write_manifest(directory: Path, shards: Sequence[Path]) -> None:
    """Vouch for all shards of a cache: their order, rows, sizes and checksums, and the statistics of all together.

    Raises:
        SaeflowError: a shard is absent or damaged, or two are not of the same model, hook and dtype.
    """
    caches, entries, measured = [], [], []
    for path in map(Path, shards):
        with _told(path):
            about = _FORMATS[path.suffix].about(path)
            part = about["statistics"]
            caches.append({key: about[key] for key in _IDENTITY})
            entry = {"file": path.name, "rows": part["rows"], "bytes": path.stat().st_size, "sha256": sha256(path)}
        entries.append(entry)
        measured.append(Statistics(**{**part, "mean": np.array(part["mean"])}))
        if caches[-1] != caches[0]:
            raise SaeflowError(f"{path}: is of another cache than {shards[0]}; delete it and it is made again")
    whole = merge(measured)
    manifest = {
        **caches[0],
        "rows": whole.rows,
        "mean": whole.mean.tolist(),
        "variance": whole.variance,
        "mean_norm": whole.mean_norm,
        "shards": entries,
    }
    write_json(Path(directory) / "manifest.json", manifest)


class Piece(NamedTuple):
    """Consecutive rows that are read in one go: row group or chunk ``group`` of a shard."""

    shard: int
    group: int
    rows: int


@dataclass(frozen=True)
class ActivationStore:
    """A finished cache.

    Attributes:
        mean: of all rows, fp64.
        variance: mean squared distance of a row to the mean.
        mean_norm: mean norm of a row; the unit of steering scales.
        shards: of the manifest: ``file``, ``rows``, ``bytes``, ``sha256``.
    """

    directory: Path
    hook: str
    model: str
    rows: int
    d_model: int
    dtype: torch.dtype
    mean: Float64[Tensor, " d_model"]
    variance: float
    mean_norm: float
    shards: list[dict[str, Any]]

    @classmethod
    def open(cls, directory: Path) -> ActivationStore:
        """Read the manifest and see that every shard is there in its full size.

        Raises:
            SaeflowError: the manifest or a shard is absent, or a shard is truncated.
        """
        directory = Path(directory)
        manifest = read_json(directory / "manifest.json")
        try:
            store = cls(
                directory=directory,
                dtype=torch_dtype(manifest["dtype"]),
                mean=torch.tensor(manifest["mean"], dtype=torch.float64),
                **{
                    key: manifest[key]
                    for key in ("hook", "model", "rows", "d_model", "variance", "mean_norm", "shards")
                },
            )
        except (KeyError, TypeError) as error:
            raise SaeflowError(f"{directory}/manifest.json: lacks {error}; delete it and it is made again") from None
        for shard in store.shards:
            path = directory / shard["file"]
            size = path.stat().st_size if path.exists() else None
            if size != shard["bytes"]:
                found = "is absent" if size is None else f"has {size} bytes, not {shard['bytes']}"
                raise SaeflowError(f"{path}: {found}; delete it and it is made again")
        return store

    @property
    def identity(self) -> list[str]:
        """What the cache holds, as the checksums of its shards."""
        return [shard["sha256"] for shard in self.shards]

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            SaeflowError: a shard has other bytes than were written.
        """
        for shard in self.shards:
            if sha256(self.directory / shard["file"]) != shard["sha256"]:
                raise SaeflowError(
                    f"{self.directory / shard['file']}: is damaged (its checksum differs from manifest.json); "
                    "delete it and it is made again"
                )

    def pieces(self) -> list[Piece]:
        """All rows of the cache, in pieces that can be read alone."""
        return [
            Piece(number, group, min(PIECE_ROWS, shard["rows"] - start))
            for number, shard in enumerate(self.shards)
            for group, start in enumerate(range(0, shard["rows"], PIECE_ROWS))
        ]

    def read(self, piece: Piece) -> Float[Tensor, "rows d_model"]:
        """The activations of a piece, in the cache's dtype.

        Raises:
            SaeflowError: the shard is damaged.
        """
        path = self.directory / self.shards[piece.shard]["file"]
        with _told(path):
            rows = _FORMATS[path.suffix].piece(path, piece.group)
        if rows.shape != (piece.rows, self.d_model):
            raise SaeflowError(f"{path}: does not hold what manifest.json says; delete it and it is made again")
        return rows


class _Format(NamedTuple):
    """How shards of one file format are written and read; both check what they read by checksums of their own."""

    write: Callable[[Path, ActivationShard, dict[str, Any]], None]
    read: Callable[[Path], ActivationShard]
    about: Callable[[Path], dict[str, Any]]
    piece: Callable[[Path, int], Float[Tensor, "rows d_model"]]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what libraries say of an absent or damaged file into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; it is made by saeflow's cache of activations") from None
    except (OSError, KeyError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise SaeflowError(f"{path}: is damaged ({reason}); delete it and it is made again") from None


def _write_parquet(path: Path, shard: ActivationShard, about: dict[str, Any]) -> None:
    raw = shard.activations.contiguous().view(torch.uint8).numpy()
    activation = pa.FixedSizeBinaryArray.from_buffers(pa.binary(raw.shape[1]), len(raw), [None, pa.py_buffer(raw)])
    columns = {"activation": activation, **{name: getattr(shard, field) for name, field in _PLACES.items()}}
    table = pa.table(columns).replace_schema_metadata({"saeflow": json.dumps(about, sort_keys=True)})
    pq.write_table(
        table,
        path,
        row_group_size=PIECE_ROWS,
        compression="none",  # numbers that do not repeat: compressing costs five times the time and saves a twelfth
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )


def _read_parquet(path: Path) -> ActivationShard:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read()
    activations = _from_bytes(table.column("activation"), _about_schema(table.schema)["dtype"])
    return ActivationShard(activations, **{field: table.column(name).to_numpy() for name, field in _PLACES.items()})


def _about_parquet(path: Path) -> dict[str, Any]:
    with pq.ParquetFile(path) as file:
        return _about_schema(file.schema_arrow)


def _piece_of_parquet(path: Path, index: int) -> Float[Tensor, "rows d_model"]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        column = file.read_row_group(index, columns=["activation"]).column("activation")
        return _from_bytes(column, _about_schema(file.schema_arrow)["dtype"])


def _about_schema(schema: Any) -> dict[str, Any]:
    return json.loads((schema.metadata or {})[b"saeflow"])


def _from_bytes(column: Any, dtype: str) -> Float[Tensor, "rows d_model"]:
    width = column.type.byte_width
    raw = np.empty((len(column), width), dtype=np.uint8)
    start = 0
    for chunk in column.chunks:
        data = np.frombuffer(chunk.buffers()[1], dtype=np.uint8).reshape(-1, width)
        raw[start : start + len(chunk)] = data[chunk.offset : chunk.offset + len(chunk)]
        start += len(chunk)
    return torch.from_numpy(raw).view(torch_dtype(dtype))


def _write_hdf5(path: Path, shard: ActivationShard, about: dict[str, Any]) -> None:
    rows, d_model = shard.activations.shape
    chunk = min(rows, PIECE_ROWS)
    with h5py.File(path, "w") as file:
        file.attrs["saeflow"] = json.dumps(about, sort_keys=True)
        values = _as_numpy(shard.activations)
        file.create_dataset("activation", data=values, chunks=(chunk, d_model), fletcher32=True)
        for name, field in _PLACES.items():
            file.create_dataset(name, data=getattr(shard, field), chunks=(chunk,), fletcher32=True)


def _as_numpy(activations: Tensor) -> np.ndarray[Any, Any]:
    bare = activations.contiguous()
    return (bare.view(torch.uint16) if bare.dtype == torch.bfloat16 else bare).numpy()


def _read_hdf5(path: Path) -> ActivationShard:
    with h5py.File(path) as file:
        activations = _slice(file, slice(None))
        return ActivationShard(activations, **{field: file[name][:] for name, field in _PLACES.items()})


def _about_hdf5(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return json.loads(file.attrs["saeflow"])


def _piece_of_hdf5(path: Path, index: int) -> Float[Tensor, "rows d_model"]:
    with h5py.File(path) as file:
        return _slice(file, slice(index * PIECE_ROWS, (index + 1) * PIECE_ROWS))


def _slice(file: Any, rows: slice) -> Float[Tensor, "rows d_model"]:
    dtype = torch_dtype(json.loads(file.attrs["saeflow"])["dtype"])
    return torch.from_numpy(file["activation"][rows]).view(dtype)


_FORMATS = {
    ".parquet": _Format(_write_parquet, _read_parquet, _about_parquet, _piece_of_parquet),
    ".h5": _Format(_write_hdf5, _read_hdf5, _about_hdf5, _piece_of_hdf5),
}
