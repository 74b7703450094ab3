"""SAEs as directories in the layout of SAELens 6: ``cfg.json`` and ``sae_weights.safetensors``."""

from __future__ import annotations

import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saeflow.artifacts import atomic, read_json, write_json
from saeflow.errors import SaeflowError
from saeflow.saes.sae import INFERENCE_ARCHITECTURES, SAE

LAYOUT_VERSION = "6.0.0"  # of SAELens; a reader takes its path for older files below this
_UNIT = 1e-3  # how far a decoder row's norm may lie from 1 and still count as unit


def save_sae(directory: Path, sae: SAE) -> None:
    """Write an SAE; SAELens 6 and other readers of its layout load it as it is.

    The weights come first and ``cfg.json`` last, so a directory with a ``cfg.json`` is whole.
    """
    directory = Path(directory)
    tensors = {name: value for name, value in vars(sae).items() if isinstance(value, Tensor)}
    with atomic(directory / "sae_weights.safetensors") as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    write_json(directory / "cfg.json", _config(sae))


def _config(sae: SAE) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {**sae.metadata, "sae_lens_version": LAYOUT_VERSION, "saeflow_version": version("saeflow")},
    }
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    return config


def load_sae(directory: Path) -> SAE:
    """Read an SAE from a SAELens 6 directory, in fp32, with all scaling folded into its weights.

    Decoder rows are brought to unit norm where that changes no reconstruction (``standard``, ``jumprelu``, ``topk``
    ranked by rescaled activations); a ``topk`` SAE ranked otherwise keeps its rows.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, or the SAE is of a kind
            that is not known here.
    """
    directory = Path(directory)
    config = read_json(directory / "cfg.json")
    _check_config(directory, config)
    try:
        tensors = load_file(directory / "sae_weights.safetensors")
    except (FileNotFoundError, SafetensorError) as error:
        raise SaeflowError(f"{directory}: sae_weights.safetensors cannot be read ({error}); get it again") from None
    _check_tensors(directory, config, tensors)
    weights = {name: tensors[name].double() for name in _shapes(config)}
    if config.get("apply_b_dec_to_input", False):
        weights["b_enc"] -= weights["b_dec"] @ weights["W_enc"]
    norms = weights["W_dec"].norm(dim=1)
    exact = config["architecture"] != "topk" or config.get("rescale_acts_by_decoder_norm", False)
    if exact and ((norms - 1).abs() > _UNIT).any():
        _fold_decoder_norms(weights, norms)
    return SAE(
        architecture=config["architecture"],
        k=config["k"] if config["architecture"] == "topk" else None,
        metadata=config["metadata"],
        **{name: tensor.float() for name, tensor in weights.items()},
    )


def _fold_decoder_norms(weights: dict[str, Tensor], norms: Tensor) -> None:
    norms = torch.where(norms > 0, norms, 1.0)
    weights["W_dec"] /= norms[:, None]
    for name in ("W_enc", "b_enc", "threshold", "b_gate", "b_mag"):
        if name in weights:
            weights[name] *= norms


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d_model, d_sae = int(config["d_in"]), int(config["d_sae"])
    shapes = {"W_enc": (d_model, d_sae), "W_dec": (d_sae, d_model), "b_enc": (d_sae,), "b_dec": (d_model,)}
    own = {"jumprelu": ("threshold",), "gated": ("r_mag", "b_gate", "b_mag")}
    return shapes | dict.fromkeys(own.get(config["architecture"], ()), (d_sae,))


def _check_config(directory: Path, config: dict[str, Any]) -> None:
    if not isinstance(config, dict) or not {"architecture", "d_in", "d_sae"} <= config.keys():
        raise SaeflowError(f"{directory}: cfg.json lacks architecture, d_in or d_sae; it is not a SAELens 6 directory")
    layout = str(config.get("metadata", {}).get("sae_lens_version", "0"))
    if not layout.split(".")[0].isdigit() or int(layout.split(".")[0]) < 6:
        raise SaeflowError(f"{directory}: is in a layout before SAELens 6; load it with sae-lens 6 and save it again")
    if config["architecture"] not in INFERENCE_ARCHITECTURES:
        known = ", ".join(INFERENCE_ARCHITECTURES)
        raise SaeflowError(f"{directory}: architecture '{config['architecture']}' is not known here; known are {known}")
    if config["architecture"] == "topk" and not 0 < int(config.get("k", 0)) <= int(config["d_sae"]):
        raise SaeflowError(f"{directory}: cfg.json has no usable k for architecture 'topk'; correct it")
    normalisation = config.get("normalize_activations", "none")
    if normalisation != "none":
        raise SaeflowError(
            f"{directory}: normalises its input ('{normalisation}') by numbers that are not in the file; "
            "fold them into the weights and save it again"
        )


def _check_tensors(directory: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for name, shape in _shapes(config).items():
        if name not in tensors:
            raise SaeflowError(f"{directory}: has no tensor {name}; get it again")
        if tuple(tensors[name].shape) != shape:
            found = list(tensors[name].shape)
            raise SaeflowError(f"{directory}: {name} has shape {found}, cfg.json says {list(shape)}; get it again")
        if not tensors[name].isfinite().all():
            raise SaeflowError(f"{directory}: {name} holds values that are not finite; get it again")


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write the state of a training atomically.

    Args:
        identity: a hash of everything that the training is determined by.
        state: tensors, numbers, and containers of them.
    """
    with atomic(Path(path)) as temporary:
        torch.save({"identity": identity, "state": state}, temporary)


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The state of the training with this identity, or None where there is none: absent, damaged, or of another one."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return content["state"] if content.get("identity") == identity else None
