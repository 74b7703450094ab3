"""The kernels of `saeflow.saes.gpu_kernels`; only this module imports Triton."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def bag_kernel(
    matrix: Any,
    indices: Any,
    offsets: Any,
    weights: Any,
    sums: Any,
    width: Any,
    COLUMNS: tl.constexpr,
) -> None:
    """``sums[row] = Σ weights[e] matrix[indices[e]]`` over the entries of a row, a stretch of
    columns per program."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for entry in range(tl.load(offsets + row), tl.load(offsets + row + 1)):
        added = tl.load(matrix + tl.load(indices + entry) * width + columns, mask=inside, other=0.0)
        total += tl.load(weights + entry) * added
    tl.store(sums + row * width + columns, total, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def dot_kernel(
    left: Any,
    right: Any,
    rows: Any,
    columns: Any,
    products: Any,
    width: Any,
    COLUMNS: tl.constexpr,
) -> None:
    """``products[e] = left[rows[e]] · right[columns[e]]``, an entry per program."""
    entry = tl.program_id(0).to(tl.int64)
    a = left + tl.load(rows + entry) * width
    b = right + tl.load(columns + entry) * width
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(0, width, COLUMNS):
        here = start + tl.arange(0, COLUMNS)
        inside = here < width
        total += tl.load(a + here, mask=inside, other=0.0) * tl.load(
            b + here, mask=inside, other=0.0
        )
    tl.store(products + entry, tl.sum(total, axis=0))
