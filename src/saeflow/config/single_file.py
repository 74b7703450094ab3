"""SAEs that are one file of tensors, told by the tensors' names and shapes: nobody's library, and
almost everybody's.

Nothing here reads weights or imports torch: what is looked at are names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import yaml
from safetensors import safe_open

from saeflow.artifacts import json_of, read_json
from saeflow.errors import SaeflowError
from saeflow.tensors import SUFFIXES

# How libraries call a tensor, in small letters and with "_" for every dot.
NAMES: dict[str, tuple[str, ...]] = {
    "W_enc": (
        *("w_enc", "encoder_weight", "encoder_linear_weight", "w_e", "enc_weight", "w_encoder"),
        *("encoder_w", "encoder", "enc", "encoder_kernel", "encoder_0_weight", "enc_w"),
    ),
    "W_dec": (
        *("w_dec", "decoder_weight", "decoder_linear_weight", "w_d", "dec_weight", "w_decoder"),
        *("decoder_w", "decoder", "dec", "decoder_kernel", "decoder_0_weight", "dec_w"),
    ),
    "b_enc": (
        *("b_enc", "encoder_bias", "encoder_linear_bias", "b_e", "enc_bias", "b_encoder"),
        *("encoder_b", "bias_enc", "latent_bias", "encoder_0_bias", "enc_b"),
    ),
    "b_dec": (
        *("b_dec", "decoder_bias", "decoder_linear_bias", "b_d", "dec_bias", "b_decoder"),
        *("decoder_b", "bias_dec", "pre_bias", "bias", "decoder_0_bias", "dec_b"),
    ),
    "b_dec_out": ("b_dec_out",),
    "threshold": (
        *("threshold", "thresholds", "jumprelu_threshold", "activation_function_threshold"),
        *("activation_threshold", "jumprelu_thresholds", "theta"),
    ),
    "log_threshold": (
        *("log_threshold", "log_thresholds", "log_jumprelu_threshold"),
        *("activation_function_log_threshold", "activation_function_log_thresholds"),
        "activation_function_log_jumprelu_threshold",
    ),
    "r_mag": ("r_mag",),
    "b_gate": ("b_gate", "gate_bias"),
    "b_mag": ("b_mag", "mag_bias"),
    "W_skip": ("w_skip", "skip", "skip_weight", "skip_connection_weight"),
    "affine": ("affine_skip_connection",),
    "k": ("k", "top_k", "topk"),
    "scaling_factor": ("scaling_factor",),
}
_OURS = {theirs: ours for ours, names in NAMES.items() for theirs in names}
# Counts of a training: no value depends on them.
STATISTICS = re.compile(
    r"stats_\w+|latents_\w+|num_batches_not_active|(n_|num_)\w*since_fired|\w*steps?|sparsity"
    r"|\w*tokens_seen|group_sizes|group_indices|feature_density|\w*_ema|initialized|seed"
)
# In which a training keeps the weights beside other things.
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "sae", "autoencoder", "ae", "module"),
    *("params", "weights", "dictionary", "net"),
)
_SAID = ("cfg", "config", "hparams", "hyperparams", "args", "activation_state_dict")
_SETTINGS = ("{stem}_cfg.json", "{stem}.json", "cfg.json", "config.json", "config.yaml", "cfg.yaml")
_BESIDE = re.compile(
    r"(sparsity|optimizer|scheduler|lr_scheduler|trainer_state|rank_\d+_state|state"
    r"|activations_store_state|activation_whitening)[\w.]*"
)
_LARGEST_YAML = 1 << 20
_CROSS_LAYER = re.compile(r"(W_(enc|dec)|params_layer)_\d+\.")
_PART = re.compile(r".*-\d{5}-of-\d{5}\.\w+")
# How settings call the width of what is read and the number of latents, where they mean nothing
# else by it.
_SAID_WIDTHS = (
    (("d_in", "act_size", "activation_dim"), "numbers that are read"),
    (("d_sae", "dict_size", "num_latents", "n_latents"), "latents"),
)


class Weights(NamedTuple):
    """The tensors of a file by their names here, and what else it says.

    Attributes:
        tensors: by our name, `NAMES`' keys.
        names: what the file calls them.
        others: tensors of names that are not known here.
        said: settings in the file and beside it, by their names in small letters.
        beside: tensors of the file that stand outside of what holds the weights.
    """

    tensors: dict[str, Any]
    names: dict[str, str]
    others: dict[str, Any]
    said: dict[str, Any]
    beside: dict[str, Any]


def weights_in(names: Set[str]) -> list[str]:
    """Of a folder's files, those that may be an SAE by themselves."""
    return sorted(
        name
        for name in names
        if name.endswith(SUFFIXES) and "/" not in name and not _BESIDE.fullmatch(name)
    )


def single_weights(where: str, names: Set[str]) -> str | None:
    """The one file of a folder that may be an SAE by itself; None where there is none.

    Args:
        where: how a message begins.
        names: of the folder's files.

    Raises:
        SaeflowError: there are several.
    """
    weights = weights_in(names)
    if any(_CROSS_LAYER.match(name) for name in weights):
        raise SaeflowError(
            f"{where}holds a cross-layer transcoder or a crosscoder ({weights[0]} and more), whose "
            "latents write many layers, which is not known here; choose an SAE or a transcoder of "
            "one layer"
        )
    if parts := [name for name in weights if _PART.fullmatch(name)]:
        raise SaeflowError(
            f"{where}holds weights that are split over several files ({parts[0]}), which are not "
            "put together here; save them as one file"
        )
    if len(weights) > 1:
        raise SaeflowError(
            f"{where}holds {len(weights)} files of weights ({', '.join(weights[:4])}"
            f"{', …' * (len(weights) > 4)}); name one of them, such as {weights[0]}"
        )
    return weights[0] if weights else None


def settings_beside(name: str) -> list[str]:
    """The names that files with an SAE's settings may have, beside its file of weights."""
    stem = Path(name).stem if name.endswith(SUFFIXES) else name
    return [pattern.format(stem=stem) for pattern in _SETTINGS]


def named_as_saved(path: Path, content: Any) -> dict[str, Any]:
    """The tensors of a state dict by the names that its class has, out of whatever a training
    wrapped around them and without a prefix that all have.

    Raises:
        SaeflowError: there are none.
    """
    bare = _unwrapped(content, {}, {})
    if not bare:
        raise SaeflowError(f"{path}: is no dictionary of tensors; get the weights alone")
    return _without_prefix(bare)


def named_weights(path: Path, content: Any) -> Weights:
    """The tensors of a file by what they are.

    Args:
        path: of the file, beside which settings may lie.
        content: of `saeflow.tensors.read_content` or `read_headers`.

    Raises:
        SaeflowError: it holds no tensors by names, or two for one purpose.
    """
    said: dict[str, Any] = {}
    for name in reversed(settings_beside(path.name)):
        said |= _flat(_settings(path.parent / name))
    said |= _flat(_header(path))
    beside: dict[str, Any] = {}
    bare = _unwrapped(content, said, beside)
    if not bare:
        raise SaeflowError(f"{path}: is no dictionary of tensors; get the weights alone")
    tensors: dict[str, Any] = {}
    names: dict[str, str] = {}
    others: dict[str, Any] = {}
    for name, tensor in _without_prefix(bare).items():
        ours = _ours(name)
        if ours is None:
            others[name] = tensor
        elif ours in tensors:
            raise SaeflowError(
                f"{path}: has both {names[ours]} and {name}, of which one is the {ours} of an SAE; "
                "leave the other out"
            )
        else:
            tensors[ours], names[ours] = tensor, name
    return Weights(tensors, names, others, said, beside)


def widths(path: Path, weights: Weights) -> tuple[int, int]:
    """Width of the activations that an SAE reads, and number of its latents.

    What has a bias per latent tells the latents; without one the smaller side is the model's.

    Raises:
        SaeflowError: a matrix is absent, is none, or the shapes contradict each other or the
            settings.
    """
    told = _widths_of_tensors(path, weights)
    for (keys, what), width in zip(_SAID_WIDTHS, told, strict=True):
        for key in keys:
            said = weights.said.get(key)
            if isinstance(said, int) and not isinstance(said, bool) and said != width:
                raise SaeflowError(
                    f"{path}: its settings say that {key} is {said}, and its tensors are of "
                    f"{width} {what}; get the two that belong together"
                )
    return told


def _widths_of_tensors(path: Path, weights: Weights) -> tuple[int, int]:
    tensors = weights.tensors
    if "W_enc" not in tensors:
        held = ", ".join([*weights.names.values(), *weights.others][:8])
        raise SaeflowError(
            f"{path}: has no encoder under a name that is known here, but {held}; known are "
            "W_enc, encoder.weight and their like"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    first, second = _sides(path, weights, "W_enc", shapes)
    of_latents = {
        max(shapes[name])
        for name in ("b_enc", "b_gate", "b_mag", "r_mag", "threshold", "log_threshold")
        if max(shapes.get(name, ()), default=1) > 1
    }
    d_sae = next(iter(of_latents)) if len(of_latents) == 1 else None
    if d_sae is None:
        reads = max(shapes.get("b_dec", (min(first, second),)), default=0)
        d_sae = second if first == reads else first
    if first == second or {first, second} == {d_sae}:
        return first, second
    if d_sae not in (first, second):
        raise SaeflowError(
            f"{path}: {weights.names['W_enc']} has shape {[first, second]} and biases are of "
            f"{d_sae} latents; get it again"
        )
    return (second if d_sae == first else first), d_sae


def _sides(
    path: Path, weights: Weights, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, int]:
    if len(shapes[name]) != 2:
        what = "a crosscoder's" if len(shapes[name]) == 3 else "no matrix"
        raise SaeflowError(
            f"{path}: {weights.names[name]} has shape {list(shapes[name])} and is {what}; "
            "choose an SAE or a transcoder of one layer"
        )
    return shapes[name][0], shapes[name][1]


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and not isinstance(value, Mapping)


def _is_state(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and any(map(_is_tensor, value.values()))


def _unwrapped(content: Any, said: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    """The mapping that holds the tensors; settings that stand beside it are added to `said`, and
    tensors to `beside`."""
    while isinstance(content, Mapping):
        said |= _flat({name: value for name, value in content.items() if name in _SAID})
        said |= _flat({str(name): v for name, v in content.items() if not isinstance(v, Mapping)})
        tensors = {str(name): value for name, value in content.items() if _is_tensor(value)}
        inner = _inner(content)
        if inner is None:
            return tensors
        beside |= tensors
        content = inner
    return {}


def _inner(content: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """The mapping within one in which weights are kept; None where it keeps them itself.

    What holds an encoder goes first: a checkpoint may hold the state of an optimizer, too, or the
    weights of the model that is read.
    """
    known = [content[name] for name in _WRAPPERS if _is_state(content.get(name))]
    if any(map(_is_encoder, content)):
        known = [each for each in known if _holds_encoder(each)]
    elif not _is_state(content) or any(map(_holds_encoder, content.values())):
        known += [value for value in content.values() if isinstance(value, Mapping)]
    return next(filter(_holds_encoder, known), next(iter(known), None))


def _holds_encoder(value: Any) -> bool:
    """Whether a mapping, or one within it, has the weights of an encoder."""
    waiting, seen = [value], set[int]()
    while waiting:
        level = waiting.pop()
        if isinstance(level, Mapping) and id(level) not in seen:
            seen.add(id(level))
            if any(_is_tensor(inner) and _is_encoder(name) for name, inner in level.items()):
                return True
            waiting.extend(level.values())
    return False


def _is_encoder(name: Any) -> bool:
    """Whether a tensor's name, with a prefix or without, is that of an encoder's matrix."""
    parts = str(name).split(".")
    return any(_ours(".".join(parts[first:])) == "W_enc" for first in range(len(parts)))


def _ours(name: str) -> str | None:
    """What a tensor of a name is, one of `NAMES`; None where that is not known."""
    return _OURS.get(re.sub(r"[./]", "_", name).lower())


def _without_prefix(tensors: dict[str, Any]) -> dict[str, Any]:
    """Names without what all of them begin with: ``module.``, ``_orig_mod.``, ``sae.``; counts of a
    training may lack it. An encoder of one layer without decoder begins with its own name."""
    while not any(_ours(name) == "W_enc" for name in tensors):
        weights = [name for name in tensors if not STATISTICS.fullmatch(name)]
        if len(weights) < 2 or len({name.partition(".")[0] for name in weights}) > 1:
            break
        if not all("." in name for name in weights):
            break
        tensors = {
            name.partition(".")[2] if name in weights else name: tensor
            for name, tensor in tensors.items()
        }
    return tensors


def _flat(settings: Any) -> dict[str, Any]:
    """Settings in one level, by their last name in small letters; the outermost counts."""
    return dict(reversed(list(_leaves(settings))))


def _leaves(settings: Any) -> Iterator[tuple[str, Any]]:
    waiting, seen = [settings], set[int]()
    while waiting:
        level = waiting.pop(0)
        if not isinstance(level, Mapping) or id(level) in seen:
            continue
        seen.add(id(level))
        for name, value in level.items():
            if isinstance(value, Mapping) and "value" in value:  # as Weights & Biases writes them
                yield str(name).lower(), value["value"]
            elif isinstance(value, Mapping):
                waiting.append(value)
            elif isinstance(value, str | int | float | bool):
                yield str(name).lower(), value
            elif hasattr(value, "numel") and value.numel() == 1:  # a number as a tensor
                yield str(name).lower(), value.item()


def _header(path: Path) -> dict[str, Any]:
    """What a safetensors file says beside its tensors, each value a text or JSON."""
    if path.suffix != ".safetensors":
        return {}
    said: dict[str, Any] = {}
    with safe_open(path, framework="numpy") as file:
        for name, text in (file.metadata() or {}).items():
            try:
                said[name] = json_of(text, path)
            except ValueError:
                said[name] = text
    return said


def _settings(path: Path) -> Any:
    if not path.is_file():
        return {}
    if path.suffix == ".json":
        return read_json(path)
    try:
        if path.stat().st_size > _LARGEST_YAML:
            raise ValueError(f"it has more than {_LARGEST_YAML >> 20} MB")
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        what = str(error).splitlines()[0]
        raise SaeflowError(f"{path}: cannot be read ({what:.200}); get it again") from None
