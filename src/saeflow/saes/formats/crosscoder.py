"""Crosscoders in this library's own layout: the files of an SAE, with tensors of other shapes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from saeflow.artifacts import read_json, write_json
from saeflow.config.sae_files import count_in
from saeflow.errors import SaeflowError
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.formats.tensors import checked, write_tensors
from saeflow.saes.sae import tensors_of
from saeflow.seals import sealed_json, unsealed_json
from saeflow.tensors import read_tensors

ARCHITECTURE = "crosscoder"
"""What ``cfg.json`` calls it; readers of SAELens' layout refuse that name."""


def save(directory: Path, crosscoder: Crosscoder) -> None:
    """Write a crosscoder; ``cfg.json`` comes last, so a folder that has one is whole."""
    write_tensors(directory / "sae_weights.safetensors", dict(tensors_of(crosscoder)))
    config = {
        "architecture": ARCHITECTURE,
        "activation": "relu" if crosscoder.threshold is None else "jumprelu",
        "n_sources": crosscoder.n_sources,
        "d_in": crosscoder.d_model,
        "d_sae": crosscoder.d_sae,
        "dtype": str(crosscoder.W_enc.dtype).removeprefix("torch."),
        "metadata": {**crosscoder.metadata, "saeflow_version": version("saeflow")},
    }
    write_json(directory / "cfg.json", sealed_json(config, within="metadata"))


def is_crosscoder(directory: Path) -> bool:
    """Whether a folder holds a crosscoder in this layout."""
    path = directory / "cfg.json"
    config = read_json(path) if path.is_file() else None
    return isinstance(config, dict) and config.get("architecture") == ARCHITECTURE


def load(directory: Path) -> Crosscoder:
    """Read a crosscoder, in fp32.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, or it
            is no crosscoder.
    """
    path = directory / "cfg.json"
    config = unsealed_json(path, read_json(path), within="metadata")
    n_sources, d_model, d_sae, jumps = _shape(directory, config)
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (n_sources, d_model, d_sae),
        "W_dec": (d_sae, n_sources, d_model),
        "b_enc": (d_sae,),
        "b_dec": (n_sources, d_model),
        "scale": (n_sources,),
    }
    if jumps:
        shapes["threshold"] = (d_sae,)
    tensors: dict[str, Any] = checked(
        directory, read_tensors(directory / "sae_weights.safetensors"), shapes
    )
    return Crosscoder(
        **{name: tensor.float().contiguous() for name, tensor in tensors.items()},
        metadata=config.get("metadata", {}),
    )


def _shape(directory: Path, config: Any) -> tuple[int, int, int, bool]:
    if not isinstance(config, dict) or config.get("architecture") != ARCHITECTURE:
        raise SaeflowError(
            f"{directory}: cfg.json is not that of a crosscoder; name the folder of one"
        )
    sizes = []
    for name in ("n_sources", "d_in", "d_sae"):
        try:
            sizes.append(count_in(config, name))
        except (KeyError, ValueError):
            raise SaeflowError(
                f"{directory}: cfg.json has no usable {name}; get it again"
            ) from None
    n_sources, d_model, d_sae = sizes
    activation = config.get("activation")
    if activation not in ("relu", "jumprelu"):
        raise SaeflowError(
            f"{directory}: activation '{activation}' is not known here; known are relu and jumprelu"
        )
    return n_sources, d_model, d_sae, activation == "jumprelu"
