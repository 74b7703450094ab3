"""Latents of many rows as sparse matrices: which of them tell labels, and few as columns."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

Latents: TypeAlias = sparse.csr_array
"""Rows and latents; what is not active is not held."""


def rows_of(latents: Latents) -> Int64[np.ndarray, " entries"]:
    """The row of every entry."""
    return np.repeat(np.arange(latents.shape[0]), np.diff(latents.indptr))


def sums(latents: Latents, weights: Any) -> Float64[np.ndarray, " d_sae"]:
    """Per latent the sum of its entries' weights."""
    return np.bincount(latents.indices, weights, minlength=latents.shape[1])


def scaled_differences(
    latents: Latents, y: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " d_sae"]:
    """Per latent the mean where the label holds less the mean where it does not, in units of its
    mean where it is active; 0 where it never is.

    Source: Kantamneni, Engels and others 2025, "Are Sparse Autoencoders Useful?".
    """
    values = latents.data.astype(np.float64)
    holds = y[rows_of(latents)]
    positive, total = sums(latents, values * holds), sums(latents, values)
    size, active = sums(latents, np.abs(values)), sums(latents, np.ones(len(values)))
    n_positive = int(y.sum())
    difference = positive / n_positive - (total - positive) / (len(y) - n_positive)
    return np.divide(difference * active, size, out=np.zeros_like(size), where=size > 0)


def strongest(
    latents: Latents, y: Bool[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " count"]:
    """The latents that differ most by `scaled_differences`, the first of equals first."""
    return np.argsort(-np.abs(scaled_differences(latents, y)), kind="stable")[:count]


def columns(latents: Latents, which: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, "n k"]:
    """Some latents, dense."""
    place = np.full(latents.shape[1], -1)
    place[which] = np.arange(len(which))
    of_entry = place[latents.indices]
    kept = of_entry >= 0
    dense = np.zeros((latents.shape[0], len(which)))
    dense[rows_of(latents)[kept], of_entry[kept]] = latents.data[kept]
    return dense
