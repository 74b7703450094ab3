"""Sums of some rows of a matrix, and products of some rows of two, in one pass over memory each, as
a GPU's compiled code (Triton comes with torch for CUDA).

A sum is that of one row of the result and a stretch of columns, added up in the order of its
entries in float32: no two programs write to one place, so that the same entries give the same bits.
`saeflow.saes.sparse` has the same of torch's own operations, which these are held to.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_MOST_COLUMNS = 1024  # of one program: a stretch that its registers hold


@cache
def available() -> bool:
    """Whether there is a GPU of CUDA and Triton for it."""
    return torch.version.cuda is not None and find_spec("triton") is not None


def fits(*tensors: Tensor) -> bool:
    """Whether the kernels are for these tensors: float32 on a GPU that has Triton."""
    return all(tensor.is_cuda and tensor.dtype == torch.float32 for tensor in tensors) and (
        available()
    )


def bags(
    matrix: Float[Tensor, "n width"],
    indices: Int64[Tensor, " entries"],
    offsets: Int64[Tensor, " rows+1"],
    weights: Float[Tensor, " entries"],
) -> Float[Tensor, "rows width"]:
    """For every row the sum of ``matrix[indices]`` over its entries, weighted.

    Args:
        offsets: row ``i`` is ``offsets[i]:offsets[i + 1]``.
    """
    matrix, rows, width = matrix.contiguous(), len(offsets) - 1, matrix.shape[1]
    sums = matrix.new_empty(rows, width)
    columns = _columns(width)
    if rows:
        _kernels().bag_kernel[rows, -(-width // columns)](
            matrix, indices, offsets, weights.contiguous(), sums, width, COLUMNS=columns
        )
    return sums


def dots(
    left: Float[Tensor, "rows width"],
    right: Float[Tensor, "n width"],
    rows: Int64[Tensor, " entries"],
    columns: Int64[Tensor, " entries"],
) -> Float[Tensor, " entries"]:
    """For every entry the product of its row of ``left`` with its row of ``right``."""
    products = left.new_empty(len(rows))
    width = left.shape[1]
    if len(rows):
        _kernels().dot_kernel[len(rows),](
            left.contiguous(),
            right.contiguous(),
            rows,
            columns,
            products,
            width,
            COLUMNS=_columns(width),
        )
    return products


def _columns(width: int) -> int:
    return min(_MOST_COLUMNS, 1 << (width - 1).bit_length())


@cache
def _kernels() -> ModuleType:
    """The kernels, which import Triton."""
    from saeflow.saes import triton_kernels

    return triton_kernels
