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
from saeflow.config.sae_files import (
    NOTHING,
    Given,
    count_in,
    llama_scope_config,
    llama_scope_latents,
)
from saeflow.errors import SaeflowError
from saeflow.saes.formats.folding import (
    Weights,
    finished,
    fold_decoder_norms,
    fold_input_bias,
    fold_scales,
)
from saeflow.saes.formats.tensors import SCALER, checked, read_named, scale_beside
from saeflow.saes.named_places import of_llama_scope
from saeflow.saes.sae import SAE

HEEDED = frozenset({"scale", "threshold"})
_ARCHITECTURES = {
    "relu": "standard",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "batchtopk": "jumprelu",  # with a threshold that stands for the choice among a batch
}
# The library's names for `W_enc`, `b_enc`, `W_dec` and `b_dec`, and whether the matrices lie the
# other way round.
_NAMES = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
_NAMES_SINCE_2025 = ("W_E", "b_E", "W_D", "b_D")
_LOG_THRESHOLDS = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")


def load(directory: Path, given: Given = NOTHING) -> SAE:
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
    path = _file(directory)
    tensors = read_named(path)
    weights = _weights(path, tensors, config)
    by_contribution = bool(config.get("sparsity_include_decoder_norm", True))
    d_sae, jumps = len(weights["b_enc"]), architecture == "jumprelu"
    trained = _trained_threshold(path, tensors, d_sae) if jumps else None
    if given.threshold is not None or str(config["act_fn"]).lower() == "batchtopk":
        trained = _given_threshold(path, trained, d_sae, config, given)
    if trained is not None:
        if by_contribution:
            fold_decoder_norms(weights)
        weights["threshold"] = trained
    fold_scales(weights, *_scales(directory, config, tensors, given))
    if config.get("apply_decoder_bias_to_pre_encoder", False):
        fold_input_bias(weights, weights["b_dec"])
    if by_contribution:
        fold_decoder_norms(weights)
    if jumps and trained is None:
        measured = _measured_threshold(directory, config)
        weights["threshold"] = torch.full_like(weights["b_enc"], measured)
    k = count_in(config, "top_k") if architecture == "topk" else None
    free = by_contribution or k is None
    return finished(architecture, weights, of_llama_scope(directory), k, free_rows=free)


def _file(directory: Path) -> Path:
    for name in ("sae_weights.safetensors", "checkpoints/final.safetensors"):
        if (directory / name).is_file():
            return directory / name
    saved = sorted(directory.glob("checkpoints/*.safetensors"))
    if len(saved) > 1:
        names = ", ".join(path.name for path in saved[:4])
        raise SaeflowError(
            f"{directory}: holds {len(saved)} checkpoints ({names}) and none is final.safetensors; "
            "keep one"
        )
    return saved[0] if saved else directory / "checkpoints" / "final.safetensors"


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


def _given_threshold(
    path: Path, trained: Tensor | None, d_sae: int, config: dict[str, Any], given: Given
) -> Tensor:
    """Of BatchTopK, for the values that the library ranks: of normalised activations, times decoder
    norms where it ranks by contribution."""
    if str(config["act_fn"]).lower() != "batchtopk" or trained is not None:
        raise SaeflowError(f"{path}: says its threshold itself; remove it (saes.<name>.threshold)")
    if given.threshold is None:
        raise SaeflowError(
            f"{path}: its activation function is batchtopk, which chooses among a whole batch, so "
            "that latents depend on the rows beside; measure the least value that it keeps and "
            "give it (saes.<name>.threshold)"
        )
    return torch.full((d_sae,), given.threshold, dtype=torch.float64)


def _measured_threshold(directory: Path, config: dict[str, Any]) -> float:
    threshold = config.get("jump_relu_threshold")
    if not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise SaeflowError(
            f"{directory}: says no threshold for its activation function 'jumprelu'; get it again"
        )
    return float(threshold)


def _scales(
    directory: Path, config: dict[str, Any], tensors: dict[str, Tensor], given: Given
) -> tuple[float, float]:
    """What the activations that are read and written were multiplied by."""
    normalisation = config.get("norm_activation", "inference")
    if normalisation == "inference":
        if given.scale is not None:
            raise SaeflowError(
                f"{directory}: says that its normalisation is in the weights; remove scale "
                "(saes.<name>.scale)"
            )
        return 1.0, 1.0
    if normalisation != "dataset-wise":
        raise SaeflowError(
            f"{directory}: normalises its input ('{normalisation}') in a way that no weights can "
            "stand for; choose an SAE that was trained with 'dataset-wise'"
        )
    beside = scale_beside(directory)
    if beside and given.scale not in (None, beside):
        raise SaeflowError(f"{directory}: says itself that its scale is {beside}; correct scale")
    scale = beside or given.scale
    hooks = config["hook_point_in"], config.get("hook_point_out", config["hook_point_in"])
    in_config = config.get("dataset_average_activation_norm") or {}
    norms = []
    for side, hook in zip(("in", "out"), hooks, strict=True):
        stored = tensors.get(f"dataset_average_activation_norm.{hook}")
        measured = math.nan if stored is None else float(stored)
        norm = in_config.get(side, in_config.get(hook, measured))
        if not 0 < norm < math.inf:
            if scale and hooks[0] == hooks[1]:
                return scale, scale
            if scale:
                raise SaeflowError(
                    f"{directory}: is a transcoder, which reads and writes activations of two "
                    "mean norms; write both into its config, as "
                    '"dataset_average_activation_norm": {"in": …, "out": …}, and remove scale '
                    "(saes.<name>.scale)"
                )
            raise SaeflowError(
                f"{directory}: does not say the mean norm of activations at {hook}; give √d_model "
                "over it (saes.<name>.scale), or write it beside the weights as "
                f'{{"scaling_factor": …}} into {SCALER}'
            )
        norms.append(norm)
    read, written = (math.sqrt(config["d_model"]) / norm for norm in norms)
    if scale and not math.isclose(scale, read, rel_tol=1e-3):
        raise SaeflowError(
            f"{directory}: says itself that activations were multiplied by {read:.6g}, not "
            f"{scale:g}; correct scale (saes.<name>.scale)"
        )
    return read, written
