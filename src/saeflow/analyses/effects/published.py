"""Files of the SAE-TS release: effects as ``{features, effects}`` and approximators as ``{W, b}``,
saved by torch.

The norm of a feature is the scale at which its effects were measured.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.io import STATUS_NAMES, EffectTable, Metadata, add_column, new_table
from saeflow.artifacts import atomic
from saeflow.errors import SaeflowError
from saeflow.tensors import read_pickle

CHUNK = 1024  # rows in memory at once

OnProgress = Callable[[int, int], None]


def import_effects(
    source: Path, merged: Path, metadata: Metadata, progress: OnProgress | None = None
) -> int:
    """Write published effects as ``effects.h5``, some rows in memory at a time.

    Every row has the status ``imported``: the release does not tell how the search for its scale
    ended, nor the loss there (NaN), nor the number of rollouts (0). One whose feature is zero has
    ``zero_vector``.

    Args:
        source: a torch file with ``features [n, d_model]`` and ``effects [n, d_sae]``.
        merged: the file to write; effects keep the dtype that they have.
        metadata: of the file written.
        progress: called with (rows done, rows).

    Returns:
        How many vectors there are.

    Raises:
        SaeflowError: the file is absent, damaged or something else, or a number in it cannot be
            used.
    """
    content = _read(source, ("features", "effects"), "published effects")
    features, effects = content["features"], content["effects"]
    if (
        features.ndim != 2
        or effects.ndim != 2
        or len(features) != len(effects)
        or not len(features)
    ):
        raise SaeflowError(
            f"{source}: features {list(features.shape)} and effects {list(effects.shape)} must be "
            "[n, d_model] and [n, d_sae]; get it again"
        )
    dtype = "float16" if effects.dtype == torch.float16 else "float32"
    n = len(features)
    with new_table(merged) as file:
        vectors = add_column(file, "vectors", tuple(features.shape), "float32")
        stored = file.create_dataset("effects", effects.shape, dtype=dtype)
        scale = add_column(file, "scale", (n,), "float64")
        for start in range(0, n, CHUNK):
            rows = slice(start, start + CHUNK)
            part, measured = features[rows].double(), effects[rows]
            norms = part.norm(dim=1)
            _check_rows(source, start, norms, measured)
            vectors[rows] = (part / norms.where(norms > 0, 1.0)[:, None]).float().numpy()
            stored[rows] = measured.to(getattr(torch, dtype)).numpy()
            scale[rows] = norms.numpy()
            if progress:
                progress(min(start + CHUNK, n), n)
        imported, zero = STATUS_NAMES.index("imported"), STATUS_NAMES.index("zero_vector")
        add_column(file, "status", (n,), np.uint8)[:] = np.where(scale[:] > 0, imported, zero)
        file["status"].attrs["names"] = list(STATUS_NAMES)
        add_column(file, "vector_id", (n,), np.int64)[:] = np.arange(n)
        add_column(file, "loss", (n,), np.float64)[:] = np.nan
        add_column(file, "rollouts", (n,), np.int64)[:] = 0
        file.attrs["metadata"] = json.dumps({"source": source.name, **metadata}, sort_keys=True)
    return n


def export_effects(table: EffectTable, target: Path, progress: OnProgress | None = None) -> int:
    """Write effects as the release has them; vectors that were not added at all are left out.

    Args:
        table: an open ``effects.h5``.
        target: the torch file to write. A scratch file of its size lies beside it meanwhile, so
            that the effects need not be in memory.
        progress: called with (rows done, rows).

    Returns:
        How many vectors were written.

    Raises:
        SaeflowError: no vector was added at all.
    """
    rows = np.flatnonzero(table.usable)
    if not len(rows):
        raise SaeflowError("effects: no vector has a scale above 0; there is nothing to export")
    d_sae, dtype = table.effects.shape[1], table.effects.dtype
    features = table.vectors[rows] * torch.from_numpy(table.scale[rows]).float()[:, None]
    scratch = target.with_name(f".{target.name}.effects")
    try:
        effects = np.memmap(scratch, dtype=dtype, mode="w+", shape=(len(rows), d_sae))
        done = 0
        for start in range(0, len(table.usable), CHUNK):
            part = table.effects[start : start + CHUNK][table.usable[start : start + CHUNK]]
            effects[done : done + len(part)] = part
            done += len(part)
            if progress:
                progress(done, len(rows))
        with atomic(target) as temporary:
            torch.save({"features": features, "effects": torch.from_numpy(effects)}, temporary)
    finally:
        scratch.unlink(missing_ok=True)
    return len(rows)


def read_adapter(source: Path, W_dec: Float[Tensor, "d_sae d_model"]) -> Approximation:
    """Read a published approximator.

    The release also has files of the rotation and the correction; both follow from the map and the
    decoder, and `read_rotation` reads the rotation that was published.

    Args:
        source: a torch file with ``W [d_model, d_sae]`` and ``b [d_sae]``.
        W_dec: decoder of the SAE whose latents it predicts.

    Raises:
        SaeflowError: the file is absent, damaged or something else, not finite, or for an SAE of
            another shape.
    """
    content = _read(source, ("W", "b"), "published approximator")
    W, b = content["W"].float(), content["b"].float()
    d_sae, d_model = W_dec.shape
    if W.shape != (d_model, d_sae) or b.shape != (d_sae,):
        turned = "; it is transposed" if W.shape == (d_sae, d_model) else ""
        raise SaeflowError(
            f"{source}: W {list(W.shape)} and b {list(b.shape)} must be [{d_model}, {d_sae}] and "
            f"[{d_sae}] for this SAE{turned}; take the SAE that it was fitted for"
        )
    if not (W.isfinite().all() and b.isfinite().all()):
        raise SaeflowError(f"{source}: holds NaN or infinity; get it again")
    return Approximation.of(W, b, W_dec.float())


def read_rotation(source: Path, d_model: int) -> Float[Tensor, "d_model d_model"]:
    """Read a published rotation, ``R_dec``, as the ``rotation`` of an `Approximation`.

    The file holds ``R`` with ``R @ decoder_row ≈ column of M``. A row is turned the same way by its
    transpose, which is returned: ``decoder_row @ R.T``. (The release's code multiplies by the
    inverse; see `saeflow.analyses.effects.approximation.procrustes`.)

    Args:
        source: a torch file with one matrix.
        d_model: width of the model.

    Raises:
        SaeflowError: the file is absent, damaged or something else, of another width, or not
            orthogonal.
    """
    R = _load(source, "published rotation")
    if not isinstance(R, Tensor) or R.shape != (d_model, d_model):
        held = list(R.shape) if isinstance(R, Tensor) else type(R).__name__
        raise SaeflowError(
            f"{source}: must hold one matrix [{d_model}, {d_model}], and holds {held}"
        )
    R = R.double()
    if not (R @ R.T - torch.eye(d_model, dtype=R.dtype)).abs().max() < 1e-2:
        raise SaeflowError(
            f"{source}: is no rotation, as its transpose is not its inverse; get it again"
        )
    return R.T.float().contiguous()


def write_adapter(approximation: Approximation, target: Path) -> None:
    """Write an approximator as the release has it."""
    with atomic(target) as temporary:
        torch.save(
            {"W": approximation.M.cpu().contiguous(), "b": approximation.b.cpu().contiguous()},
            temporary,
        )


def _check_rows(source: Path, start: int, norms: Tensor, effects: Tensor) -> None:
    for wrong, reason in (
        (~norms.isfinite(), "its feature holds NaN or infinity"),
        (~effects.isfinite().all(1), "its effects hold NaN or infinity"),
    ):
        if wrong.any():
            row = start + int(wrong.nonzero()[0, 0])
            raise SaeflowError(
                f"{source}: row {row} cannot be used ({reason}); get the file again or leave the "
                "row out"
            )


def _read(source: Path, names: tuple[str, ...], what: str) -> dict[str, Tensor]:
    """Tensors of a torch file by name."""
    content = _load(source, what)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), Tensor) for name in names
    ):
        held = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise SaeflowError(
            f"{source}: is no file of {what}; it must hold {' and '.join(names)}, and holds {held}"
        )
    tensors = {name: content[name] for name in names}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise SaeflowError(
                f"{source}: {name} holds numbers of type {kind}; get it in a floating type"
            )
    return tensors


def _load(source: Path, what: str) -> Any:
    """What a torch file holds, mapped into memory; nothing but tensors is ever unpickled."""
    if not source.is_file():
        raise SaeflowError(f"{source}: no such file; get the {what} first")
    try:
        return read_pickle(source, mmap=True)
    except (RuntimeError, OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise SaeflowError(
            f"{source}: is no whole torch file of {what} ({str(error).splitlines()[0]:.100}); get "
            "it again"
        ) from None
