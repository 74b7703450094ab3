"""Rows of a cache of activations, and the statistics that parts of it give together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32
from torch import Tensor

_AT_ONCE = 1 << 16  # numbers in fp64 at a time: few enough to stay in the processor's cache


class ActivationRows(NamedTuple):
    """Activations, one row per token, and what leads each row back to its text.

    Attributes:
        activations: in the dtype of the cache.
        tokens: the token at each row.
        positions: its place in the block.
        blocks: index of its block in the split.
    """

    activations: Float[Tensor, "rows d_model"]
    tokens: Int32[np.ndarray, " rows"]
    positions: Int32[np.ndarray, " rows"]
    blocks: Int32[np.ndarray, " rows"]

    def part(self, which: slice) -> ActivationRows:
        """Some of the rows."""
        return ActivationRows(
            self.activations[which], self.tokens[which], self.positions[which], self.blocks[which]
        )


def join(parts: Sequence[ActivationRows]) -> ActivationRows:
    """All rows of the parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    return ActivationRows(
        torch.cat([part.activations for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.blocks for part in parts]),
    )


class Statistics(NamedTuple):
    """Sums over rows that can be merged without loss.

    Attributes:
        rows: number of rows.
        mean: per dimension.
        scatter: sum of squared distances to the mean, over all dimensions.
        norm_sum: sum of the rows' norms.
    """

    rows: int
    mean: Float64[np.ndarray, " d_model"]
    scatter: float
    norm_sum: float

    @property
    def variance(self) -> float:
        """Mean squared distance of a row to the mean."""
        return self.scatter / self.rows

    @property
    def mean_norm(self) -> float:
        """Mean norm of a row."""
        return self.norm_sum / self.rows


def statistics(activations: Float[Tensor, "rows d_model"]) -> Statistics:
    """Statistics of rows, computed in fp64.

    The norms, which are wanted for themselves, give the scatter too: the numbers are read once, not
    twice. What that loses in fp64 is 1e-16 of the mean's square, and is far below what float32 rows
    with such a mean have lost before.
    """
    rows, width = activations.shape
    at_once = max(1, _AT_ONCE // width)
    # One place for the wide rows of all parts: fresh memory takes longer than the arithmetic.
    wide = activations.new_empty(min(at_once, rows), width, dtype=torch.float64)
    total = wide.new_zeros(width)
    norm_sum = square_sum = 0.0
    for part in torch.split(activations, at_once):
        numbers = wide[: len(part)].copy_(part)
        norms = torch.linalg.vector_norm(numbers, dim=1)
        total += numbers.sum(dim=0)
        norm_sum += float(norms.sum())
        square_sum += float(norms @ norms)
    mean = total / rows
    scatter = max(0.0, square_sum - rows * float(mean @ mean))
    return Statistics(rows, mean.cpu().numpy(), scatter, norm_sum)


def merge(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of all rows together, from those of disjoint parts.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
        sample variances".
    """
    return reduce(_merge_two, parts)


def _merge_two(a: Statistics, b: Statistics) -> Statistics:
    rows = a.rows + b.rows
    difference = b.mean - a.mean
    between = float(difference @ difference) * a.rows * b.rows / rows
    return Statistics(
        rows,
        a.mean + difference * (b.rows / rows),
        a.scatter + b.scatter + between,
        a.norm_sum + b.norm_sum,
    )


def torch_dtype(name: str) -> torch.dtype:
    """``float32``, ``float16`` or ``bfloat16`` as torch knows it."""
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]
