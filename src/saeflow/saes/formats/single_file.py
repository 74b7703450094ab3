"""SAEs that are one file of tensors: of Qwen-Scope, Goodfire, DeepSeek-R1 (qresearch), OpenAI,
circuit-tracer, Kissane, and of anybody who saved a state dict.

Which tensor is what follows from its name, which way round a matrix lies from the shapes, and what
the SAE computes from the tensors that there are and from settings in the file or beside it.

Sources: the readers that each of them publishes (OpenAI's ``sparse_autoencoder``, circuit-tracer,
SAELens for the others).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saeflow.config.sae_files import NOTHING, Given, count_in, weights_file
from saeflow.config.single_file import STATISTICS, Weights, named_weights, widths
from saeflow.errors import SaeflowError, warn
from saeflow.saes.formats.folding import (
    Weights as Folded,
)
from saeflow.saes.formats.folding import finished, fold_input_bias, fold_scales
from saeflow.saes.formats.tensors import checked
from saeflow.saes.sae import PER_TOKEN, SAE
from saeflow.tensors import read_content

HEEDED = frozenset(Given._fields)
_PLAIN = ("none", "null", "false", "", "no")
# Words for functions that are known here, and for those that are not but have a sentence.
_FUNCTIONS = {
    **dict.fromkeys(
        ("relu", "standard", "vanilla", "autoencoder", "sae", "transcoder"), "standard"
    ),
    **dict.fromkeys(("topk", "top_k", "autoencodertopk", "topksae"), "topk"),
    **dict.fromkeys(("jumprelu", "jump_relu", "jumpreluautoencoder"), "jumprelu"),
    **dict.fromkeys(("batchtopk", "batch_topk", "batchtopksae", "batch_top_k"), "batchtopk"),
    **dict.fromkeys(("gated", "gatedautoencoder"), "gated"),
}
# Words for what computes otherwise with the same tensors.
_REFUSED = (
    *("matching_pursuit", "matchingpursuit", "matchingpursuitsae", "temporal", "temporalsae"),
    *("groupmax", "abstopk", "crosscoder", "clt", "cross_layer_transcoder", "crosslayertranscoder"),
)
NAMES_OF = {"standard": "ReLU", "topk": "TopK", "jumprelu": "JumpReLU", "gated": "a gate"}
_ACTIVATION = ("activation", "activation_fn", "activation_fn_str", "act_fn", "activation_function")
_CLASS = ("architecture", "dict_class", "sae_type")
_K = ("k", "top_k", "topk", "k_active", "n_active")
# OpenAI's names of places, of which the folder's name begins with one.
_OPENAI = {
    "mlp_post_act": "mlp.hook_post",
    "resid_delta_attn": "hook_attn_out",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_post_attn": "hook_resid_mid",
    "resid_post_mlp": "hook_resid_post",
}
_LAYER = re.compile(r"layers?[_.-]?(\d+)|[-_]l(\d+)(?![\w])|_L(\d+)_")
_OF_LATENTS = ("b_enc", "threshold", "log_threshold", "r_mag", "b_gate", "b_mag")
_QWEN_SCOPE = re.compile(r"layer(\d+)\.sae\.\w+")
_CIRCUIT_TRACER = re.compile(r"layer_(\d+)\.safetensors")
_QWEN_FOLDER = re.compile(r"-W\d+K-L0_(\d+)")


class _Function(NamedTuple):
    """What the SAE computes of pre-activations."""

    architecture: str
    k: int | None = None


def load(path: Path, given: Given = NOTHING) -> SAE:
    """Read an SAE or a transcoder from its file, or from the folder that holds it alone.

    Raises:
        SaeflowError: the file is absent or damaged or holds code, tensors do not fit together, what
            the SAE computes is not told or not known here.
    """
    path = weights_file(path)
    read = named_weights(path, read_content(path))
    _check_others(path, read)
    weights = _weights(path, read)
    function = _function(path, read, weights, given)
    per_token, scale = _normalisation(path, read, given)
    metadata = _place(path, read)
    if "b_dec_out" in weights or _subtracts(path, read, given):
        fold_input_bias(weights, weights["b_dec"])
    if _CIRCUIT_TRACER.fullmatch(path.name) and "feature_output_hook" not in read.said:
        warn(
            f"{path}: is named as circuit-tracer's transcoders are, and no config.yaml beside it "
            "says what it writes; give target (saes.<name>.target) if it is one"
        )
    if "b_dec_out" in weights:
        weights["b_dec"] = weights.pop("b_dec_out")
        metadata.setdefault("hf_hook_name_out", "the hook that it writes")
    fold_scales(weights, scale, scale)
    free = function.k is None
    return finished(
        function.architecture, weights, metadata, function.k, free_rows=free, per_token=per_token
    )


def _check_others(path: Path, read: Weights) -> None:
    """Refuse tensors that compute something unknown, and tell of those that are left out."""
    others = {n: t for n, t in read.others.items() if not STATISTICS.fullmatch(n.split(".")[-1])}
    if any(name.startswith("attn_layers.") for name in others):
        raise SaeflowError(
            f"{path}: is a temporal SAE, whose latents depend on the tokens before (attn_layers), "
            "which is not known here; choose another"
        )
    widths(path, read)  # tells what is missing
    if wide := sorted(name for name, tensor in others.items() if tensor.ndim > 1):
        raise SaeflowError(
            f"{path}: holds {', '.join(wide[:4])}, and what an SAE computes with that is not known "
            "here; leave it out, if it is nothing that counts"
        )
    others |= {n: t for n, t in read.beside.items() if t.ndim and not STATISTICS.fullmatch(n)}
    if others:
        warn(f"{path}: {', '.join(sorted(others)[:8])} is left out, as unknown here")
    scaling = read.tensors.pop("scaling_factor", None)
    if scaling is not None and not (scaling == 1).all():
        raise SaeflowError(
            f"{path}: holds a scaling_factor that is not one, which is not known here; get the SAE "
            "without it"
        )


def _weights(path: Path, read: Weights) -> Folded:
    """The tensors checked, with matrices the way round that they have here."""
    d_model, d_sae = widths(path, read)
    tensors, names = dict(read.tensors), read.names
    tensors.pop("k", None)
    tensors["W_enc"] = _turned(path, read, "W_enc", tensors["W_enc"], (d_model, d_sae))
    if "W_dec" in tensors:
        d_out = _written(path, tensors, names, d_model, d_sae)
        tensors["W_dec"] = _turned(path, read, "W_dec", tensors["W_dec"], (d_sae, d_out))
    else:  # one matrix for both
        warn(f"{path}: has no decoder of its own; the encoder's transpose is taken for it")
        d_out, names = d_model, {**names, "W_dec": f"{names['W_enc']} transposed"}
        tensors["W_dec"] = tensors["W_enc"].T
    if "affine" in tensors:
        tensors["W_skip"], names["W_skip"] = tensors.pop("affine").T, names["affine"]
    for name in (*_OF_LATENTS, "b_dec", "b_dec_out"):
        if name in tensors and tensors[name].ndim == 2 and 1 in tensors[name].shape:
            tensors[name] = tensors[name].flatten()  # a row or a column of a matrix
    read_bias = d_model if "b_dec_out" in tensors else d_out
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d_model, d_sae),
        "W_dec": (d_sae, d_out),
        "W_skip": (d_out, d_model),
        "b_dec": (read_bias,),
        "b_dec_out": (d_out,),
        **dict.fromkeys(_OF_LATENTS, (d_sae,)),
    }
    for name in ("threshold", "log_threshold"):
        if name in tensors and tensors[name].numel() == 1:
            tensors[name] = tensors[name].reshape(()).expand(d_sae)
    there = {names[name]: shape for name, shape in shapes.items() if name in tensors}
    kept = checked(path, {names[name]: tensor for name, tensor in tensors.items()}, there)
    weights = {name: kept[names[name]] for name in shapes if name in tensors}
    weights.setdefault("b_enc", torch.zeros(d_sae, dtype=torch.float64))
    weights.setdefault("b_dec", torch.zeros(d_out, dtype=torch.float64))
    if "log_threshold" in weights:
        weights["threshold"] = weights.pop("log_threshold").exp()
    return weights


def _turned(
    path: Path, read: Weights, which: str, matrix: Tensor, shape: tuple[int, int]
) -> Tensor:
    """A matrix that reads from the left: a square one lies as `torch.nn.Linear` keeps it, if it has
    the name that it has there, or as whoever published it keeps all."""
    if shape[0] != shape[1]:
        return matrix if tuple(matrix.shape) == shape else matrix.T
    name = read.names[which]
    if name.lower().endswith("weight") or _QWEN_SCOPE.fullmatch(path.name):
        return matrix.T
    if "feature_input_hook" in read.said:  # of circuit-tracer
        return matrix.T if which == "W_enc" else matrix
    what = "activations" if which == "W_enc" else "latents"
    warn(
        f"{path}: {name} is square, so that its shape does not tell which way round it lies; it is "
        f"read as what {what} are multiplied by from their right ({what} @ {name})"
    )
    return matrix


def _written(
    path: Path, tensors: Mapping[str, Tensor], names: Mapping[str, str], d_model: int, d_sae: int
) -> int:
    """Width of what is written; of a transcoder between widths another than what is read."""
    shape = tuple(tensors["W_dec"].shape)
    if len(shape) == 3:
        raise SaeflowError(
            f"{path}: {names['W_dec']} has shape {list(shape)}: it is a cross-layer transcoder or "
            "a crosscoder, whose latents write many places, which is not known here; choose an SAE "
            "or a transcoder of one layer"
        )
    if len(shape) != 2 or d_sae not in shape:
        raise SaeflowError(
            f"{path}: {names['W_dec']} has shape {list(shape)}, and there are {d_sae} latents; get "
            "it again"
        )
    return shape[1] if shape[0] == d_sae else shape[0]


def _function(path: Path, read: Weights, weights: Folded, given: Given) -> _Function:
    """ReLU, TopK, JumpReLU or a gate, as tensors and settings say, and else as given."""
    function, threshold = _function_of(path, read, weights, given)
    for key, used in (("k", function.k), ("threshold", threshold)):
        if getattr(given, key) is not None and used is None:
            raise SaeflowError(
                f"{path}: is read with {NAMES_OF[function.architecture]}, which has no {key}; "
                f"remove {key} (saes.<name>.{key})"
            )
    if threshold is not None:
        weights["threshold"] = threshold
    return function


def _function_of(
    path: Path, read: Weights, weights: Folded, given: Given
) -> tuple[_Function, Tensor | None]:
    """The function, and the thresholds of JumpReLU."""
    said = _said_function(path, read)
    k = _k(path, read, given)
    threshold = weights.pop("threshold", None)
    if {"r_mag", "b_gate", "b_mag"} <= weights.keys():
        return _Function("gated"), None
    if threshold is not None and (threshold < 0).all():
        threshold = None  # none was learned
    if said == "topk" or (said is None and threshold is None and k is not None):
        if k is None:
            raise SaeflowError(
                f"{path}: is a TopK SAE, and does not say how many latents it keeps; give k "
                "(saes.<name>.k)"
            )
        d_sae = len(weights["b_enc"])
        if k > d_sae:
            warn(f"{path}: keeps {k} of {d_sae} latents, so that all positive ones count")
        return _Function("topk", min(k, d_sae)), None
    if threshold is None and given.threshold is not None:
        threshold = torch.full_like(weights["b_enc"], given.threshold)
    elif given.threshold is not None:
        raise SaeflowError(
            f"{path}: says its thresholds itself; remove threshold (saes.<name>.threshold)"
        )
    if said in ("batchtopk", "jumprelu") and threshold is None:
        raise SaeflowError(
            f"{path}: its activation function is {said}, and it has no threshold; give one "
            "(saes.<name>.threshold)"
        )
    if threshold is None or said == "standard":
        if said is None and not _is_told(read):
            words = [str(read.said[key]) for key in _CLASS if _word(read.said.get(key))]
            named = f", but '{words[0]}'," if words and _word(words[0]) not in _FUNCTIONS else ""
            warn(
                f"{path}: does not say its activation function{named} and is read with ReLU; give "
                "k or threshold (saes.<name>.k, saes.<name>.threshold) if it has another"
            )
        return _Function("standard"), None
    return _Function("jumprelu"), threshold


def _said_function(path: Path, read: Weights) -> str | None:
    """The first function that settings name in words that are known here; None where none does."""
    for key in (*_ACTIVATION, *_CLASS):
        word = _word(read.said.get(key))
        if key in _CLASS and word in _REFUSED:
            raise SaeflowError(
                f"{path}: {key} '{read.said[key]}' is not known here; choose another SAE"
            )
        if word in _FUNCTIONS and (key in _ACTIVATION or _FUNCTIONS[word] != "standard"):
            return _FUNCTIONS[word]
        if key in _ACTIVATION and word not in (*_FUNCTIONS, *_PLAIN):
            raise SaeflowError(
                f"{path}: activation function '{word}' is not known here; known are relu, topk, "
                "batchtopk, jumprelu and a gate"
            )
    return "topk" if _QWEN_SCOPE.fullmatch(path.name) else None


def _is_told(read: Weights) -> bool:
    """Whether names of tensors or settings tell whose SAE it is, where all are with ReLU: of
    Goodfire, OpenAI, dictionary_learning, circuit-tracer, Kissane."""
    names = {"encoder_linear.weight", "pre_bias", "bias"} & set(read.names.values())
    return bool(names) or bool({"feature_input_hook", "act_size"} & read.said.keys())


def _word(said: Any) -> str:
    """A function's bare name: ``torch.nn.ReLU()`` and ``TopK(32)`` have their dots, dashes and
    numbers taken off."""
    word = str(said or "").lower().partition("(")[0].rpartition(".")[2]
    return re.sub(r"[-_ ]?\d*$", "", word).replace("-", "").replace(" ", "")


def _k(path: Path, read: Weights, given: Given) -> int | None:
    """How many latents TopK keeps: in the file, beside it, in its folder's name (``…-L0_50``), or
    given."""
    k = None
    if "k" in read.tensors:
        k = count_in({"k": float(read.tensors["k"])}, "k")
    for name in _K:
        if k is None and read.said.get(name):
            k = count_in(read.said, name)
    for name in _ACTIVATION:  # TopK(32)
        match = re.search(r"topk[-_ (]*(\d+)\)?$", str(read.said.get(name)).lower())
        k = int(match[1]) if k is None and match else k
    if k is None:
        names = reversed(path.absolute().parts[-5:-1])
        k = next((int(m[1]) for part in names if (m := _QWEN_FOLDER.search(part))), None)
    if k is not None and given.k not in (None, k):
        raise SaeflowError(f"{path}: says itself that k is {k}, not {given.k}; correct k")
    return k if given.k is None else given.k


def _normalisation(path: Path, read: Weights, given: Given) -> tuple[str | None, float]:
    """What becomes of every token's activation by itself, and what all are multiplied by."""
    said = read.said.get("normalize_activations", read.said.get("norm_activation", "none"))
    word = str(said).lower()
    if str(read.said.get("activation")) == "TopK" and "pre_bias" in read.names.values():
        word = "layer_norm"  # OpenAI's own reader tells it so
    if read.said.get("input_unit_norm") is True or read.said.get("normalize") is True:
        word = "layer_norm"
    if given.normalize_activations:
        if word not in (*_PLAIN, given.normalize_activations):
            raise SaeflowError(
                f"{path}: says itself that its normalisation is '{word}'; correct "
                "normalize_activations (saes.<name>.normalize_activations)"
            )
        word = given.normalize_activations
    if word in PER_TOKEN:
        if given.scale is not None:
            raise SaeflowError(
                f"{path}: normalises each token's activation ('{word}'); remove scale "
                "(saes.<name>.scale)"
            )
        return word, 1.0
    if word in _PLAIN:
        return None, 1.0 if given.scale is None else given.scale
    if given.scale is None:
        raise SaeflowError(
            f"{path}: normalises its input ('{said}') by a number that it does not say; give what "
            "activations are multiplied by (saes.<name>.scale)"
        )
    return None, given.scale


def _subtracts(path: Path, read: Weights, given: Given) -> bool:
    """Whether the decoder's bias is subtracted from the input.

    OpenAI's ``pre_bias``, dictionary_learning's ``bias`` and the names that its TopK and sparsify
    have in common say so; so do settings in ``…_cfg.json``, as Kissane's and Nanda's code writes
    them, whose reader always does.
    """
    said = read.said.get("apply_b_dec_to_input")
    if given.apply_b_dec_to_input is not None:
        if said is not None and bool(said) is not given.apply_b_dec_to_input:
            raise SaeflowError(
                f"{path}: says itself that apply_b_dec_to_input is {said}; correct it "
                "(saes.<name>.apply_b_dec_to_input)"
            )
        return given.apply_b_dec_to_input
    if said is not None:
        return bool(said)
    names = set(read.names.values())
    linear = {"encoder.weight", "b_dec"} <= names
    gated = {"r_mag", "b_gate", "b_mag"} <= read.tensors.keys()
    theirs = {"act_size", "dict_size"} <= read.said.keys()
    transcoder = bool({"W_skip", "affine"} & read.tensors.keys())
    return not transcoder and (bool({"pre_bias", "bias"} & names) or linear or gated or theirs)


def _place(path: Path, read: Weights) -> dict[str, Any]:
    """Model and hooks, as settings, the file's and its folders' names have them."""
    said = read.said
    metadata: dict[str, Any] = {}
    model = said.get("model_name", said.get("lm_name"))
    if isinstance(model, str):
        metadata["model_name"] = model
    layer = _layer(path, said)
    for ours, keys in (
        (
            "hook_name",
            ("hook_name", "hook_point", "act_name", "hook_point_in", "feature_input_hook"),
        ),
        ("hook_name_out", ("hook_name_out", "hook_point_out", "feature_output_hook")),
    ):
        hook = next((said[key] for key in keys if isinstance(said.get(key), str)), None)
        if hook and not hook.startswith("blocks.") and layer is not None:
            hook = f"blocks.{layer}.{hook}"
        if hook and hook.startswith("blocks."):
            metadata[ours] = hook
    if metadata.get("hook_name_out") == metadata.get("hook_name"):
        metadata.pop("hook_name_out", None)
    if "hook_name" in metadata:
        return metadata
    folders = path.absolute().parts[-4:-1]
    openai = next(
        (place for part in folders for name, place in _OPENAI.items() if part.startswith(name)),
        None,
    )
    if openai and path.stem.isdigit():
        metadata["hook_name"] = f"blocks.{path.stem}.{openai}"
    elif layer is not None and _QWEN_SCOPE.fullmatch(path.name):
        metadata["hook_name"] = f"blocks.{layer}.hook_resid_post"
    elif layer is not None:
        metadata["hf_hook_name"] = f"layer_{layer}"
    return metadata


def _layer(path: Path, said: Mapping[str, Any]) -> int | None:
    for key in ("layer", "hook_layer", "hook_point_layer"):
        if isinstance(said.get(key), int):
            return int(said[key])
    match = _LAYER.search(path.name)
    return int(next(filter(None, match.groups()))) if match else None
