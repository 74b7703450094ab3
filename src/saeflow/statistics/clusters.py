"""Means of values that come in clusters, with intervals that take clusters as the units: positions
of a game, answers to a prompt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from saeflow.statistics.means import as_wide_as_students, interval, random_weights

SHARE, CHANGE, POSITIVE = (0.0, 1.0), (-1.0, 1.0), (0.0, np.inf)
"""Between what a probability lies, a difference of two or a correlation, and a loss or a
divergence."""


class Mean(NamedTuple):
    """A mean and its interval; NaN where there is nothing."""

    value: float
    low: float
    high: float


class Resampling:
    """Random weights of clusters that serve all means over the same values.

    Args:
        clusters: the cluster of each value, by any numbers.
        draws: how many.
        level: of the intervals.
        generator: of the draws.
    """

    def __init__(
        self,
        clusters: Int64[np.ndarray, " n"],
        draws: int,
        level: float,
        generator: np.random.Generator,
    ) -> None:
        different, self._which = np.unique(clusters, return_inverse=True)
        self._n, self._level = len(different), level
        weights = random_weights(np.arange(self._n), draws, generator)
        self._weights, self._unseen = weights[:, :-1], weights[:, -1]

    def mean(
        self, values: Float64[np.ndarray, " n"], bounds: tuple[float, float] | None = None
    ) -> Mean:
        """The mean of the values that are there (not NaN), and its interval.

        Args:
            values: in the order of the clusters; NaN where there is none.
            bounds: between which all values lie. The interval then counts one cluster of usual size
                more, whose values are the lowest at the lower end and the highest at the upper end,
                and holds for rare events and few clusters (`statistics.means`). Without, or
                where there is no highest value, it is of what was seen, as wide as Student's, and
                NaN where a single cluster was.
        """
        present = ~np.isnan(values)
        if not present.any():
            return Mean(np.nan, np.nan, np.nan)
        sums = np.bincount(self._which, np.where(present, values, 0), self._n)
        counts = np.bincount(self._which, present, self._n)
        value = sums.sum() / counts.sum()
        lowest, highest = bounds or (-np.inf, np.inf)
        if np.isfinite([lowest, highest]).all():
            unseen = self._unseen * counts[counts > 0].mean()
            ends = [self._weights @ sums + end * unseen for end in (lowest, highest)]
            draws = np.stack(ends)[:, :, None] / (self._weights @ counts + unseen)[:, None]
        else:
            drawn = (self._weights @ sums / (self._weights @ counts))[:, None]
            drawn = as_wide_as_students(drawn, value, int((counts > 0).sum()), self._level)
            draws = np.stack([drawn, drawn]).clip(lowest, highest)
        low, high = interval(draws, self._level)
        return Mean(float(value), float(low[0]), float(high[0]))


def cells(mean: Mean) -> list[float | None]:
    """A mean and its ends as cells of a table; null where there is none."""
    return [None if np.isnan(value) else value for value in mean]


def columns(name: str, mean: Mean) -> dict[str, float | None]:
    """A mean as columns of a table: ``accuracy``, ``accuracy_low``, ``accuracy_high``."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), cells(mean), strict=True))
