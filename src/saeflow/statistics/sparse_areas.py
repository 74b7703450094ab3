"""How well latents tell the rows with a label from those without: areas under the ROC curve, ties
counted half.

With ranks among all n rows the area of a latent for a label is a sum over the rows that have the
label. Nearly all of a latent's values are zeros, which share one rank; beside that rank
only what is not zero adds to the sum. So the areas of all latents for all labels are one product
of two sparse matrices, and exact: every term is a multiple of one half below 2⁵³.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import sparse, stats

from saeflow.statistics.areas import UNKNOWN, Area, area_error, area_interval, area_of_rank_sum
from saeflow.statistics.sparse_latents import SparseLatents

_LATENTS_AT_ONCE = 1024


class SparseLabels(NamedTuple):
    """Which labels hold where, by row; of a label that mostly holds the exceptions are kept.

    Attributes:
        kept: ``[n, labels]`` of ones.
        turned: labels of which the exceptions are kept.
        positives: rows with each label.
    """

    kept: sparse.csr_array
    turned: Bool[np.ndarray, " labels"]
    positives: Int64[np.ndarray, " labels"]

    @classmethod
    def of(cls, labels: Bool[np.ndarray, "n labels"]) -> SparseLabels:
        """From one byte per row and label."""
        positives = labels.sum(axis=0)
        turned = positives * 2 > len(labels)
        return cls(sparse.csr_array((labels ^ turned).astype(np.float64)), turned, positives)

    def rotated(self, by: int) -> SparseLabels:
        """Every row gets the labels of the one ``by`` places later."""
        order = np.roll(np.arange(self.kept.shape[0]), -by)
        return self._replace(kept=self.kept[order])


def areas(
    latents: SparseLatents, labels: SparseLabels
) -> Iterator[tuple[slice, Float64[np.ndarray, "part labels"]]]:
    """The area of every latent for every label, some latents at a time; every label needs both
    classes.

    Takes of the order of (values that are not zero) × (labels that hold in a row)
    operations.
    """
    counts = np.where(labels.turned, latents.n - labels.positives, labels.positives).astype(
        np.float64
    )
    for start in range(0, latents.d_sae, _LATENTS_AT_ONCE):
        chunk = slice(start, min(start + _LATENTS_AT_ONCE, latents.d_sae))
        sums = (latents.ranks.matrix(latents, chunk) @ labels.kept).toarray()
        sums += latents.ranks.zero[chunk, None] * counts
        area = area_of_rank_sum(sums, counts, latents.n - counts)
        yield chunk, np.where(labels.turned, 1 - area, area)


def clustered_area(
    rows: Int64[np.ndarray, " entries"],
    values: Float32[np.ndarray, " entries"],
    label: Bool[np.ndarray, " n"],
    clusters: Int64[np.ndarray, " n"],
    level: float,
) -> Area:
    """The area of one latent for one label; rows of one cluster are not independent, clusters are.

    Args:
        rows, values: where the latent is not zero; by rising value.
        label: whether it holds.
        clusters: of each row, counted from 0.
        level: of the interval.

    Returns:
        All NaN where a value is.
    """
    if np.isnan(values).any():
        return UNKNOWN
    return area_interval(area_error(_placements(rows, values, label), label, clusters), level)


def _placements(
    rows: Int64[np.ndarray, " entries"],
    values: Float32[np.ndarray, " entries"],
    label: Bool[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """`statistics.areas.placements` of numbers that are mostly zero."""
    mine = label[rows]
    positives, negatives = int(label.sum()), int((~label).sum())
    every, zero = _midranks(values, len(label) - len(values))
    among, zero_among = _midranks(values[mine], positives - int(mine.sum()))
    others, zero_others = _midranks(values[~mine], negatives - int((~mine).sum()))
    place = np.where(label, (zero - zero_among) / negatives, 1 - (zero - zero_others) / positives)
    place[rows[mine]] = (every[mine] - among) / negatives
    place[rows[~mine]] = 1 - (every[~mine] - others) / positives
    return place


def _midranks(
    values: Float32[np.ndarray, " entries"], zeros: int
) -> tuple[Float64[np.ndarray, " entries"], float]:
    """Mid-ranks of numbers that are not zero among themselves and so many zeros, and that of the
    zeros."""
    ranks = stats.rankdata(values)
    return ranks + np.where(values > 0, zeros, 0), float((values < 0).sum() + (zeros + 1) / 2)
