"""Llama Scope and what its library (lm-saes, now llamascopium) writes.

As published first: ``hyperparams.json`` and ``checkpoints/final.safetensors``; since 2025:
``config.json`` and ``sae_weights.safetensors``. Both were trained on activations with mean norm
√d_model ("dataset-wise").

Source: He et al. 2024, arXiv 2410.20526, and the library's own reader.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saeflow.artifacts import read_json
from saeflow.config.sae_files import count_in, llama_scope_config, llama_scope_latents
from saeflow.errors import SaeflowError
from saeflow.saes.formats.folding import (
    Weights,
    finished,
    fold_decoder_norms,
    fold_input_bias,
    fold_scales,
)
from saeflow.saes.formats.tensors import SCALER, checked, scale_beside
from saeflow.saes.sae import SAE
from saeflow.tensors import read_tensors

_ARCHITECTURES = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu"}
# The library's names for `W_enc`, `b_enc`, `W_dec` and `b_dec`, and whether the matrices lie the
# other way round.
_NAMES = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
_NAMES_SINCE_2025 = ("W_E", "b_E", "W_D", "b_D")
_LOG_THRESHOLDS = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")


def load(directory: Path) -> SAE:
    """Read an SAE or a transcoder with its normalisation folded.

    Where ``sparsity_include_decoder_norm`` is set, latents are chosen by what they write: threshold
    and ranks hold for values times decoder norms. A scalar threshold holds for raw activations, as
    the library's first reader has it; a trained threshold per latent holds for normalised ones.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, or the
            activation function or the normalisation is not known here.
    """
    config = read_json(llama_scope_config(directory))
    architecture = _architecture(directory, config)
    files = ("sae_weights.safetensors", "checkpoints/final.safetensors")
    paths = [directory / name for name in files]
    path = next((path for path in paths if path.is_file()), paths[-1])
    tensors = read_tensors(path)
    weights = _weights(path, tensors, config)
    by_contribution = bool(config.get("sparsity_include_decoder_norm", True))
    d_sae, jumps = len(weights["b_enc"]), architecture == "jumprelu"
    trained = _trained_threshold(path, tensors, d_sae) if jumps else None
    if trained is not None:
        if by_contribution:
            fold_decoder_norms(weights)
        weights["threshold"] = trained
    fold_scales(weights, *_scales(directory, config, tensors))
    if config.get("apply_decoder_bias_to_pre_encoder", False):
        fold_input_bias(weights, weights["b_dec"])
    if by_contribution:
        fold_decoder_norms(weights)
    if jumps and trained is None:
        measured = _measured_threshold(directory, config)
        weights["threshold"] = torch.full_like(weights["b_enc"], measured)
    k = count_in(config, "top_k") if architecture == "topk" else None
    free = by_contribution or k is None
    return finished(architecture, weights, _metadata(config), k, free_rows=free)


def _architecture(directory: Path, config: Any) -> str:
    if not isinstance(config, dict) or not {"d_model", "act_fn", "hook_point_in"} <= config.keys():
        raise SaeflowError(
            f"{directory}: its config lacks d_model, act_fn or hook_point_in; it is not Llama Scope"
        )
    kind, function = config.get("sae_type", "sae"), str(config["act_fn"]).lower()
    if kind != "sae":
        raise SaeflowError(
            f"{directory}: is a '{kind}', which is not known here; known are SAEs and transcoders"
        )
    if config.get("use_glu_encoder", False):
        raise SaeflowError(
            f"{directory}: has an encoder with a gated linear unit, which is not known here"
        )
    if function not in _ARCHITECTURES:
        raise SaeflowError(
            f"{directory}: activation function '{function}' is not known here; known are "
            f"{', '.join(_ARCHITECTURES)}"
        )
    # The library's first reader takes a threshold that was measured after training over the ranks
    # it was trained with.
    if function == "topk" and (config.get("jump_relu_threshold") or 0) > 0:
        return "jumprelu"
    if function == "topk" and not 0 < int(config.get("top_k", 0)) <= llama_scope_latents(config):
        raise SaeflowError(f"{directory}: its config has no usable top_k; correct it")
    return _ARCHITECTURES[function]


def _weights(path: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Weights:
    d_model, d_sae = count_in(config, "d_model"), llama_scope_latents(config)
    transposed = "W_E" not in tensors
    names = _NAMES if transposed else _NAMES_SINCE_2025
    shapes = ((d_model, d_sae), (d_sae,), (d_sae, d_model), (d_model,))
    wanted = {
        name: shape[::-1] if transposed else shape
        for name, shape in zip(names, shapes, strict=True)
    }
    if not config.get("use_decoder_bias", True):
        del wanted[names[3]]
    kept = checked(path, tensors, wanted)
    ours = zip(names, ("W_enc", "b_enc", "W_dec", "b_dec"), strict=True)
    weights = {our: kept[name] for name, our in ours if name in kept}
    if transposed:
        weights |= {"W_enc": weights["W_enc"].T, "W_dec": weights["W_dec"].T}
    weights.setdefault("b_dec", torch.zeros(d_model, dtype=torch.float64))
    return weights


def _trained_threshold(path: Path, tensors: dict[str, Tensor], d_sae: int) -> Tensor | None:
    for name in _LOG_THRESHOLDS:
        if name in tensors:
            return checked(path, tensors, {name: (d_sae,)})[name].exp()
    return None


def _measured_threshold(directory: Path, config: dict[str, Any]) -> float:
    threshold = config.get("jump_relu_threshold")
    if not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise SaeflowError(
            f"{directory}: says no threshold for its activation function 'jumprelu'; get it again"
        )
    return float(threshold)


def _scales(
    directory: Path, config: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[float, float]:
    """What the activations that are read and written were multiplied by."""
    normalisation = config.get("norm_activation", "inference")
    if normalisation == "inference":
        return 1.0, 1.0
    if normalisation != "dataset-wise":
        raise SaeflowError(
            f"{directory}: normalises its input ('{normalisation}') in a way that no weights can "
            "stand for; choose an SAE that was trained with 'dataset-wise'"
        )
    if scale := scale_beside(directory):
        return scale, scale
    hooks = config["hook_point_in"], config.get("hook_point_out", config["hook_point_in"])
    in_config = config.get("dataset_average_activation_norm") or {}
    norms = []
    for side, hook in zip(("in", "out"), hooks, strict=True):
        beside = tensors.get(f"dataset_average_activation_norm.{hook}")
        measured = math.nan if beside is None else float(beside)
        norm = in_config.get(side, in_config.get(hook, measured))
        if not 0 < norm < math.inf:
            raise SaeflowError(
                f"{directory}: does not say the mean norm of activations at {hook}; write √d_model "
                f'over it beside the weights as {{"scaling_factor": …}} into {SCALER}, or get it '
                "again"
            )
        norms.append(norm)
    return math.sqrt(config["d_model"]) / norms[0], math.sqrt(config["d_model"]) / norms[1]


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    read, written = config["hook_point_in"], config.get("hook_point_out", config["hook_point_in"])
    return {"hook_name": read} | ({"hook_name_out": written} if written != read else {})
