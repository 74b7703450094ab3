"""Bootstrap over games of means over positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from saeflow.statistics.means import resample_counts


class Mean(NamedTuple):
    """A mean and its percentile interval; NaN where there is nothing."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Draws of games with replacement that serve all means over the same positions, so that means are paired.

    Args:
        games: the game of each position.
        resamples: how many draws.
        level: of the intervals.
        generator: of the draws.
    """

    def __init__(
        self, games: Int64[np.ndarray, " n"], resamples: int, level: float, generator: np.random.Generator
    ) -> None:
        different, self._which = np.unique(games, return_inverse=True)
        self._n = len(different)
        self._weights = resample_counts(self._n, resamples, generator)
        self._tails = [(1 - level) / 2, (1 + level) / 2]

    def mean(self, values: Float64[np.ndarray, " n"]) -> Mean:
        """The mean over the positions where the value is known (not NaN), and its interval."""
        known = ~np.isnan(values)
        if not known.any():
            return Mean(np.nan, np.nan, np.nan)
        sums = np.bincount(self._which, np.where(known, values, 0), self._n)
        counts = np.bincount(self._which, known, self._n)
        with np.errstate(invalid="ignore"):
            drawn = (self._weights @ sums) / (self._weights @ counts)
        low, high = np.nanquantile(drawn, self._tails)
        return Mean(float(sums.sum() / counts.sum()), float(low), float(high))


def columns(name: str, mean: Mean) -> dict[str, float | None]:
    """A mean as columns of a table: ``accuracy``, ``accuracy_low``, ``accuracy_high``."""
    ends = zip((name, f"{name}_low", f"{name}_high"), mean, strict=True)
    return {key: None if np.isnan(value) else value for key, value in ends}
