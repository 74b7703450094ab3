"""Functions at hooks of plain `transformers` models: they read tensors of a forward pass, or change
them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from saeflow.config.hooks import SYNONYMS, one_name
from saeflow.errors import SaeflowError
from saeflow.models.norms import normalized

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from saeflow.models.families import Place
    from saeflow.models.language_model import LanguageModel

HookFunction = Callable[[Float[Tensor, "batch pos width"]], Float[Tensor, "batch pos width"] | None]


class Hook(NamedTuple):
    """A parsed hook name."""

    layer: int
    """Index of the layer, from 0."""
    site: str
    """What follows the layer in the name, of `saeflow.config.hooks.SITES` where the model has it:
    ``hook_resid_post``, ``attn.hook_z``, …"""


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
    return Hook(int(match[1]), SYNONYMS.get(match[2], match[2]))


def check_hook(lm: LanguageModel, name: str) -> Hook:
    """Take apart the name of a hook that the model has.

    Raises:
        SaeflowError: the model has no such layer, its family no such site, or the layer, of a model
            whose layers differ, no such module.
    """
    hook = parse_hook(name)
    if hook.layer >= lm.n_layers:
        raise SaeflowError(
            f"models: hook '{name}' does not exist; the model has {lm.n_layers} layers "
            f"(0..{lm.n_layers - 1})"
        )
    kind = lm.model.config.model_type
    if hook.site not in lm.family.sites:
        reason = lm.family.absent.get(hook.site)
        raise SaeflowError(
            f"models: hook '{name}' does not exist in a {kind} "
            f"model{f' ({reason})' if reason else ''}; its sites are {', '.join(lm.family.sites)}"
        )
    module = lm.family.sites[hook.site].module
    try:
        lm.blocks[hook.layer].get_submodule(module)
    except AttributeError:
        raise SaeflowError(
            f"models: hook '{name}' does not exist; layers of this {kind} model differ, and layer "
            f"{hook.layer} has no {module}; name another layer, or hook_resid_post"
        ) from None
    return hook


def check_distinct(lm: LanguageModel, names: Sequence[str]) -> None:
    """See that hooks of a model name different tensors: a tensor is cached once, under one name.

    Raises:
        SaeflowError: a hook does not exist, or two are one tensor in this family, such as what the
            MLP gives and what is added to the residual stream where nothing stands between.
    """
    seen: dict[tuple[int, str], str] = {}
    for name in map(one_name, names):
        layer, site = check_hook(lm, name)
        other = seen.setdefault((layer, lm.family.first_name(site)), name)
        if other != name:
            raise SaeflowError(
                f"models: hooks '{other}' and '{name}' are one tensor in a "
                f"{lm.model.config.model_type} model; call it by one of the names everywhere"
            )


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
            block, place = lm.blocks[hook.layer], lm.family.sites[hook.site]
            edit = function if place.editable else _read_only(name, function)
            if place.factor != 1:
                edit = _scaled(edit, place.factor)
            if lm.family.adapted:
                batch = _BatchShape()
                handles.append(block.register_forward_pre_hook(batch.see, with_kwargs=True))
                edit = _on_copy(edit, batch)
            handles.append(_registered(block.get_submodule(place.module), place, edit))
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


def _registered(module: nn.Module, place: Place, edit: HookFunction) -> RemovableHandle:
    """Have a function called with the tensor of a module, by the side where it lies."""
    if place.side == "output":
        return module.register_forward_hook(_on_output(edit))
    if place.side == "input":
        return module.register_forward_pre_hook(_on_input(edit), with_kwargs=True)

    def read(x: Tensor) -> None:
        edit(normalized(module, x))

    return module.register_forward_pre_hook(_on_input(read), with_kwargs=True)


def _on_input(
    function: HookFunction,
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[Any, Any] | None]:
    # A layer may give its modules their input by name, which transformers writes one way.
    def hook(
        _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        edited = function(inputs[0] if inputs else named["hidden_states"])
        if edited is None:
            return None
        return ((edited, *inputs[1:]), named) if inputs else ((), named | {"hidden_states": edited})

    return hook


def _on_output(function: HookFunction) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    # Attention returns (output, weights); layers return a tensor or, in some families, a tuple or
    # a list that begins with it.
    def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(output, tuple | list):
            return function(output)
        edited = function(output[0])
        return None if edited is None else type(output)((edited, *output[1:]))

    return hook


def _read_only(name: str, function: HookFunction) -> HookFunction:
    def read(tensor: Float[Tensor, "batch pos width"]) -> None:
        if function(tensor) is not None:
            layer, site = parse_hook(name)
            instead = _EDIT_INSTEAD.get(site, "mlp.hook_in")
            raise SaeflowError(
                f"models: hook '{name}' can be read but not edited; edit blocks.{layer}.{instead} "
                "instead"
            )

    return read


_EDIT_INSTEAD = {"hook_resid_mid": "hook_attn_out", "ln1.hook_normalized": "hook_resid_pre"}


def _scaled(function: HookFunction, factor: float) -> HookFunction:
    """The function on a tensor that is so many times what the module gives."""

    def edit(tensor: Tensor) -> Tensor | None:
        edited = function(tensor * factor)
        return None if edited is None else edited / factor

    return edit


class _BatchShape:
    """How many rows and positions the layer reads, which its modules may get as one dimension."""

    shape: tuple[int, ...] = ()

    def see(self, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.shape = (inputs[0] if inputs else named["hidden_states"]).shape[:2]


def _on_copy(function: HookFunction, batch: _BatchShape) -> HookFunction:
    """The function on a copy by rows and positions, for code that may have one dimension of both
    (OPT) and may go on to change its tensors in place (Falcon)."""

    def edit(tensor: Tensor) -> Tensor | None:
        edited = function(tensor.clone().view(*batch.shape, -1))
        return None if edited is None else edited.reshape(tensor.shape)

    return edit
