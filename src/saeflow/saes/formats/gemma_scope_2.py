"""Gemma Scope 2: ``params.safetensors``, a JumpReLU SAE or transcoder, and for most of them
``config.json``."""

from __future__ import annotations

from pathlib import Path

from saeflow.artifacts import read_json
from saeflow.config.sae_files import NOTHING, Given
from saeflow.errors import SaeflowError
from saeflow.saes.formats.folding import finished
from saeflow.saes.formats.gemma_scope import jumprelu_weights
from saeflow.saes.formats.tensors import checked, read_named
from saeflow.saes.named_places import of_gemma_scope_2
from saeflow.saes.sae import SAE


def load(directory: Path, _: Given = NOTHING) -> SAE:
    """Read an SAE, or a transcoder with or without its affine connection past the latents.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, the
            activation function is not JumpReLU, or the decoder writes many layers.
    """
    path = directory / "params.safetensors"
    _check_function(directory / "config.json")
    tensors = read_named(path)
    if "w_dec" in tensors and tensors["w_dec"].ndim == 3:
        raise SaeflowError(
            f"{path}: is a cross-layer transcoder, which is not known here; choose another"
        )
    weights = jumprelu_weights(path, tensors)
    if "affine_skip_connection" in tensors:
        shape = (len(weights["W_enc"]), len(weights["b_dec"]))
        skip = checked(path, tensors, {"affine_skip_connection": shape})
        weights["W_skip"] = skip["affine_skip_connection"].T
    return finished("jumprelu", weights, of_gemma_scope_2(directory))


def _check_function(path: Path) -> None:
    function = read_json(path).get("architecture") if path.exists() else "jump_relu"
    if function != "jump_relu":
        raise SaeflowError(
            f"{path}: architecture '{function}' is not known here; known is jump_relu"
        )
