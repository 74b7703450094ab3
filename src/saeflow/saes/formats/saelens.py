"""Folders in the layout of SAELens 6, which is also this library's own: ``cfg.json``,
``sae_weights.safetensors``.

Folders from before version 6 are read, too; `saeflow.saes.formats.saelens_before_6` puts their
config in its words.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saeflow.artifacts import read_json, write_json
from saeflow.config.sae_files import NOTHING, Given, count_in
from saeflow.errors import SaeflowError
from saeflow.saes.formats.crosscoder import ARCHITECTURE as CROSSCODER
from saeflow.saes.formats.folding import (
    Weights,
    finished,
    fold_decoder_norms,
    fold_input_bias,
    fold_scales,
    for_uncentred,
)
from saeflow.saes.formats.saelens_before_6 import modern
from saeflow.saes.formats.saelens_training import trained_centred
from saeflow.saes.formats.tensors import (
    SCALER,
    checked,
    read_named,
    scale_beside,
    tell_others,
    write_tensors,
)
from saeflow.saes.sae import INFERENCE_ARCHITECTURES, PER_TOKEN, SAE, tensors_of
from saeflow.seals import sealed_json, unsealed_json

LAYOUT_VERSION = "6.0.0"  # of SAELens; a reader takes its path for older files below this
HEEDED = frozenset({"k", "scale", "normalize_activations"})
_OF_LATENTS = {"jumprelu": ("threshold",), "gated": ("r_mag", "b_gate", "b_mag")}


class Kind(NamedTuple):
    """What a name of an architecture in ``cfg.json`` says."""

    architecture: str
    transcoder: bool = False
    skip: bool = False
    one_threshold: bool = False


def _transcoder_name(architecture: str, skip: bool) -> str:
    base = "" if architecture == "standard" else f"{architecture}_"
    return f"{base}skip_transcoder" if skip else f"{base}transcoder"


# SAELens knows no transcoder with TopK or a gate; they have names of their own, so that it refuses
# them.
KINDS = {
    **{name: Kind(name) for name in INFERENCE_ARCHITECTURES},
    **{
        _transcoder_name(name, skip): Kind(name, transcoder=True, skip=skip)
        for name in INFERENCE_ARCHITECTURES
        for skip in (False, True)
    },
    # A training that was saved as it is: one running threshold stands for the choice among the
    # batch's latents.
    "batchtopk": Kind("jumprelu", one_threshold=True),
    "matryoshka_batchtopk": Kind("jumprelu", one_threshold=True),
}


def save(directory: Path, sae: SAE) -> None:
    """Write an SAE; SAELens 6 and other readers of its layout load it as it is.

    The weights come first and ``cfg.json`` last, so a folder with a ``cfg.json`` is whole.
    """
    tensors = dict(tensors_of(sae))
    if sae.r_mag is not None and sae.b_gate is not None and sae.b_mag is not None:
        shared = tensors.pop("b_enc")
        tensors |= {"b_gate": sae.b_gate + shared, "b_mag": sae.b_mag + shared * sae.r_mag.exp()}
    write_tensors(directory / "sae_weights.safetensors", tensors)
    write_json(directory / "cfg.json", sealed_json(_config(sae), within="metadata"))


def _config(sae: SAE) -> dict[str, Any]:
    name = sae.architecture
    if sae.is_transcoder:
        name = _transcoder_name(name, sae.W_skip is not None)
    heads = str(sae.metadata.get("hook_name", "")).endswith("hook_z")
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": sae.per_token or "none",
        "reshape_activations": "hook_z" if heads and not sae.is_transcoder else "none",
        "metadata": {
            **sae.metadata,
            "sae_lens_version": LAYOUT_VERSION,
            "saeflow_version": version("saeflow"),
        },
    }
    if sae.is_transcoder:
        config["d_out"] = sae.d_out
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    return config


def load(directory: Path, given: Given = NOTHING) -> SAE:
    """Read an SAE in fp32 with all scaling folded into its weights.

    Decoder rows are brought to unit norm where that changes no choice of latents (``standard``,
    ``jumprelu``, ``gated``, ``topk`` ranked by rescaled activations); a ``topk`` SAE ranked
    otherwise keeps its rows.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, or the
            SAE is of a kind or normalises its input in a way that is not known here.
    """
    path = directory / "cfg.json"
    config = modern(unsealed_json(path, read_json(path), within="metadata"))
    if given.k is not None and isinstance(config, dict):
        if config.get("k") not in (None, 0, given.k):
            raise SaeflowError(f"{directory}: says itself that k is {config['k']}; correct k")
        config = {**config, "k": given.k}
    kind = _kind(directory, config)
    if given.k is not None and kind.architecture != "topk":
        raise SaeflowError(
            f"{directory}: is no TopK SAE but '{config['architecture']}'; remove k (saes.<name>.k)"
        )
    per_token, scale = _normalisation(directory, config, given)
    weights = _weights(directory, config, kind)
    rescaled = bool(config.get("rescale_acts_by_decoder_norm", False))
    if rescaled and (kind.architecture == "topk" or kind.one_threshold):
        threshold = weights.pop("threshold", None)  # of rescaled activations already
        fold_decoder_norms(weights)
        weights |= {} if threshold is None else {"threshold": threshold}
    if config.get("apply_b_dec_to_input", False):
        fold_input_bias(weights, weights["b_dec"])
    fold_scales(weights, scale, scale)
    k = count_in(config, "k") if kind.architecture == "topk" else None
    free = kind.architecture != "topk" or rescaled
    metadata = config.get("metadata", {})
    sae = finished(kind.architecture, weights, metadata, k, free_rows=free, per_token=per_token)
    return for_uncentred(sae) if trained_centred(directory, sae.metadata) else sae


def _kind(directory: Path, config: Any) -> Kind:
    if not isinstance(config, dict) or not {"architecture", "d_in", "d_sae"} <= config.keys():
        raise SaeflowError(
            f"{directory}: cfg.json lacks architecture, d_in or d_sae; it is not a SAELens 6 "
            "directory"
        )
    if config["architecture"] == CROSSCODER:
        sources = config.get("n_sources")
        raise SaeflowError(
            f"{directory}: is a crosscoder, which reads {sources} sources at once; name an SAE"
        )
    kind = KINDS.get(config["architecture"])
    if not kind:
        raise SaeflowError(
            f"{directory}: architecture '{config['architecture']}' is not known here; known are "
            f"{', '.join(KINDS)}"
        )
    if kind.architecture == "topk" and not 0 < int(config.get("k", 0)) <= int(config["d_sae"]):
        raise SaeflowError(
            f"{directory}: cfg.json has no usable k for architecture 'topk'; correct it"
        )
    if kind.transcoder and config.get("apply_b_dec_to_input", False):
        raise SaeflowError(
            f"{directory}: a transcoder cannot subtract its decoder's bias from its input; correct "
            "it"
        )
    return kind


def _normalisation(
    directory: Path, config: dict[str, Any], given: Given
) -> tuple[str | None, float]:
    """What becomes of every token's activation by itself, and what all are multiplied by; a
    checkpoint of SAELens keeps that beside the weights."""
    normalisation = config.get("normalize_activations") or "none"
    if given.normalize_activations:
        if normalisation not in ("none", given.normalize_activations):
            raise SaeflowError(
                f"{directory}: says itself that normalize_activations is '{normalisation}'; "
                "correct it (saes.<name>.normalize_activations)"
            )
        normalisation = given.normalize_activations
    if normalisation != "expected_average_only_in" and given.scale is not None:
        raise SaeflowError(
            f"{directory}: says that it multiplies its input by nothing ('{normalisation}'); "
            "remove scale (saes.<name>.scale)"
        )
    if normalisation == "none":
        return None, 1.0
    if normalisation in PER_TOKEN:
        return normalisation, 1.0
    if normalisation != "expected_average_only_in":
        raise SaeflowError(
            f"{directory}: normalises its input ('{normalisation}') in a way that is not known "
            "here; fold it into the weights with sae-lens"
        )
    beside = scale_beside(directory)
    if beside and given.scale not in (None, beside):
        raise SaeflowError(f"{directory}: says itself that its scale is {beside}; correct scale")
    scale = beside or given.scale
    if not scale:
        raise SaeflowError(
            f"{directory}: multiplies its input by a number that is not in the file "
            f"('{normalisation}'); give it (saes.<name>.scale), or write it beside it as "
            f'{{"scaling_factor": …}} into {SCALER}'
        )
    return None, scale


def _weights(directory: Path, config: dict[str, Any], kind: Kind) -> Weights:
    d_model, d_sae = count_in(config, "d_in"), count_in(config, "d_sae")
    d_out = count_in({"d_out": d_model, **config}, "d_out") if kind.transcoder else d_model
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d_model, d_sae),
        "W_dec": (d_sae, d_out),
        "b_dec": (d_out,),
    }
    if kind.one_threshold:
        shapes |= {"b_enc": (d_sae,), "topk_threshold": ()}
    else:
        shapes |= {} if kind.architecture == "gated" else {"b_enc": (d_sae,)}
        shapes |= dict.fromkeys(_OF_LATENTS.get(kind.architecture, ()), (d_sae,))
    if kind.skip:
        shapes["W_skip"] = (d_out, d_model)
    tensors = read_named(directory / "sae_weights.safetensors")
    if "log_threshold" in tensors and "threshold" in shapes:  # before version 6
        tensors.setdefault("threshold", tensors.pop("log_threshold").exp())
    # Before version 6: latents times this are decoded. For a time all SAEs had one of ones.
    scaled = "scaling_factor" in tensors and not (tensors["scaling_factor"] == 1).all()
    if scaled and not config.get("finetuning_scaling_factor", False):
        raise SaeflowError(
            f"{directory}: holds a scaling_factor that is not one, and its cfg.json says nothing "
            "of it; set finetuning_scaling_factor there, or get it again"
        )
    if scaled:
        shapes["scaling_factor"] = (d_sae,)
    weights = checked(directory, tensors, shapes)
    tell_others(directory, tensors.keys() - shapes.keys() - {"scaling_factor"}, tensors)
    if scaled:
        weights["W_dec"] = weights["W_dec"] * weights.pop("scaling_factor").float()[:, None]
    if kind.one_threshold:
        weights["threshold"] = weights.pop("topk_threshold").expand(d_sae)
    weights.setdefault("b_enc", torch.zeros(d_sae, dtype=torch.float64))
    return weights
