"""What a norm does, found out by running it: families write the same norms in many ways.

Every norm here is ``x̂ · (weight + offset) + bias``, where x̂ is x, without its mean or with it,
over its root mean square. Llama's offset is 0 and Gemma's 1; GPT-2 takes the mean away. With the
weights of the module exchanged, its own code says which, and gives x̂ itself.
"""

from __future__ import annotations

from collections import OrderedDict
from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn


def normalized(norm: nn.Module, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """x̂: what a norm gives before its weights.

    Whatever the offset is, the difference between weights of 1 and of 0 is x̂.
    """
    with_ones = _with_weights(norm, 1.0)(x)
    return with_ones if _weight(norm) is None else with_ones - _with_weights(norm, 0.0)(x)


def gain(norm: nn.Module, d_model: int) -> Float[Tensor, " d_model"]:
    """What a norm multiplies x̂ by, float32."""
    weight = _weight(norm)
    if weight is None:
        return torch.ones(d_model)
    return weight.detach().float() + _offset(norm)


def centres(norm: nn.Module, d_model: int) -> bool:
    """Whether a norm takes the mean over dimensions away first (LayerNorm)."""
    return not normalized(norm, _ones(norm, d_model)).any()


def _offset(norm: nn.Module) -> float:
    """What is added to the weight before it multiplies."""
    weight = _weight(norm)
    assert weight is not None
    # Two values of opposite sign are their own x̂, with the mean or without it.
    x = _ones(norm, len(weight))
    x[::2] = -1
    return float(_with_weights(norm, 0.0)(x)[1].round())


def _ones(norm: nn.Module, d_model: int) -> Float[Tensor, " d_model"]:
    weight = _weight(norm)
    return torch.ones(d_model) if weight is None else torch.ones_like(weight, requires_grad=False)


def _weight(norm: nn.Module) -> nn.Parameter | None:
    weight = getattr(norm, "weight", None)
    return weight if isinstance(weight, nn.Parameter) else None


def _with_weights(norm: nn.Module, value: float) -> nn.Module:
    """The same norm, without hooks and bias, with a value for all weights."""
    twin = copy(norm)
    twin._parameters = {
        name: None
        if parameter is None
        else nn.Parameter(
            torch.full_like(parameter, value if name == "weight" else 0.0), requires_grad=False
        )
        for name, parameter in norm._parameters.items()
    }
    twin._forward_hooks, twin._forward_pre_hooks = OrderedDict(), OrderedDict()
    return twin
