"""Outputs of the modules of any torch model, by their paths."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from saeflow.errors import SaeflowError
from saeflow.models.running import Stop

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def capture_modules(
    model: nn.Module, inputs: tuple[Any, ...], paths: Sequence[str]
) -> dict[str, Tensor]:
    """Read modules' outputs in one forward pass, which stops when the last of them is there.

    Args:
        model: any torch model.
        inputs: its positional arguments.
        paths: of modules, as `named_modules` has them: ``encoder.layers.3``.

    Returns:
        The outputs by path, in the order asked for; the first where a module gives several.

    Raises:
        SaeflowError: the model has no such module, it does not run, or it gives no tensor.
    """
    wanted = dict.fromkeys(paths)
    modules = dict(model.named_modules())
    if unknown := [path for path in wanted if path not in modules]:
        near = ", ".join(list(modules)[1:6])
        raise SaeflowError(
            f"models: there is no module '{unknown[0]}' in {type(model).__name__}; it has {near}, …"
        )
    seen: dict[str, Tensor] = {}

    def read(path: str, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise SaeflowError(
                f"models: module '{path}' gives a {kind}, not a tensor; name a module inside it"
            )
        seen[path] = tensor
        if len(seen) == len(wanted):
            raise Stop

    with ExitStack() as stack, suppress(Stop):
        for path in wanted:
            handle = modules[path].register_forward_hook(
                lambda _module, _inputs, output, path=path: read(path, output)
            )
            stack.callback(handle.remove)
        model(*inputs)
    if missing := [path for path in wanted if path not in seen]:
        raise SaeflowError(
            f"models: module '{missing[0]}' does not run in a forward pass; name another"
        )
    return {path: seen[path] for path in wanted}


def twin(model: Model) -> Model:
    """A model of the same weights, which are not copied, whose modules and hooks are its own."""
    weights = [
        tensor
        for module in model.modules()
        for tensor in vars(module).values()
        if isinstance(tensor, Tensor)
    ]
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers(), *weights)}
    return deepcopy(model, shared)
