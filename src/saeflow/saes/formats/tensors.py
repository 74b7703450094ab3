"""The tensors of an SAE: checked against the shapes that its config tells, written atomically."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from saeflow.artifacts import atomic, read_json, sealed
from saeflow.config.sae_files import count_in
from saeflow.config.single_file import STATISTICS, named_as_saved
from saeflow.errors import SaeflowError, warn
from saeflow.seals import stamp
from saeflow.tensors import read_content

SCALER = "activation_scaler.json"
"""Where SAELens keeps what the input is multiplied by; so may who knows it of an SAE whose files do
not say it."""


def scale_beside(directory: Path) -> float | None:
    """The ``scaling_factor`` in `SCALER` beside an SAE's weights; None where there is no usable
    one."""
    path = directory / SCALER
    content = read_json(path) if path.is_file() else None
    scale = content.get("scaling_factor") if isinstance(content, dict) else None
    usable = isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale < math.inf
    return float(scale) if usable and scale else None


def read_named(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the names that its library gives them, whatever a training wrapped
    around them, and without a prefix that all have (``module.``, ``_orig_mod.``).

    Raises:
        SaeflowError: the file is absent, damaged, or holds no tensors by names.
    """
    return named_as_saved(path, read_content(path))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as ``.safetensors``, ``.npz`` or ``.pt``, by the file's name, atomically."""
    path = Path(path)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        with sealed(path) as temporary:
            save_file(whole, temporary, metadata=stamp())
        return
    with atomic(path) as temporary:
        if path.suffix == ".npz":
            with open(temporary, "wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    **{name: tensor.numpy() for name, tensor in whole.items()},
                )
        else:
            torch.save(whole, temporary)


def checked(
    where: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The tensors named in `shapes`, in fp32, vectors in fp64, in which biases are folded.

    Raises:
        SaeflowError: one is absent, has another shape, is of no floating type, or holds a value
            that is not finite.
    """
    weights = {}
    for name, shape in shapes.items():
        if name not in tensors:
            raise SaeflowError(f"{where}: has no tensor {name}; get it again")
        tensor = tensors[name]
        if shape and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise SaeflowError(
                f"{where}: {name} holds numbers of type {kind}, not weights; get it in a floating "
                "type"
            )
        if tuple(tensor.shape) != shape:
            raise SaeflowError(
                f"{where}: {name} has shape {list(tensor.shape)}, where the rest says "
                f"{list(shape)}; get it again"
            )
        wide = tensor.float() if tensor.ndim == 2 else tensor.double()
        if not wide.isfinite().all():
            raise SaeflowError(f"{where}: {name} holds values that are not finite; get it again")
        weights[name] = wide
    return weights


def check_widths(where: Path, config: Mapping[str, Any], widths: Mapping[str, int]) -> None:
    """Refuse a ``config.json`` of other weights; latents are counted by it before any are read.

    Args:
        where: the folder, for messages.
        config: its section with widths.
        widths: of the tensors in ``ae.pt``, by the config's keys.
    """
    for key, width in widths.items():
        if config.get(key) is not None and count_in(config, key) != width:
            raise SaeflowError(
                f"{where}: config.json says that {key} is {config[key]}, and ae.pt has {width}; "
                "get the two that belong together"
            )


def tell_others(where: Path, names: Set[str], tensors: Mapping[str, Tensor]) -> None:
    """Say what tensors of a file are left out; counts of a training are nothing to tell of.

    Raises:
        SaeflowError: one is a matrix, with which something is computed that its config does not
            say.
    """
    others = sorted(name for name in names if not STATISTICS.fullmatch(name.split(".")[-1]))
    if wide := [name for name in others if tensors[name].ndim > 1]:
        raise SaeflowError(
            f"{where}: holds {', '.join(wide[:4])}, of which its config says nothing; get the "
            "config that belongs to it, or leave it out, if it is nothing that counts"
        )
    if others := [name for name in others if tensors[name].ndim]:
        warn(f"{where}: {', '.join(others[:8])} is left out, since its config says nothing of it")


def shape_of(where: Path, tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """The shape of a matrix that tells the widths, where no config does.

    Raises:
        SaeflowError: it is absent or no matrix.
    """
    if name not in tensors:
        raise SaeflowError(f"{where}: has no tensor {name}; get it again")
    if tensors[name].ndim != 2:
        raise SaeflowError(
            f"{where}: {name} has shape {list(tensors[name].shape)}, it must be a matrix; get it "
            "again"
        )
    first, second = tensors[name].shape
    return first, second
