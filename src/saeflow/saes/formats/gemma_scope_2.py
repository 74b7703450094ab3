"""Gemma Scope 2: ``params.safetensors``, a JumpReLU SAE or transcoder, and for most of them
``config.json``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from saeflow.artifacts import read_json
from saeflow.config.sae_files import NOTHING, Given
from saeflow.errors import SaeflowError
from saeflow.saes.formats.folding import finished
from saeflow.saes.formats.gemma_scope import jumprelu_weights
from saeflow.saes.formats.tensors import checked, read_named
from saeflow.saes.sae import SAE

_PLACES = {
    "resid_post": ("output",),
    "attn_out": ("self_attn.o_proj.input",),
    "mlp_out": ("post_feedforward_layernorm.output",),
    "transcoder": ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
}
"""The modules at which the SAEs of a folder read, and at which transcoders write."""


def load(directory: Path, _: Given = NOTHING) -> SAE:
    """Read an SAE, or a transcoder with or without its affine connection past the latents.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, the
            activation function is not JumpReLU, or the decoder writes many layers.
    """
    path = directory / "params.safetensors"
    metadata = _metadata(directory / "config.json")
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
    return finished("jumprelu", weights, metadata)


def _metadata(path: Path) -> dict[str, Any]:
    """What the config says of model and hooks; without one, what the folder's name tells."""
    if not path.exists():
        return _named_place(path.parent.resolve())
    config = read_json(path)
    function = config.get("architecture")
    if function != "jump_relu":
        raise SaeflowError(
            f"{path}: architecture '{function}' is not known here; known is jump_relu"
        )
    named = {
        "model_name": config.get("model_name"),
        "hf_hook_name": config.get("hf_hook_point_in"),
        "hf_hook_name_out": config.get("hf_hook_point_out"),
    }
    if named["hf_hook_name_out"] == named["hf_hook_name"]:
        del named["hf_hook_name_out"]
    return {name: value for name, value in named.items() if value is not None}


def _named_place(directory: Path) -> dict[str, Any]:
    """As published: ``resid_post_all/layer_12_width_16k_l0_small``."""
    layer = re.match(r"layer_(\d+)_", directory.name)
    kind = next((kind for kind in _PLACES if directory.parent.name.startswith(kind)), None)
    if not layer or not kind:
        return {}
    names = zip(("hf_hook_name", "hf_hook_name_out"), _PLACES[kind], strict=False)
    return {name: f"model.layers.{layer[1]}.{place}" for name, place in names}
