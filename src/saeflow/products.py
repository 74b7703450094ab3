"""Matrix products of a forward pass, by the fastest library that torch brings along.

On a CPU torch hands float32 products to MKL, which runs at less than half the rate of oneDNN on AMD
processors, though oneDNN is inside the same torch and does its bfloat16 products
(docs/benchmarks.md has the figures). Where oneDNN is there it is called directly, and an activation
function is applied while the product is still in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from saeflow.errors import warn

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
_SUPPORTED: dict[torch.dtype, Callable[[], bool]] = {
    torch.bfloat16: getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False),
    torch.float16: getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False),
}
"""Whether oneDNN has a way to multiply 16 bits on this processor."""


def _one_dnn() -> Callable[..., Tensor] | None:
    """The operation that torch's own compiler uses for linear layers; None in a torch built without
    it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_LINEAR = _one_dnn()


def _has_one_dnn(device: torch.device, dtype: torch.dtype) -> bool:
    if _LINEAR is None or device.type != "cpu":
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _SUPPORTED[dtype]())


def dtype_on(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What to compute in where 16 bits are asked for: float32 on a processor that has no
    instructions for them (in x86, AVX-512), as its products would take a hundred times as long.

    Numbers that are stored in 16 bits stay what they are, and what is computed of them is rounded
    less. It is told once on the error output.
    """
    supported = _SUPPORTED.get(dtype)
    if device.type != "cpu" or supported is None or supported():
        return dtype
    _tell_of_float32(str(dtype).removeprefix("torch."))
    return torch.float32


@cache
def _tell_of_float32(dtype: str) -> None:
    warn(
        f"this processor has no instructions for {dtype}; what was to be computed in it is "
        "computed in float32, with twice the memory"
    )


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
    if _LINEAR is None or not _has_one_dnn(x.device, x.dtype):
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
    if not _has_one_dnn(weight.device, weight.dtype):
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)
