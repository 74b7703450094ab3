"""TransformerLens hook names on plain `transformers` models.

A hook names a tensor of the forward pass: ``blocks.2.hook_resid_post`` is the residual stream after
layer 2. The table below says, for every family, which module's input or output that tensor is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.utils.hooks import RemovableHandle

    from saeflow.models.language_model import LanguageModel

OUTSIDE_THE_STREAM = ("attn.hook_z", "mlp.hook_in")
"""Sites whose tensors are not added to the residual stream, nor are it."""

HookFunction = Callable[[Float[Tensor, "batch pos width"]], Float[Tensor, "batch pos width"] | None]


class Hook(NamedTuple):
    """A parsed hook name."""

    layer: int
    """Index of the layer, from 0."""
    site: str
    """What follows the layer in the name: ``hook_resid_post``, ``attn.hook_z``, …"""


class Place(NamedTuple):
    """Where a family keeps the tensor of a site."""

    module: str
    """Path of the module below the layer; empty for the layer itself."""
    side: Literal["input", "output"]
    editable: bool = True
    """False where the model goes on with another copy of the tensor, so that an edit would be half
    an edit."""


@dataclass(frozen=True)
class Family:
    """The models of one ``model_type``."""

    model_class: str
    """Name of the class in `transformers`."""
    layers: str
    """Path of the list of layers in the model."""
    sites: Mapping[str, Place]


def _sites(attention: str, projection: str, mlp: str, middle: str | None) -> Mapping[str, Place]:
    """The table of a family: modules whose outputs are added to the residual stream, and those in
    between.

    Args:
        attention: output added after attention.
        projection: attention's output projection, whose input is the heads side by side.
        mlp: output added after the MLP.
        middle: norm that reads the residual stream between the two; None for parallel blocks, which
            have no between.
    """
    sites = {
        "hook_resid_pre": Place("", "input"),
        "attn.hook_z": Place(projection, "input"),
        "hook_attn_out": Place(attention, "output"),
        "mlp.hook_in": Place("mlp", "input"),  # after the norm, where published transcoders read
        "hook_mlp_out": Place(mlp, "output"),
        "hook_resid_post": Place("", "output"),
    }
    if middle:
        sites["hook_resid_mid"] = Place(middle, "input", editable=False)
    return MappingProxyType(sites)


_LLAMA = _sites("self_attn", "self_attn.o_proj", "mlp", "post_attention_layernorm")
# Gemma 2 and 3 normalise what attention and MLP give before it is added; the added tensor is the
# hook.
_GEMMA2 = _sites(
    "post_attention_layernorm",
    "self_attn.o_proj",
    "post_feedforward_layernorm",
    "pre_feedforward_layernorm",
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": Family("LlamaForCausalLM", "model.layers", _LLAMA),
        "mistral": Family("MistralForCausalLM", "model.layers", _LLAMA),
        "qwen2": Family("Qwen2ForCausalLM", "model.layers", _LLAMA),
        "qwen3": Family("Qwen3ForCausalLM", "model.layers", _LLAMA),
        "gemma": Family("GemmaForCausalLM", "model.layers", _LLAMA),
        "gemma2": Family("Gemma2ForCausalLM", "model.layers", _GEMMA2),
        "gemma3_text": Family("Gemma3ForCausalLM", "model.layers", _GEMMA2),
        "gpt2": Family(
            "GPT2LMHeadModel", "transformer.h", _sites("attn", "attn.c_proj", "mlp", "ln_2")
        ),
        "gpt_neox": Family(
            "GPTNeoXForCausalLM",
            "gpt_neox.layers",
            _sites("attention", "attention.dense", "mlp", None),
        ),
    }
)


def parse_hook(name: str) -> Hook:
    """Take a hook name apart.

    Raises:
        SaeflowError: the name does not read ``blocks.<layer>.<site>``.
    """
    match = re.fullmatch(r"blocks\.(\d+)\.([\w.]+)", name)
    if not match:
        raise SaeflowError(
            f"models: '{name}' is not a hook name; write it as blocks.<layer>.hook_resid_post"
        )
    return Hook(int(match[1]), match[2])


def check_hook(lm: LanguageModel, name: str) -> Hook:
    """Take apart the name of a hook that the model has.

    Raises:
        SaeflowError: the model has no such layer, or its family no such site.
    """
    hook = parse_hook(name)
    if hook.layer >= lm.n_layers:
        raise SaeflowError(
            f"models: hook '{name}' does not exist; the model has {lm.n_layers} layers "
            f"(0..{lm.n_layers - 1})"
        )
    if hook.site not in lm.family.sites:
        raise SaeflowError(
            f"models: hook '{name}' does not exist in a {lm.model.config.model_type} model; "
            f"its sites are {', '.join(lm.family.sites)}"
        )
    return hook


@contextmanager
def attach(lm: LanguageModel, functions: Sequence[tuple[str, HookFunction]]) -> Iterator[None]:
    """Call functions on tensors of every forward pass inside the block; afterwards the model is as
    it was.

    Args:
        lm: the model.
        functions: pairs of hook name and function. A function gets the tensor ``[batch, pos,
            width]`` and returns the one to go on with, or None to leave it; it must not change its
            argument. Functions of one hook are called in the order given, each with what the one
            before it returned.

    Raises:
        SaeflowError: a hook that does not exist, or an edit at ``hook_resid_mid``, which can only
            be read.
    """
    hooks = [(name, check_hook(lm, name), function) for name, function in functions]
    handles: list[RemovableHandle] = []
    try:
        for name, hook, function in hooks:
            place = lm.family.sites[hook.site]
            module: nn.Module = lm.blocks[hook.layer].get_submodule(place.module)
            edit = function if place.editable else _read_only(name, function)
            if place.side == "input":
                handles.append(module.register_forward_pre_hook(_on_input(edit)))
            else:
                handles.append(module.register_forward_hook(_on_output(edit)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def editing(name: str, function: HookFunction) -> list[tuple[str, HookFunction]]:
    """What `attach` needs to edit at a hook, at ``hook_resid_mid`` too, of which the model keeps
    two copies.

    There the edit is added to what attention adds: with it the residual stream is what the function
    returned.
    """
    layer, site = parse_hook(name)
    if site != "hook_resid_mid":
        return [(name, function)]
    before: list[Tensor] = []

    def remember(resid_pre: Tensor) -> None:
        before.append(resid_pre)

    def edit(attention: Tensor) -> Tensor | None:
        resid_pre = before.pop()
        edited = function(resid_pre + attention)
        return None if edited is None else edited - resid_pre

    return [(f"blocks.{layer}.hook_resid_pre", remember), (f"blocks.{layer}.hook_attn_out", edit)]


def _on_input(
    function: HookFunction,
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        edited = function(inputs[0])
        return None if edited is None else (edited, *inputs[1:])

    return hook


def _on_output(function: HookFunction) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    # Attention returns (output, weights); layers return a tensor or, in other versions of
    # transformers, a tuple.
    def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(output, tuple):
            return function(output)
        edited = function(output[0])
        return None if edited is None else (edited, *output[1:])

    return hook


def _read_only(name: str, function: HookFunction) -> HookFunction:
    def read(tensor: Float[Tensor, "batch pos width"]) -> None:
        if function(tensor) is not None:
            raise SaeflowError(
                f"models: hook '{name}' can be read but not edited; edit hook_attn_out of the same "
                "layer instead"
            )

    return read
