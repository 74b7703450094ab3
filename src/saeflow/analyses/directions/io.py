"""Files of directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saeflow import seals
from saeflow.artifacts import sealed
from saeflow.errors import DamagedError, SaeflowError
from saeflow.seals import stamp
from saeflow.tensors import metadata_of, read_tensors

PROMPTS = {
    "prompt": pl.Int32,
    "label": pl.String,
    "split": pl.String,
    "group": pl.Int64,
    "tokens": pl.Int32,
    "log_odds": pl.Float64,
    "kept": pl.Boolean,
}


class StoredActivations(NamedTuple):
    """What a model holds of the prompts."""

    values: Float[Tensor, "prompts positions layers d_model"]
    positions: list[str]
    layers: list[int]


class Direction(NamedTuple):
    """A chosen direction, and its controls.

    Attributes:
        vector: unit norm.
        layer: after which it is added.
        gap: between the mean projections of the classes, in units of the residual stream.
        shuffled: unit directions of shuffled labels, at the same place.
        others: other candidates, with their layers and gaps.
        metadata: name, model, kind, position, within_rule; the classes of prompts that it was made
            of, and those that the gap is between; the models that it is a difference of.
    """

    vector: Float[Tensor, " d_model"]
    layer: int
    gap: float
    shuffled: Float[Tensor, "controls d_model"]
    others: Float[Tensor, "controls d_model"]
    other_layers: list[int]
    other_gaps: list[float]
    metadata: dict[str, Any]


def save_activations(path: Path, stored: StoredActivations) -> None:
    """Write activations with the names of their positions and layers."""
    _save(
        path,
        {"activations": stored.values},
        {"positions": stored.positions, "layers": stored.layers},
    )


def load_activations(path: Path) -> StoredActivations:
    """Read them; raises `DamagedError` where they cannot be."""
    tensors, said = _load(path)
    return StoredActivations(tensors["activations"], said["positions"], said["layers"])


def save_direction(path: Path, direction: Direction) -> None:
    """Write a direction and its controls."""
    tensors = {name: getattr(direction, name) for name in ("vector", "shuffled", "others")}
    numbers = ("layer", "gap", "other_layers", "other_gaps", "metadata")
    _save(path, tensors, {name: getattr(direction, name) for name in numbers})


def load_direction(path: Path) -> Direction:
    """Read them; raises `DamagedError` where they cannot be."""
    tensors, said = _load(path)
    values: dict[str, Any] = {**tensors, **said}
    return Direction(**values)


def read_vector(
    file: Path, d_model: int, key: str, tensor: str | None = None
) -> Float[Tensor, " d_model"]:
    """The one vector of a file, of any norm but zero, float64.

    Args:
        file: .safetensors, .npz or .pt; numbers beside the vector, such as a step, do not count.
        d_model: how wide it must be.
        key: of the config, that names the file.
        tensor: which, where the file holds several.

    Raises:
        SaeflowError: the file holds no such tensor, or one that is no direction of the model.
    """
    tensors = {name: each for name, each in read_tensors(file).items() if each.numel() > 1}
    chosen = tensor or (next(iter(tensors)) if len(tensors) == 1 else None)
    if chosen not in tensors:
        names = ", ".join(tensors) or "no vector"
        advice = "say which in tensor" if tensor or len(tensors) > 1 else "name another"
        raise SaeflowError(f"{key}: {file} holds {names}; {advice}")
    vector = tensors[chosen].double().flatten()
    if vector.numel() != d_model or not torch.isfinite(vector).all() or not vector.any():
        raise SaeflowError(
            f"{key}: '{chosen}' in {file} is no vector of {d_model} finite numbers, or all of them "
            "are zero; name another"
        )
    return vector


def _save(path: Path, tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    contiguous: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with sealed(path) as temporary:
        save_file(contiguous, temporary, metadata={"metadata": json.dumps(said)} | stamp())


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        seals.check(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = metadata_of(file, path)
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; make it first") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DamagedError(f"{path}: cannot be read as directions ({error})", [path]) from None
    return tensors, said
