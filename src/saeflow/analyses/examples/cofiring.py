"""Latents that fire together, from rows drawn at random.

Compiled (numba), and latent by latent: only pairs that do fire together are looked at, so the time
is that of the pairs of latents on every row, whatever the number of latents. What is counted of one
latent is a row of numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int32, Int64
from scipy import sparse

from saeflow.compiling import compiled
from saeflow.tables import Schema

COFIRING: Schema = {
    "latent": pl.Int32,
    "other": pl.Int32,
    "rank": pl.Int32,
    "count": pl.Int64,
    "jaccard": pl.Float32,
    "correlation": pl.Float32,
}
_LATENTS_AT_ONCE = 1024  # between two words of progress


def cofiring(
    rows: Int64[np.ndarray, " entries"],
    latents: Int32[np.ndarray, " entries"],
    values: Float32[np.ndarray, " entries"],
    n_rows: int,
    d_sae: int,
    most: int,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Per latent those that fire with it on the largest share of the rows on which either fires.

    Args:
        rows, latents, values: which latent fires on which row, and how much.
        n_rows: how many rows there are.
        d_sae: number of latents.
        most: others listed per latent.
        progress: told how many latents are done.

    Returns:
        latent, other, rank, count (of rows on which both fire), jaccard (count over rows on which
        either fires; among equals the first latents come first), correlation (of activations over
        all rows).
    """
    by_row = sparse.csr_array((values.astype(np.float64), (rows, latents)), shape=(n_rows, d_sae))
    by_latent = by_row.tocsc()
    fired = np.diff(by_latent.indptr).astype(np.int64)
    mean = by_row.sum(axis=0) / n_rows
    spread = np.sqrt(np.maximum((by_row**2).sum(axis=0) / n_rows - mean**2, 0))
    row_starts, row_latents, latent_starts, latent_rows = (
        array.astype(np.int64)
        for each in (by_row, by_latent)
        for array in (each.indptr, each.indices)
    )
    both, product, met = np.zeros(d_sae, np.int64), np.zeros(d_sae), np.empty(d_sae, np.int64)
    parts = []
    for first in range(0, d_sae, _LATENTS_AT_ONCE):
        last = min(first + _LATENTS_AT_ONCE, d_sae)
        others = np.full((last - first, most), -1, np.int64)
        counts, jaccard, products = (
            np.zeros(others.shape, kind) for kind in (np.int64, np.float64, np.float64)
        )
        _companions(
            first,
            row_starts,
            row_latents,
            latent_starts,
            latent_rows,
            by_row.data,
            by_latent.data,
            fired,
            both,
            product,
            met,
            others,
            counts,
            jaccard,
            products,
        )
        own = np.repeat(np.arange(first, last), most).reshape(others.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = (products / n_rows - mean[own] * mean[others]) / (
                spread[own] * spread[others]
            )
        columns = {
            "latent": own,
            "other": others,
            "rank": np.broadcast_to(np.arange(most), others.shape),
            "count": counts,
            "jaccard": jaccard,
            "correlation": correlation,
        }
        table = pl.DataFrame({name: column[others >= 0] for name, column in columns.items()})
        parts.append(table.select(pl.col(name).cast(kind) for name, kind in COFIRING.items()))
        if progress:
            progress(last, d_sae)
    return pl.concat(parts) if parts else pl.DataFrame(schema=COFIRING)


@compiled
def _companions(
    first: int,
    row_starts: Int64[np.ndarray, " rows+1"],
    row_latents: Int64[np.ndarray, " entries"],
    latent_starts: Int64[np.ndarray, " d_sae+1"],
    latent_rows: Int64[np.ndarray, " entries"],
    row_values: Float64[np.ndarray, " entries"],
    latent_values: Float64[np.ndarray, " entries"],
    fired: Int64[np.ndarray, " d_sae"],
    both: Int64[np.ndarray, " d_sae"],
    product: Float64[np.ndarray, " d_sae"],
    met: Int64[np.ndarray, " d_sae"],
    others: Int64[np.ndarray, "latents most"],
    counts: Int64[np.ndarray, "latents most"],
    jaccard: Float64[np.ndarray, "latents most"],
    products: Float64[np.ndarray, "latents most"],
) -> None:
    """Fill in the best companions of the latents from ``first`` on, best first; -1 where there are
    no more.

    ``both``, ``product`` and ``met`` are room for what one latent is counted with; they hold
    nothing between two.
    """
    n_latents, most = others.shape
    for place in range(n_latents):
        latent = first + place
        n_met = 0
        for at in range(latent_starts[latent], latent_starts[latent + 1]):
            row, value = latent_rows[at], latent_values[at]
            for entry in range(row_starts[row], row_starts[row + 1]):
                other = row_latents[entry]
                if both[other] == 0:
                    met[n_met] = other
                    n_met += 1
                both[other] += 1
                product[other] += value * row_values[entry]
        held = 0
        for number in range(n_met):
            other = met[number]
            count, together = both[other], product[other]
            both[other], product[other] = 0, 0.0
            if other == latent or most == 0:
                continue
            share = count / (fired[latent] + fired[other] - count)
            to = held
            while to > 0 and (
                jaccard[place, to - 1] < share
                or (jaccard[place, to - 1] == share and others[place, to - 1] > other)
            ):
                to -= 1
            if to == most:
                continue
            held = min(held + 1, most)
            for later in range(held - 1, to, -1):
                others[place, later], jaccard[place, later] = (
                    others[place, later - 1],
                    jaccard[place, later - 1],
                )
                counts[place, later], products[place, later] = (
                    counts[place, later - 1],
                    products[place, later - 1],
                )
            others[place, to], jaccard[place, to] = other, share
            counts[place, to], products[place, to] = count, together
