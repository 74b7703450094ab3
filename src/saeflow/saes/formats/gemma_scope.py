"""Gemma Scope: one ``params.npz`` with the weights of a JumpReLU SAE or transcoder, and nothing
else.

Source: Lieberum et al. 2024, arXiv 2408.05147.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from saeflow.config.sae_files import NOTHING, Given
from saeflow.errors import SaeflowError
from saeflow.saes.formats.folding import Weights, finished, fold_scales
from saeflow.saes.formats.tensors import (
    checked,
    read_named,
    shape_of,
    tell_others,
    write_tensors,
)
from saeflow.saes.named_places import EMBEDDING, of_gemma_scope
from saeflow.saes.sae import SAE

_FILE = "params.npz"


def load(directory: Path, _: Given = NOTHING) -> SAE:
    """Read an SAE; the encoder reads the activation as it is.

    Raises:
        SaeflowError: the file is absent or damaged, a shape is wrong, or a weight is not finite.
    """
    path = directory / _FILE
    tensors = read_named(path)
    if "scaling_factor" in tensors and not (tensors["scaling_factor"] == 1).all():
        raise SaeflowError(
            f"{path}: holds a scaling_factor, which is not known here; get the SAE without it"
        )
    weights, metadata = jumprelu_weights(path, tensors), of_gemma_scope(directory)
    tell_others(path, tensors.keys() - weights.keys() - {"scaling_factor"}, tensors)
    if metadata.get("hook_name") == EMBEDDING:
        scale = len(weights["W_enc"]) ** -0.5
        fold_scales(weights, scale, scale)
    return finished("jumprelu", weights, metadata)


def jumprelu_weights(path: Path, tensors: Mapping[str, Tensor]) -> Weights:
    """The five tensors of a JumpReLU SAE or transcoder, checked; the matrices may have lower-case
    names.

    Raises:
        SaeflowError: one is absent, has a wrong shape, or holds a value that is not finite.
    """
    tensors = {name.replace("w_", "W_"): tensor for name, tensor in tensors.items()}
    d_model, d_sae = shape_of(path, tensors, "W_enc")
    d_out = shape_of(path, tensors, "W_dec")[1]
    shapes = {
        "W_enc": (d_model, d_sae),
        "W_dec": (d_sae, d_out),
        "b_enc": (d_sae,),
        "b_dec": (d_out,),
        "threshold": (d_sae,),
    }
    return checked(path, tensors, shapes)


def save(directory: Path, sae: SAE) -> None:
    """Write an SAE; one with ReLU is a JumpReLU SAE with thresholds of zero.

    Raises:
        SaeflowError: the format cannot hold this architecture.
    """
    if sae.architecture not in ("standard", "jumprelu") or sae.W_skip is not None:
        what = (
            "a skip connection" if sae.W_skip is not None else f"architecture '{sae.architecture}'"
        )
        raise SaeflowError(
            f"{directory}: Gemma Scope's format holds JumpReLU and ReLU alone, not {what}; use "
            "saelens"
        )
    threshold = torch.zeros_like(sae.b_enc) if sae.threshold is None else sae.threshold
    tensors = {
        "W_enc": sae.W_enc,
        "W_dec": sae.W_dec,
        "b_enc": sae.b_enc,
        "b_dec": sae.b_dec,
        "threshold": threshold,
    }
    write_tensors(directory / _FILE, {name: tensor.float() for name, tensor in tensors.items()})
