"""Folders of the library sparsify: ``cfg.json`` and ``sae.safetensors``, SAEs and transcoders with
TopK.

Source: Gao et al. 2024, arXiv 2406.04093, as sparsify implements it: latents are ranked by their
values, not by what they write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeflow.artifacts import read_json, write_json
from saeflow.config.sae_files import NOTHING, Given, count_in, latents_of
from saeflow.errors import SaeflowError
from saeflow.saes.formats.folding import finished, fold_input_bias, without_input_bias
from saeflow.saes.formats.tensors import checked, read_named, tell_others, write_tensors
from saeflow.saes.named_places import of_sparsify
from saeflow.saes.sae import SAE

_NAMES = {
    "encoder.weight": "W_enc",
    "encoder.bias": "b_enc",
    "W_dec": "W_dec",
    "b_dec": "b_dec",
    "W_skip": "W_skip",
}


def load(directory: Path, _: Given = NOTHING) -> SAE:
    """Read an SAE; decoder rows stay as they are, since other norms would be other ranks.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, or the
            activation function is not TopK.
    """
    config = read_json(directory / "cfg.json")
    _check_function(directory, config)
    d_model, d_sae, k = (
        count_in(config, "d_in"),
        latents_of(directory, "sparsify"),
        count_in(config, "k"),
    )
    if not 0 < k <= d_sae:
        raise SaeflowError(f"{directory}: cfg.json asks for {k} of {d_sae} latents; correct it")
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (d_sae, d_model),
        "encoder.bias": (d_sae,),
        "W_dec": (d_sae, d_model),
        "b_dec": (d_model,),
    }
    if config.get("skip_connection", False):
        shapes["W_skip"] = (d_model, d_model)
    tensors = read_named(directory / "sae.safetensors")
    kept = checked(directory, tensors, shapes)
    tell_others(directory, tensors.keys() - shapes.keys(), tensors)
    weights = {_NAMES[name]: tensor for name, tensor in kept.items()}
    weights["W_enc"] = weights["W_enc"].T
    if not config.get("transcode", False):
        fold_input_bias(weights, weights["b_dec"])
    return finished("topk", weights, of_sparsify(directory), k, free_rows=False)


def _check_function(directory: Path, config: Any) -> None:
    if not isinstance(config, dict) or not {"d_in", "k"} <= config.keys():
        raise SaeflowError(f"{directory}: cfg.json lacks d_in or k; it is no folder of sparsify")
    function = config.get("activation", "topk")
    if function != "topk" or config.get("signed", False):
        named = f"signed {function}" if config.get("signed", False) else function
        raise SaeflowError(
            f"{directory}: activation function '{named}' is not known here; known is topk"
        )


def save(directory: Path, sae: SAE) -> None:
    """Write an SAE or a transcoder with TopK.

    Raises:
        SaeflowError: the format cannot hold this architecture.
    """
    if sae.architecture != "topk":
        raise SaeflowError(
            f"{directory}: sparsify's format holds TopK alone, not '{sae.architecture}'; use "
            "saelens"
        )
    if sae.d_out != sae.d_model:
        raise SaeflowError(
            f"{directory}: sparsify's format holds transcoders between equal widths, not "
            f"{sae.d_model} and {sae.d_out}; use saelens"
        )
    bias = sae.b_enc if sae.is_transcoder else without_input_bias(sae)
    tensors = {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": bias,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    tensors |= {} if sae.W_skip is None else {"W_skip": sae.W_skip}
    write_tensors(directory / "sae.safetensors", tensors)
    config = {
        "activation": "topk",
        "d_in": sae.d_model,
        "expansion_factor": max(1, sae.d_sae // sae.d_model),
        "k": sae.k,
        "multi_topk": False,
        "normalize_decoder": True,
        "num_latents": sae.d_sae,
        "skip_connection": sae.W_skip is not None,
        "transcode": sae.is_transcoder,
    }
    write_json(directory / "cfg.json", config)
