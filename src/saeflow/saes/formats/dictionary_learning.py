"""Folders of the library dictionary_learning: ``ae.pt``, the state dict of one of its classes, and
``config.json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saeflow.artifacts import read_json, write_json
from saeflow.config.sae_files import NOTHING, Given, count_in
from saeflow.errors import SaeflowError
from saeflow.saes.formats.crosscoder_learning import CLASSES as CROSSCODERS
from saeflow.saes.formats.crosscoder_learning import NORMALISERS, normaliser
from saeflow.saes.formats.folding import Weights, finished, fold_input_bias, without_input_bias
from saeflow.saes.formats.tensors import (
    check_widths,
    checked,
    read_named,
    shape_of,
    tell_others,
    write_tensors,
)
from saeflow.saes.named_places import of_dictionary_learning
from saeflow.saes.sae import SAE

Shapes = dict[str, tuple[int, ...]]


class DictionaryClass(NamedTuple):
    """One class of the library.

    Attributes:
        architecture: what it is here.
        encoder: the tensor that tells the widths.
        names: its tensors, and what they are here; one that ends in ``weight`` lies the other way
            round.
        subtracts: it subtracts the decoder's bias from its input.
        scalars: its tensors of one number.
    """

    architecture: str
    encoder: str
    names: dict[str, str]
    subtracts: bool
    scalars: tuple[str, ...] = ()


_LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec"}
_PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
_GATED = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "decoder_bias": "b_dec"}
_OWN = {"r_mag": "r_mag", "gate_bias": "b_gate", "mag_bias": "b_mag"}
_TOP_K = DictionaryClass("topk", "encoder.weight", {**_LINEAR, "b_dec": "b_dec"}, True, ("k",))

CLASSES = {
    "AutoEncoder": DictionaryClass(
        "standard", "encoder.weight", {**_LINEAR, "bias": "b_dec"}, True
    ),
    "AutoEncoderNew": DictionaryClass(
        "standard", "encoder.weight", {**_LINEAR, "decoder.bias": "b_dec"}, False
    ),
    "GatedAutoEncoder": DictionaryClass("gated", "encoder.weight", {**_GATED, **_OWN}, True),
    "JumpReluAutoEncoder": DictionaryClass(
        "jumprelu", "W_enc", {**_PLAIN, "threshold": "threshold"}, False
    ),
    "AutoEncoderTopK": _TOP_K,
    # The library itself encodes with the running threshold of training, not by the batch.
    "BatchTopKSAE": _TOP_K._replace(architecture="jumprelu", scalars=("threshold",)),
    "MatryoshkaBatchTopKSAE": DictionaryClass("jumprelu", "W_enc", _PLAIN, True, ("threshold",)),
}


HEEDED = frozenset({"k", "threshold"})


def load(directory: Path, given: Given = NOTHING) -> SAE:
    """Read an SAE as the library's own `encode` has it by default.

    Raises:
        SaeflowError: a file is absent or damaged, a shape is wrong, a weight is not finite, or the
            class is not known here.
    """
    config = _config(directory)
    trainer = config["trainer"]
    if trainer.get("dict_class") in CROSSCODERS:
        raise SaeflowError(
            f"{directory}: is a crosscoder ({trainer['dict_class']}), which reads several sources "
            "at once; say which (saes.<name>.hooks or saes.<name>.models)"
        )
    path = directory / "ae.pt"
    tensors = read_named(path)
    kind = _class(directory, trainer, tensors)
    first, second = shape_of(path, tensors, kind.encoder)
    d_sae, d_model = (first, second) if kind.encoder.endswith("weight") else (second, first)
    check_widths(directory, trainer, {"activation_dim": d_model, "dict_size": d_sae})
    for name in kind.scalars:  # a row of one number is one
        if name in tensors and tensors[name].numel() == 1:
            tensors[name] = tensors[name].reshape(())
    # Before December 2024 the library kept k in the config alone.
    if "k" in kind.scalars and "k" not in tensors:
        k = trainer.get("k", given.k)
        if k is None:
            raise SaeflowError(f"{path}: does not say its k; give it (saes.<name>.k)")
        tensors["k"] = torch.tensor(count_in({"k": k}, "k"))
    elif "k" in kind.scalars and trainer.get("k") not in (None, kept_k := float(tensors["k"])):
        raise SaeflowError(
            f"{path}: says that k is {kept_k:g}, and config.json that it is {trainer['k']}; get "
            "the two that belong together"
        )
    if given.k is not None and kind.architecture in ("standard", "gated"):
        raise SaeflowError(f"{path}: is no TopK SAE; remove k (saes.<name>.k)")
    if given.k is not None and int(tensors.get("k", trainer.get("k", given.k))) != given.k:
        raise SaeflowError(f"{path}: says another k itself; remove k (saes.<name>.k)")
    if "threshold" in kind.scalars and "threshold" not in tensors:
        if given.threshold is None:
            raise SaeflowError(
                f"{path}: has no threshold, without which BatchTopK chooses among a whole batch, "
                "so that latents depend on the rows beside; measure one with its library and give "
                "it (saes.<name>.threshold)"
            )
        tensors["threshold"] = torch.tensor(given.threshold)
    elif given.threshold is not None:
        raise SaeflowError(
            f"{path}: has a threshold of its own or none; remove threshold (saes.<name>.threshold)"
        )
    kept = checked(path, tensors, shapes := _shapes(kind, d_model, d_sae))
    tell_others(path, tensors.keys() - shapes.keys() - set(NORMALISERS), tensors)
    weights: Weights = {
        ours: kept[theirs].T if theirs.endswith("weight") else kept[theirs]
        for theirs, ours in kind.names.items()
    }
    weights.setdefault("b_enc", torch.zeros(d_sae, dtype=torch.float64))
    if kind.subtracts:
        fold_input_bias(weights, weights["b_dec"])
    if (normal := normaliser(path, tensors, (d_model,))) is not None:  # of crosscoder_learning
        mean, read, _ = normal
        weights["W_enc"] = weights["W_enc"] * read[:, None]
        fold_input_bias(weights, mean)
        weights["W_dec"] = (weights["W_dec"] / read).float()
        weights["b_dec"] = weights["b_dec"] / read + mean
    if "threshold" in kind.scalars:  # below zero: none was learned, and all positive values count
        weights["threshold"] = kept["threshold"].clamp(min=0).expand(d_sae)
    k = int(kept["k"]) if kind.architecture == "topk" else None
    if k is not None and not 0 < k <= d_sae:
        raise SaeflowError(f"{path}: asks for {k} of {d_sae} latents; get it again")
    return finished(
        kind.architecture, weights, of_dictionary_learning(directory), k, free_rows=k is None
    )


def _config(directory: Path) -> dict[str, Any]:
    config = read_json(directory / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("trainer"), dict):
        raise SaeflowError(
            f"{directory}: config.json has no section 'trainer'; it is no folder of "
            "dictionary_learning"
        )
    return config


def _class(directory: Path, trainer: dict[str, Any], tensors: dict[str, Tensor]) -> DictionaryClass:
    """By its name; where the config does not say it, the one class whose tensors these are."""
    name = trainer.get("dict_class")
    if name in CLASSES:
        return CLASSES[name]
    if name is None:
        ranks = {name: tensor.ndim for name, tensor in tensors.items()}
        fitting = [
            kind
            for kind in CLASSES.values()
            if {name: len(shape) for name, shape in _shapes(kind, 1, 1).items()}.items()
            <= ranks.items()
        ]
        fullest = max((len(kind.names) for kind in fitting), default=0)
        fitting = [kind for kind in fitting if len(kind.names) == fullest]
        if len(fitting) == 1:
            return fitting[0]
    what = "its dict_class is not told, by config nor by tensors"
    if name:
        what = f"dict_class '{name}' is not known here"
    raise SaeflowError(f"{directory}: {what}; known are {', '.join(CLASSES)}")


def _shapes(kind: DictionaryClass, d_model: int, d_sae: int) -> Shapes:
    of_ours = {"W_enc": (d_model, d_sae), "W_dec": (d_sae, d_model), "b_dec": (d_model,)}
    shapes: Shapes = dict.fromkeys(kind.scalars, ())
    for theirs, ours in kind.names.items():
        shape = of_ours.get(ours, (d_sae,))
        shapes[theirs] = shape[::-1] if theirs.endswith("weight") else shape
    return shapes


def _matrices(sae: SAE) -> dict[str, Tensor]:
    return {"encoder.weight": sae.W_enc.T, "decoder.weight": sae.W_dec.T}


def _as_auto_encoder(sae: SAE) -> dict[str, Tensor]:
    return {"bias": sae.b_dec, "encoder.bias": without_input_bias(sae), **_matrices(sae)}


def _as_gated(sae: SAE) -> dict[str, Tensor]:
    assert sae.r_mag is not None
    assert sae.b_gate is not None
    assert sae.b_mag is not None
    shared = without_input_bias(sae)
    return {
        **_matrices(sae),
        "decoder_bias": sae.b_dec,
        "r_mag": sae.r_mag,
        "gate_bias": sae.b_gate + shared,
        "mag_bias": sae.b_mag + shared * sae.r_mag.exp(),
    }


def _as_jumprelu(sae: SAE) -> dict[str, Tensor]:
    assert sae.threshold is not None
    return {name: getattr(sae, name) for name in CLASSES["JumpReluAutoEncoder"].names}


def _as_top_k(sae: SAE) -> dict[str, Tensor]:
    return {
        "k": torch.tensor(sae.k, dtype=torch.int32),
        "threshold": torch.tensor(-1.0),
        "encoder.bias": without_input_bias(sae),
        **_matrices(sae),
        "b_dec": sae.b_dec,
    }


_WRITTEN: dict[str, tuple[str, Callable[[SAE], dict[str, Tensor]]]] = {
    "standard": ("AutoEncoder", _as_auto_encoder),
    "gated": ("GatedAutoEncoder", _as_gated),
    "jumprelu": ("JumpReluAutoEncoder", _as_jumprelu),
    "topk": ("AutoEncoderTopK", _as_top_k),
}


def save(directory: Path, sae: SAE) -> None:
    """Write an SAE for the library's `load_dictionary`.

    Raises:
        SaeflowError: it is a transcoder, which the format cannot hold.
    """
    if sae.is_transcoder:
        raise SaeflowError(
            f"{directory}: dictionary_learning's format holds no transcoders; use saelens"
        )
    name, tensors = _WRITTEN[sae.architecture]
    write_tensors(directory / "ae.pt", tensors(sae))
    trainer = {
        "dict_class": name,
        "activation_dim": sae.d_model,
        "dict_size": sae.d_sae,
        "lm_name": sae.metadata.get("model_name"),
        "submodule_name": sae.metadata.get("hook_name"),
    }
    trainer |= {} if sae.k is None else {"k": sae.k}
    write_json(directory / "config.json", {"trainer": trainer, "buffer": {}})
