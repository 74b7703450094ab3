"""Latents that fire together, from rows drawn at random."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float32, Int32, Int64
from scipy import sparse

from saeflow.tables import Schema

COFIRING: Schema = {
    "latent": pl.Int32,
    "other": pl.Int32,
    "rank": pl.Int32,
    "count": pl.Int64,
    "jaccard": pl.Float32,
    "correlation": pl.Float32,
}
_LATENTS_AT_ONCE = 512


def cofiring(
    rows: Int64[np.ndarray, " entries"],
    latents: Int32[np.ndarray, " entries"],
    values: Float32[np.ndarray, " entries"],
    n_rows: int,
    d_sae: int,
    most: int,
) -> pl.DataFrame:
    """Per latent those that fire with it on the largest share of the rows on which either fires.

    Args:
        rows, latents, values: which latent fires on which row, and how much.
        n_rows: how many rows there are.
        d_sae: number of latents.
        most: others listed per latent.

    Returns:
        latent, other, rank, count (of rows on which both fire), jaccard (count over rows on which either fires),
        correlation (of activations over all rows).
    """
    shape = (n_rows, d_sae)
    activations = sparse.csr_array((values.astype(np.float64), (rows, latents)), shape=shape)
    fires = sparse.csr_array((np.ones(len(rows)), (rows, latents)), shape=shape)
    fired = fires.sum(axis=0)
    mean = activations.sum(axis=0) / n_rows
    spread = np.sqrt(np.maximum((activations**2).sum(axis=0) / n_rows - mean**2, 0))
    parts = []
    for first in range(0, d_sae, _LATENTS_AT_ONCE):
        some = slice(first, min(first + _LATENTS_AT_ONCE, d_sae))
        both = (fires[:, some].T @ fires).toarray()
        product = (activations[:, some].T @ activations).toarray() / n_rows
        with np.errstate(divide="ignore", invalid="ignore"):
            jaccard = np.nan_to_num(both / (fired[some, None] + fired - both))
            correlation = (product - mean[some, None] * mean) / (spread[some, None] * spread)
        np.put_along_axis(jaccard, np.arange(some.start, some.stop)[:, None], -1.0, axis=1)
        parts.append(_largest(first, jaccard, both, correlation, min(most, d_sae - 1)))
    return pl.concat(parts) if parts else pl.DataFrame(schema=COFIRING)


def _largest(first: int, jaccard: np.ndarray, both: np.ndarray, correlation: np.ndarray, most: int) -> pl.DataFrame:
    others = np.sort(np.argpartition(-jaccard, max(0, most - 1), axis=1)[:, :most], axis=1)
    order = np.argsort(-np.take_along_axis(jaccard, others, axis=1), axis=1, kind="stable")
    others = np.take_along_axis(others, order, axis=1)
    columns = {
        "latent": np.repeat(np.arange(first, first + len(jaccard)), most),
        "other": others.ravel(),
        "rank": np.tile(np.arange(most), len(jaccard)),
        **{
            name: np.take_along_axis(values, others, axis=1).ravel()
            for name, values in (("count", both), ("jaccard", jaccard), ("correlation", correlation))
        },
    }
    table = pl.DataFrame(columns).filter(pl.col("count") > 0)
    return table.select(pl.col(name).cast(kind) for name, kind in COFIRING.items())
