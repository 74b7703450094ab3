"""Models of human play on disk: our own folders, the embedded small model, and the official
checkpoints."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import polars as pl
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saeflow.artifacts import (
    CHECKSUMS,
    atomic,
    check_checksums,
    read_object,
    sha256,
    write_sealed_json,
)
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.settings import ChessModel
from saeflow.errors import SaeflowError
from saeflow.tensors import read_pickle

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CURVE = "training.parquet"
EMBEDDED = "maia2-mini"


class Published(NamedTuple):
    """An official checkpoint: where it is and what it must be."""

    url: str
    sha256: str


PUBLISHED = {
    "rapid": Published(
        "https://drive.google.com/uc?export=download&confirm=t&id=1gbC1-c7c0EQOPPAVpGWubezeEW8grVwc",
        "65aae8465eed5e65df66a24ea7370715579f9e5435098d06fe18bdb1e267e997",
    ),
    "blitz": Published(
        "https://drive.google.com/uc?export=download&confirm=t&id=1X-Z4J3PX3MQFJoa8gRt3aL8CIH0PWoyt",
        "5090d5d0d49dc29787c08d13febbed5b2da81a18c2ddcd8a90070cd3b43c44b2",
    ),
}


def save_maia2(
    directory: Path,
    model: Maia2,
    about: Mapping[str, Any],
    curve: pl.DataFrame | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model's folder: its shape and what is known of it, its weights, and how its training
    went.

    Args:
        directory: appears whole or not at all.
        model: to save.
        about: where it comes from.
        curve: of its training here.
        dtype: of the weights in the file.
    """
    counts = {"num_batches_tracked"}
    weights = {
        name: (tensor if name.rpartition(".")[2] in counts else tensor.to(dtype))
        .contiguous()
        .clone()
        for name, tensor in model.state_dict().items()
    }
    with atomic(directory) as temporary:
        temporary.mkdir(parents=True)
        save_file(weights, temporary / WEIGHTS)
        if curve is not None:
            curve.write_parquet(temporary / CURVE)
        write_sealed_json(temporary / CONFIG, {"shape": model.shape.model_dump(), **about})


def load_maia2(directory: Path, device: str = "cpu") -> Maia2:
    """Read a model's folder.

    Returns:
        The model in float32, in evaluation mode and without gradients.

    Raises:
        SaeflowError: a file is absent or damaged, or they do not belong together.
    """
    directory = Path(directory)
    check_checksums(
        directory / CHECKSUMS, also=[directory.with_name(f"{directory.name}.{CHECKSUMS}")]
    )
    try:
        shape = ChessModel.model_validate(read_object(directory / CONFIG)["shape"])
        weights = load_file(directory / WEIGHTS)
    except (KeyError, TypeError, ValidationError, FileNotFoundError, SafetensorError) as error:
        raise SaeflowError(
            f"{directory}: is no folder of a chess model ({str(error).splitlines()[0]})"
        ) from None
    return _with_weights(shape, weights, str(directory)).to(device)


def embedded_maia2() -> Path:
    """The folder of the small model that comes with saeflow."""
    return Path(str(resources.files("saeflow.chess.player") / EMBEDDED))


def import_checkpoint(path: Path, shape: ChessModel) -> Maia2:
    """Read an official checkpoint, strictly: every parameter must be there, and no other.

    Args:
        path: a .pt file with the weights, or a mapping that holds them as ``model_state_dict``;
            names may begin with ``module.`` as data-parallel training leaves them. Nothing in the
            file is executed.
        shape: of the model; the official ones have the defaults.

    Raises:
        SaeflowError: there is no such file, it holds something else than tensors, or other tensors
            than the shape asks.
    """
    path = Path(path)
    if not path.is_file():
        raise SaeflowError(f"{path}: no such file; check model.path")
    try:
        held = read_pickle(path)
    except (RuntimeError, EOFError, ValueError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()[:12]) or "it is empty"
        raise SaeflowError(f"{path}: is no checkpoint of weights alone ({reason})") from None
    if not isinstance(held, dict):
        raise SaeflowError(f"{path}: holds a {type(held).__name__}, not weights by name")
    weights = held.get("model_state_dict", held)
    if not isinstance(weights, dict) or not all(
        isinstance(tensor, Tensor) for tensor in weights.values()
    ):
        raise SaeflowError(
            f"{path}: is no checkpoint of weights alone (not all of its values are tensors)"
        )
    return _with_weights(
        shape, {name.removeprefix("module."): tensor for name, tensor in weights.items()}, str(path)
    )


def _with_weights(shape: ChessModel, weights: Mapping[str, Tensor], where: str) -> Maia2:
    model = Maia2(shape)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    held = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected | held, key=lambda name: (name in expected) + (name in held)):
        if expected.get(name) != held.get(name):
            raise SaeflowError(
                f"{where}: '{name}' is {held.get(name, 'absent')}, and a model of this shape has "
                f"{expected.get(name, 'no such parameter')}; correct model.shape"
            )
    model.load_state_dict(dict(weights), strict=True)
    return model.float().eval().requires_grad_(False)


def fetch_checkpoint(name: str, path: Path) -> None:
    """Fetch an official checkpoint, whose checksum must be the recorded one.

    Args:
        name: of `PUBLISHED`.
        path: where the file is put.

    Raises:
        SaeflowError: there is no network, or the file is not the published one.
    """
    published = PUBLISHED[name]
    with atomic(path) as temporary:
        try:
            with urlopen(published.url, timeout=60) as answer, temporary.open("wb") as file:
                shutil.copyfileobj(answer, file)
        except (URLError, HTTPException, TimeoutError) as error:
            raise SaeflowError(
                f"chess: the {name} checkpoint of Maia-2 cannot be fetched ({error}); fetch "
                f"{published.url} by other means and set model.path"
            ) from None
        if (checksum := sha256(temporary)) != published.sha256:
            raise SaeflowError(
                f"chess: what was fetched as Maia-2's {name} checkpoint has the checksum "
                f"{checksum}, not {published.sha256}; fetch it by other means and set model.path"
            )
