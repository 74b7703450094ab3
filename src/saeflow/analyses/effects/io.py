"""Files of the stage: blocks of effects, the merged table, the baseline, the approximator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saeflow import seals
from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.approximator import Fit
from saeflow.analyses.effects.fit_metrics import Score
from saeflow.analyses.effects.measure import Baseline, EffectBlock
from saeflow.analyses.effects.scale import STATUSES, Start
from saeflow.artifacts import json_of, sealed, write_sealed_json
from saeflow.errors import DamagedError, SaeflowError
from saeflow.seals import stamp
from saeflow.tables import write_table
from saeflow.tensors import metadata_of, open_hdf5

Metadata = dict[str, Any]
STATUS_NAMES = (*STATUSES, "imported")
"""How the search for a row's scale ended; ``imported`` where a published file does not tell."""
BASELINE_NUMBERS = ("rollouts", "loss", "start", "batch_rows")
CHECKED_AT_ONCE = 1 << 24  # numbers
ROW_DATASETS = ("scale", "status", "vector_id", "loss", "rollouts")
MATRICES = ("vectors", "effects", "standard_error")


def write_block(path: Path, block: EffectBlock, number: int, metadata: Metadata) -> None:
    """Write one block.

    Args:
        path: of the file.
        block: what was measured.
        number: of the block, from 0.
        metadata: settings, hook, seed; the same for all blocks of a study.
    """
    tensors = {
        name: (value if isinstance(value, Tensor) else torch.from_numpy(value)).contiguous()
        for name, value in block._asdict().items()
    }
    _save(path, tensors, {"block": number, **metadata})


def read_block(path: Path) -> tuple[EffectBlock, Metadata]:
    """Read one block and its metadata, ``block`` among them.

    Raises:
        SaeflowError: the file is absent, cut short, or no block.
    """
    tensors, metadata = _load(path, EffectBlock._fields, "block of effects")
    columns: dict[str, Any] = {name: tensors[name].numpy() for name in ROW_DATASETS}
    return EffectBlock(**{name: tensors[name] for name in MATRICES} | columns), metadata


def measure_in_parts(
    path: Path,
    ids: Sequence[int],
    part_size: int,
    measure: Callable[[Sequence[int]], EffectBlock],
    metadata: Metadata,
) -> EffectBlock:
    """Measure a block part by part, each kept beside the block's file until the block is whole.

    A job that is killed starts again after the last whole part; since no vector's effects depend on
    another's, the block is the same to the bit.

    Args:
        path: of the block's file, which the caller writes; parts lie beside it as
            ``<name>.part-<first id>``.
        ids: of the block's vectors.
        part_size: vectors per part.
        measure: effects of some of the ids.
        metadata: of the block; a part with other metadata is measured again.
    """
    parts, files = [], []
    for start in range(0, len(ids), part_size):
        part_ids = ids[start : start + part_size]
        file = path.with_name(f"{path.name}.part-{part_ids[0]}")
        part = _kept_part(file, part_ids, metadata)
        if part is None:
            part = measure(part_ids)
            write_block(file, part, start // part_size, metadata)
        parts.append(part)
        files.append(file)
    block = _join(parts)
    for file in files:
        file.unlink()
    return block


def _kept_part(file: Path, ids: Sequence[int], metadata: Metadata) -> EffectBlock | None:
    if not file.exists():
        return None
    try:
        part, part_metadata = read_block(file)
    except SaeflowError:  # whatever is wrong with it, measuring it again is the remedy
        return None
    same = _identity(part_metadata) == _identity(json.loads(json.dumps(metadata)))
    return part if same and part.vector_id.tolist() == list(ids) else None


def _identity(metadata: Metadata) -> Metadata:
    """What must agree between the parts of one table; the versions that measured them may
    differ."""
    return {key: value for key, value in metadata.items() if key not in ("block", "batch_rows")}


def _join(parts: list[EffectBlock]) -> EffectBlock:
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ROW_DATASETS
    }
    columns |= {name: torch.cat([getattr(part, name) for part in parts]) for name in MATRICES}
    return EffectBlock(**columns)


def merge_blocks(
    paths: Sequence[Path],
    merged: Path,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Merge blocks into ``effects.h5``, one in memory at a time.

    Args:
        paths: of all blocks, in any order.
        merged: the file to write.
        dtype: of the effects on disk, ``float32`` or ``float16``.
        progress: called with (blocks done, blocks).

    Returns:
        How many vectors there are.

    Raises:
        SaeflowError: a block is missing, twice there, broken, from other settings, or too large for
            float16.
    """
    headers = sorted((_header(path) for path in paths), key=lambda header: header.number)
    _check_consecutive(headers)
    rows, d_sae = sum(header.rows for header in headers), headers[0].d_sae
    with new_table(merged) as file:
        effects = file.create_dataset("effects", (rows, d_sae), dtype=dtype)
        errors = file.create_dataset("standard_error", (rows, d_sae), dtype="float16")
        start = 0
        for done, header in enumerate(headers):
            block, _ = read_block(header.path)
            stop = start + header.rows
            effects[start:stop] = _stored(block.effects, dtype, header.path)
            errors[start:stop] = block.standard_error.numpy()
            for name in ("vectors", *ROW_DATASETS):
                values = np.asarray(getattr(block, name))
                if name not in file:
                    add_column(file, name, (rows, *values.shape[1:]), values.dtype)
                file[name][start:stop] = values
            start = stop
            if progress:
                progress(done + 1, len(headers))
        file["status"].attrs["names"] = list(STATUS_NAMES)
        file.attrs["metadata"] = json.dumps(headers[0].metadata, sort_keys=True)
    return rows


@contextmanager
def new_table(path: Path) -> Iterator[Any]:
    """An HDF5 file to write, sealed and moved into place when the block ends well."""
    with sealed(path) as temporary, h5py.File(temporary, "w") as file:
        for name, value in stamp().items():
            file.attrs[name] = np.bytes_(value)
        yield file


def add_column(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """A dataset whose pieces have checksums: figures read some of them, and not the whole file for
    its seal."""
    return file.create_dataset(name, shape, dtype=dtype, chunks=True, fletcher32=True)


def _stored(
    effects: Float[Tensor, "n d_sae"], dtype: str, where: Path
) -> NDArray[np.floating[Any]]:
    """Effects as they lie on disk; converted here, since HDF5 converts many times slower."""
    stored = {"float32": torch.float32, "float16": torch.float16}[dtype]
    if max(map(abs, torch.aminmax(effects))) > torch.finfo(stored).max:
        raise SaeflowError(
            f"{where}: has effects beyond the range of {dtype}; set effects.dtype: float32"
        )
    return effects.to(stored).numpy()


class _Header(NamedTuple):
    """What a block's file says of itself."""

    path: Path
    number: int
    rows: int
    d_sae: int
    first_id: int
    last_id: int
    metadata: Metadata


def _header(path: Path) -> _Header:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = metadata_of(file, path)
            rows, d_sae = file.get_slice("effects").get_shape()
            ids = file.get_tensor("vector_id")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _broken(path, "block of effects", error) from None
    return _Header(
        path=path,
        number=metadata.pop("block"),
        rows=rows,
        d_sae=d_sae,
        first_id=int(ids[0]),
        last_id=int(ids[-1]),
        metadata=metadata,
    )


def _check_consecutive(headers: list[_Header]) -> None:
    if not headers:
        raise SaeflowError("effects: there are no blocks to merge; measure them first")
    for expected, header in enumerate(headers):
        if header.number > expected:
            raise SaeflowError(f"effects: block {expected} is missing; measure it before merging")
        if header.number < expected:
            raise SaeflowError(
                f"{header.path}: is block {header.number} for the second time; name every block "
                "once"
            )
        if expected and header.first_id != headers[expected - 1].last_id + 1:
            raise SaeflowError(
                f"{header.path}: starts at vector {header.first_id} and the block before it ends "
                f"at {headers[expected - 1].last_id}; measure both with one "
                "effects.vectors.block_size"
            )
        if header.d_sae != headers[0].d_sae or _identity(header.metadata) != _identity(
            headers[0].metadata
        ):
            raise SaeflowError(
                f"{header.path}: was measured with other settings than {headers[0].path}; delete "
                "it to measure it again"
            )


class EffectTable(NamedTuple):
    """The merged file, open: small columns in memory, effects on disk."""

    vectors: Float[Tensor, "n d_model"]
    effects: Any
    """An h5py dataset ``[n, d_sae]``; slices of it are arrays."""
    scale: NDArray[np.float64]
    status: NDArray[np.uint8]
    vector_id: NDArray[np.int64]
    loss: NDArray[np.float64]
    rollouts: NDArray[np.int64]
    metadata: Metadata
    standard_error: Any = None
    """Of the effects, a dataset of their shape (see `measure.EffectBlock`); None
    where a published file has none."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Vectors that were added at all."""
        return self.scale > 0

    @property
    def hook(self) -> str:
        """Where the vectors were added.

        Raises:
            SaeflowError: the file does not say.
        """
        hook = self.metadata.get("hook")
        if not isinstance(hook, str):
            raise SaeflowError(
                "effects: the table does not say at which hook its vectors were added; get it again"
            )
        return hook

    def check_fits(self, d_model: int, d_sae: int) -> None:
        """Raise a `SaeflowError` where vectors or effects are of another model or SAE."""
        widths = {
            "vectors": (self.vectors.shape[1], d_model),
            "effects": (self.effects.shape[1], d_sae),
        }
        for what, (width, needed) in widths.items():
            if width != needed:
                raise SaeflowError(
                    f"effects: the {what} have width {width}, not {needed}; take those of this SAE"
                )


@contextmanager
def open_effects(path: Path) -> Iterator[EffectTable]:
    """Open ``effects.h5``, once all of it is found as it was written.

    Raises:
        SaeflowError: the file is absent, broken, or holds something else.
    """
    with ExitStack() as stack:
        try:
            seals.check(path)
            file = stack.enter_context(open_hdf5(path))
            _check_shapes(file)
            columns = {name: file[name][:] for name in ROW_DATASETS}
            vectors = torch.from_numpy(file["vectors"][:])
            metadata = json_of(file.attrs["metadata"], path)
            if not isinstance(metadata, dict):
                raise ValueError("its metadata are no names and values")
            table = EffectTable(vectors, file["effects"], **columns, metadata=metadata)
            table = table._replace(standard_error=file.get("standard_error"))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _broken(path, "table of effects", error) from None
        yield table


def _check_shapes(file: Any) -> None:
    """One row per vector in every data set, and numbers of a fitting kind."""
    rows = len(file["scale"])
    for name in ROW_DATASETS:
        if file[name].shape != (rows,):
            raise ValueError(
                f"{name} has shape {list(file[name].shape)}, where scale has {rows} rows"
            )
    for name in ("vectors", "effects"):
        shape, dtype = file[name].shape, file[name].dtype
        if len(shape) != 2 or shape[0] != rows or dtype.kind != "f":
            raise ValueError(
                f"{name} are {dtype} of shape {list(shape)}; they must be floats of shape [{rows}, "
                "width]"
            )
    if "standard_error" in file:
        errors = file["standard_error"]
        if errors.shape != file["effects"].shape or errors.dtype.kind != "f":
            raise ValueError(
                f"standard_error is {errors.dtype} of shape {list(errors.shape)}, unlike the "
                "effects"
            )


def check_finite(path: Path, table: EffectTable) -> None:
    """Read a table of effects through, some rows at a time.

    Raises:
        SaeflowError: an effect, a vector or a scale is not finite.
    """
    if not np.isfinite(table.scale).all() or not torch.isfinite(table.vectors).all():
        raise SaeflowError(f"{path}: has scales or vectors that are not finite; get it again")
    at_once = max(1, CHECKED_AT_ONCE // max(1, table.effects.shape[1]))
    for start in range(0, len(table.scale), at_once):
        finite = np.isfinite(table.effects[start : start + at_once]).all(axis=1)
        if not (finite | ~table.usable[start : start + at_once]).all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise SaeflowError(
                f"{path}: row {row} has effects that are not finite; get it again or leave the row "
                "out"
            )


def save_baseline(path: Path, baseline: Baseline, metadata: Metadata) -> None:
    """Write ``baseline.safetensors``."""
    tensors = {"mean": baseline.mean, "standard_error": baseline.standard_error}
    _save(path, tensors, {name: getattr(baseline, name) for name in BASELINE_NUMBERS} | metadata)


def load_baseline(path: Path) -> Baseline:
    """Read ``baseline.safetensors``.

    Raises:
        SaeflowError: the file is absent, cut short, or something else.
    """
    tensors, metadata = _load(path, ("mean", "standard_error"), "baseline")
    numbers = {name: metadata[name] for name in BASELINE_NUMBERS}
    numbers["start"] = numbers["start"] and Start(*numbers["start"])
    return Baseline(tensors["mean"], tensors["standard_error"], **numbers)


def save_fit(directory: Path, fit: Fit, metadata: Metadata) -> None:
    """Write ``approximator.safetensors``, ``metrics.json``, ``latents.parquet`` and
    ``predictions.parquet``."""
    save_approximation(directory, fit.approximation, metadata)
    save_score(directory, Score(fit.metrics, fit.latents, fit.predictions))


def save_score(directory: Path, score: Score) -> None:
    """Write ``metrics.json``, ``latents.parquet`` and ``predictions.parquet``."""
    write_sealed_json(directory / "metrics.json", score.metrics)
    write_table(directory / "latents.parquet", score.latents)
    write_table(directory / "predictions.parquet", score.predictions)


def save_approximation(directory: Path, approximation: Approximation, metadata: Metadata) -> None:
    """Write ``approximator.safetensors``."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in approximation._asdict().items()}
    _save(directory / "approximator.safetensors", tensors, metadata)


def load_approximation(directory: Path) -> Approximation:
    """Read ``approximator.safetensors``.

    Raises:
        SaeflowError: the file is absent, cut short, or something else.
    """
    return read_approximation(directory / "approximator.safetensors")[0]


def read_approximation(path: Path) -> tuple[Approximation, Metadata]:
    """Read an approximator's file of any name, and its metadata; raises as `load_approximation`
    does."""
    tensors, metadata = _load(path, Approximation._fields, "approximator")
    return Approximation(**tensors).checked(path), metadata


def _save(path: Path, tensors: dict[str, Tensor], metadata: Metadata) -> None:
    with sealed(path) as temporary:
        text = json.dumps(metadata, sort_keys=True)
        save_file(tensors, temporary, metadata={"metadata": text, **stamp()})


def _load(path: Path, names: Sequence[str], what: str) -> tuple[dict[str, Tensor], Metadata]:
    try:
        seals.check(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}, metadata_of(file, path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _broken(path, what, error) from None


def _broken(path: Path, what: str, error: Exception) -> SaeflowError:
    if not Path(path).exists():
        return SaeflowError(f"{path}: no such {what}; make it first")
    return DamagedError(f"{path}: is no whole {what} ({str(error).splitlines()[0]})", [path])
