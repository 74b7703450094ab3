"""Matrix products of a forward pass, by the fastest library that torch brings along.

On a CPU torch hands float32 products to MKL, which runs at less than half the rate of oneDNN on AMD
processors, though oneDNN is inside the same torch and does its bfloat16 products
(docs/benchmarks.md has the figures). Where oneDNN is there it is called directly, and an activation
function is applied while the product is still in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Activation = Literal["none", "relu", "silu", "gelu", "gelu_tanh"]

# What oneDNN calls them: a post-operation and its algorithm.
_FUSED = {
    "none": ("none", ""),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
_APART: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda tensor: tensor,
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda tensor: functional.gelu(tensor, approximate="tanh"),
}
_DTYPES = (torch.float32, torch.bfloat16)


def _one_dnn() -> Callable[..., Tensor] | None:
    """The operation that torch's own compiler uses for linear layers; None in a torch built without
    it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_LINEAR = _one_dnn()


def linear(
    x: Float[Tensor, "... n_in"],
    weight: Float[Tensor, "n_out n_in"],
    bias: Float[Tensor, " n_out"] | None = None,
    activation: Activation = "none",
) -> Float[Tensor, "... n_out"]:
    """``activation(x weight.T + bias)``.

    Args:
        x: of the weight's dtype and device.
        weight: contiguous, or the transpose of a contiguous matrix.
        bias: of the same dtype.
        activation: applied to every number of the product.
    """
    if _LINEAR is None or x.device.type != "cpu" or x.dtype not in _DTYPES:
        return _APART[activation](functional.linear(x, weight, bias))
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        fixed = not (weight.requires_grad or (bias is not None and bias.requires_grad))
        product = _Product.apply if fixed else functional.linear
        return _APART[activation](product(x, weight, bias))
    name, algorithm = _FUSED[activation]
    return _LINEAR(x, weight, bias, name, [], algorithm)


class _Product(torch.autograd.Function):
    """A product whose gradient by ``x`` is one, too; of a weight that stays as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return linear(slope.contiguous(), weight.T), None, None


def packed(weight: Float[Tensor, "n_out n_in"], rows: int) -> Tensor:
    """A weight as products of so many rows want it, for `linear` alone; worth it where several
    products use it.

    Args:
        weight: without gradient.
        rows: of a product.
    """
    if _LINEAR is None or weight.device.type != "cpu" or weight.dtype not in _DTYPES:
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)
