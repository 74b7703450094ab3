"""The cache on disk: shards, written as the rows come, and the manifest that vouches for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32
from torch import Tensor

from saeflow.activations.formats import FORMATS, PIECE_ROWS, PLACES, Format, Raw, ShardWriter
from saeflow.activations.store import (
    ActivationRows,
    Statistics,
    join,
    merge,
    statistics,
    torch_dtype,
)
from saeflow.artifacts import atomic, inside, read_object, sha256, to_disk, write_sealed_json
from saeflow.config.sections import Activations
from saeflow.errors import DamagedError, SaeflowError
from saeflow.provenance import provenance, refuse_other_settings
from saeflow.tensors import check_declared
from saeflow.threads import lone_threads

MANIFEST = "manifest.json"
# in which all shards of a cache agree
_IDENTITY = ("model", "hook", "dtype", "exclude", "exclude_norm_above", "d_model")
# Bytes that the disk need not have yet; else it is idle first and all wait for it at the end.
_ON_THE_WAY = 32 << 20


def shard_path(directory: Path, shard: int, settings: Activations) -> Path:
    """Where a shard of a cache lies."""
    return Path(directory) / f"shard-{shard:05d}{FORMATS[settings.format].suffix}"


def write_shards(
    paths: Mapping[str, Path],
    parts: Iterable[Mapping[str, ActivationRows]],
    settings: Activations,
    metadata: Mapping[str, Any],
) -> None:
    """Write one shard per hook as the rows come; each appears whole or not at all.

    Args:
        paths: file by hook, ending as ``settings.format`` has it.
        parts: rows by hook, pass by pass, as `capture_rows` gives them; only a piece of each shard
            is held in memory.
        settings: of the cache.
        metadata: of the shards; must hold ``model``.

    Raises:
        SaeflowError: a file has the wrong suffix, no row is left, or the disk is full.
    """
    with ExitStack() as stack:
        shards = {
            hook: stack.enter_context(_open_shard(Path(path), settings, {**metadata, "hook": hook}))
            for hook, path in paths.items()
        }
        for part in parts:
            for hook, shard in shards.items():
                shard.append(part[hook])


@contextmanager
def _open_shard(path: Path, settings: Activations, metadata: Mapping[str, Any]) -> Iterator[_Shard]:
    file_format = FORMATS[settings.format]
    if path.suffix != file_format.suffix:
        raise SaeflowError(
            f"{path}: a shard in format '{settings.format}' ends in {file_format.suffix}; rename it"
        )
    with (
        atomic(path) as temporary,
        file_format.writer(temporary, settings.compress) as writer,
        lone_threads(
            3, "saeflow-shard"
        ) as background,  # that measure, write, and wait for the disk
    ):
        shard = _Shard(writer, temporary, background)
        yield shard
        if not (about := shard.end()):
            raise SaeflowError(
                f"{path}: no position is left for this shard; exclude fewer (activations.exclude)"
            )
        kept = {"dtype", "exclude", "exclude_norm_above"}
        writer.close(
            {**metadata, **settings.model_dump(include=kept), **about, "provenance": provenance()}
        )


class _Shard:
    """Rows that are cut into pieces and measured, while the piece before them is on its way to the
    file.

    Both are done in the background, beside what makes the rows.
    """

    def __init__(self, writer: ShardWriter, path: Path, background: ThreadPoolExecutor) -> None:
        self._writer, self._path, self._background = writer, path, background
        self._on_the_way = 0
        self._taken: Future[None] | None = None
        self._writing: Future[None] | None = None
        self._flushing: Future[None] | None = None
        self._pending: list[ActivationRows] = []
        self._measured: list[Statistics] = []
        self._text = hashlib.sha256()

    def append(self, rows: ActivationRows) -> None:
        """Take rows, once the ones before are taken."""
        _wait(self._taken)
        self._taken = self._background.submit(self._take, rows)

    def end(self) -> dict[str, Any] | None:
        """Write what is left over; what is to be said of the rows, or None where there was none."""
        _wait(self._taken)
        self._background.submit(self._take_rest).result()
        if not self._measured:
            return None
        whole = merge(self._measured)
        return {
            "d_model": len(whole.mean),
            "text": self._text.hexdigest(),
            "statistics": {**whole._asdict(), "mean": whole.mean.tolist()},
        }

    def _take(self, rows: ActivationRows) -> None:
        self._pending.append(rows)
        if sum(len(part.tokens) for part in self._pending) >= PIECE_ROWS:
            together = join(self._pending)
            full = len(together.tokens) // PIECE_ROWS * PIECE_ROWS
            for start in range(0, full, PIECE_ROWS):
                self._measure(together.part(slice(start, start + PIECE_ROWS)))
            self._pending = (
                [together.part(slice(full, None))] if full < len(together.tokens) else []
            )

    def _take_rest(self) -> None:
        last = join(self._pending) if self._pending else None
        if last and len(last.tokens):
            self._measure(last)
        _wait(self._writing)
        _wait(self._flushing)

    def _measure(self, piece: ActivationRows) -> None:
        self._measured.append(statistics(piece.activations))
        for field in PLACES.values():
            self._text.update(np.ascontiguousarray(getattr(piece, field), dtype="<i4").tobytes())
        _wait(self._writing)
        self._writing = self._background.submit(self._write, piece)

    def _write(self, piece: ActivationRows) -> None:
        self._writer.append(piece)
        self._on_the_way += piece.activations.nbytes
        if self._on_the_way >= _ON_THE_WAY and (not self._flushing or self._flushing.done()):
            _wait(self._flushing)
            self._flushing = self._background.submit(to_disk, self._path)
            self._on_the_way = 0


def _wait(work: Future[None] | None) -> None:
    """Let what was begun, if anything, come to its end, good or bad."""
    if work:
        work.result()


def read_shard(path: Path) -> ActivationRows:
    """Read one shard whole.

    Raises:
        SaeflowError: the file is absent or damaged.
    """
    path = Path(path)
    with _damage_reported(path, [path]):
        file_format = _format_of(path)
        about = file_format.about(path)
        rows, dtype = about["statistics"]["rows"], torch_dtype(about["dtype"])
        raw = np.empty((rows, about["d_model"] * dtype.itemsize), np.uint8)
        for index, start in enumerate(range(0, rows, PIECE_ROWS)):
            file_format.read(path, index, raw[start : start + PIECE_ROWS])
        return ActivationRows(torch.from_numpy(raw).view(dtype), **file_format.places(path))


def write_manifest(directory: Path, shards: Sequence[Path]) -> None:
    """Vouch for all shards of a cache: their order, rows, sizes and checksums, and the statistics
    of all together.

    Raises:
        SaeflowError: a shard is absent or damaged, or two are not of the same model, hook and
            dtype.
    """
    caches, entries, measured = [], [], []
    for path in map(Path, shards):
        with _damage_reported(path, [path]):
            about = _format_of(path).about(path)
            refuse_other_settings(path)
            part = about["statistics"]
            caches.append({key: about[key] for key in _IDENTITY})
            entries.append(
                {
                    "file": path.name,
                    "rows": part["rows"],
                    "bytes": path.stat().st_size,
                    "sha256": sha256(path),
                    "text": about["text"],
                }
            )
        measured.append(Statistics(**{**part, "mean": np.array(part["mean"])}))
        if caches[-1] != caches[0]:
            raise DamagedError(f"{path}: is of another cache than {shards[0]}", [path])
    whole = merge(measured)
    manifest = {
        **caches[0],
        "rows": whole.rows,
        "mean": whole.mean.tolist(),
        "variance": whole.variance,
        "mean_norm": whole.mean_norm,
        "shards": entries,
        "provenance": provenance(),
    }
    write_sealed_json(Path(directory) / MANIFEST, manifest)


Places = Int32[np.ndarray, " rows"]


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
        shards: of the manifest: ``file``, ``rows``, ``bytes``, ``sha256``, and ``text``, the
            checksum of tokens, positions and blocks.
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
        """Read the manifest, and nothing else.

        Raises:
            SaeflowError: the manifest is absent or incomplete.
        """
        directory = Path(directory)
        manifest = read_object(directory / MANIFEST)
        try:
            store = cls(
                directory=directory,
                dtype=torch_dtype(manifest["dtype"]),
                mean=torch.tensor(manifest["mean"], dtype=torch.float64),
                **{
                    key: manifest[key]
                    for key in (
                        "hook",
                        "model",
                        "rows",
                        "d_model",
                        "variance",
                        "mean_norm",
                        "shards",
                    )
                },
            )
            for number, shard in enumerate(store.shards):
                numbers = int(shard["rows"]) * store.d_model
                check_declared(
                    store.path(number), numbers * store.dtype.itemsize, int(shard["bytes"])
                )
            return store
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedError(
                f"{directory / MANIFEST}: lacks {error}", [directory / MANIFEST]
            ) from None

    @property
    def identity(self) -> list[str]:
        """What the cache holds, as the checksums of its shards."""
        return [shard["sha256"] for shard in self.shards]

    @property
    def text(self) -> list[str]:
        """Which tokens at which positions the rows belong to, as checksums by shard."""
        return [shard["text"] for shard in self.shards]

    def check(self) -> None:
        """See that every shard is there in its full size.

        Raises:
            SaeflowError: a shard is absent or truncated.
        """
        for number, shard in enumerate(self.shards):
            path = self.path(number)
            size = path.stat().st_size if path.exists() else None
            if size is None:
                raise DamagedError(f"{path}: is absent", [self.directory / MANIFEST])
            if size != shard["bytes"]:
                raise DamagedError(
                    f"{path}: has {size} bytes, not {shard['bytes']}", self._remade(number)
                )

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            SaeflowError: a shard has other bytes than were written.
        """
        self.check()
        if damaged := [number for number in range(len(self.shards)) if not self.is_whole(number)]:
            names = ", ".join(self.shards[number]["file"] for number in damaged)
            raise DamagedError(
                f"{self.directory}: {names} damaged (the checksum differs from {MANIFEST})",
                self._remade(*damaged),
            )

    def is_whole(self, shard: int) -> bool:
        """Whether a shard has the bytes that were written."""
        return sha256(self.path(shard)) == self.shards[shard]["sha256"]

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return inside(self.directory, self.shards[shard]["file"])

    def pieces(self) -> list[Piece]:
        """All rows of the cache, in pieces that can be read alone."""
        return [
            Piece(number, group, min(PIECE_ROWS, shard["rows"] - start))
            for number, shard in enumerate(self.shards)
            for group, start in enumerate(range(0, shard["rows"], PIECE_ROWS))
        ]

    def read_into(self, piece: Piece, out: Raw) -> None:
        """Put the activations of a piece, as bytes, into ``out [rows, bytes of a row]``.

        Raises:
            SaeflowError: the shard is damaged, which the piece's own checksum tells, or has other
                rows.
        """
        path = self.path(piece.shard)
        with _damage_reported(path, self._remade(piece.shard)):
            _format_of(path).read(path, piece.group, out)

    def read(self, piece: Piece) -> Float[Tensor, "rows d_model"]:
        """The activations of a piece, in the cache's dtype; raises as `read_into` does."""
        out = np.empty((piece.rows, self.d_model * self.dtype.itemsize), np.uint8)
        self.read_into(piece, out)
        return torch.from_numpy(out).view(self.dtype)

    def with_places(self) -> Iterator[tuple[Piece, tuple[Places, Places, Places]]]:
        """All pieces in their order, each with the tokens, blocks and positions of its rows; one
        shard's in memory.

        Raises:
            SaeflowError: a shard is damaged.
        """
        pieces = self.pieces()
        for number in range(len(self.shards)):
            path = self.path(number)
            with _damage_reported(path, self._remade(number)):
                places = _format_of(path).places(path)
            for piece in (piece for piece in pieces if piece.shard == number):
                part = slice(piece.group * PIECE_ROWS, piece.group * PIECE_ROWS + piece.rows)
                yield (
                    piece,
                    (places["tokens"][part], places["blocks"][part], places["positions"][part]),
                )

    def _remade(self, *shards: int) -> list[Path]:
        """What must be gone for shards to be made again; last the manifest, without which nothing
        reads the cache."""
        return [*(self.path(shard) for shard in shards), self.directory / MANIFEST]


def _format_of(path: Path) -> Format:
    by_suffix = {file_format.suffix: file_format for file_format in FORMATS.values()}
    if path.suffix not in by_suffix:
        raise SaeflowError(f"{path}: is not a shard; shards end in {' or '.join(by_suffix)}")
    return by_suffix[path.suffix]


@contextmanager
def _damage_reported(path: Path, remade: Sequence[Path]) -> Iterator[None]:
    """Turn what libraries say of an absent or damaged file into one sentence.

    An error of the operating system (permissions, a network that is gone) has a number and is no
    damage.
    """
    try:
        yield
    except FileNotFoundError:
        if left := [file for file in remade if file != path]:
            raise DamagedError(f"{path}: is absent", left) from None
        raise SaeflowError(f"{path}: is absent; start the workflow again and it is made") from None
    except SaeflowError:
        raise
    except Exception as error:  # a damaged file makes libraries fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if getattr(error, "errno", None):
            raise SaeflowError(
                f"{path}: cannot be read ({reason}); check the disk and start again"
            ) from None
        raise DamagedError(f"{path}: is damaged ({reason})", remade) from None
