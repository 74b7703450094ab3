"""Correlations of numbers that come in clusters: tokens of a passage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from saeflow.statistics.areas import square_and_add
from saeflow.statistics.clusters import Mean
from saeflow.statistics.means import interval, random_weights


class Correlation(NamedTuple):
    """Pearson's correlation of all numbers together, its interval, and its draws, which correlate
    with those of another over the same clusters."""

    value: float
    low: float
    high: float
    draws: Float64[np.ndarray, " draws"]


def correlation(
    first: Float64[np.ndarray, " n"],
    second: Float64[np.ndarray, " n"],
    clusters: Int64[np.ndarray, " n"],
    draws: int,
    level: float,
    generator: np.random.Generator,
) -> Correlation | None:
    """The correlation of two series and its interval; None where either is constant.

    Clusters get random weights. As for means of bounded values (`statistics.means`), one cluster
    more of usual size and spread is counted, in which the correlation is -1 at the lower end and 1
    at the upper one, so that few clusters that happen to agree do not look sure.

    Args:
        first, second: the series, without NaN.
        clusters: of each pair, by any numbers.
        draws: of weights.
        level: of the interval.
        generator: of the draws.
    """
    if not len(first) or not np.ptp(first) or not np.ptp(second):
        return None
    x, y = ((each - each.mean()) / each.std() for each in (first, second))
    which = np.unique(clusters, return_inverse=True)[1]
    sums = np.stack([np.bincount(which, part) for part in (x, y, x * x, y * y, x * y)], axis=1)
    counts = np.bincount(which)
    weights = random_weights(np.arange(len(counts)), draws, generator)
    seen, unseen = weights[:, :-1], weights[:, -1] * counts.mean()
    of_x, of_y, xx, yy, xy = (seen @ sums).T
    total = seen @ counts
    ends = np.stack(
        [_pearson(total + u, of_x, of_y, xx + u, yy + u, xy + end * u)
         for u, end in ((unseen, -1), (unseen, 1), (0 * unseen, 0))]
    )  # fmt: skip
    low, high = interval(ends[:2, :, None], level)
    return Correlation(float((x * y).mean()), float(low[0]), float(high[0]), ends[2])


def _pearson(
    n: Float64[np.ndarray, " draws"],
    of_x: Float64[np.ndarray, " draws"],
    of_y: Float64[np.ndarray, " draws"],
    xx: Float64[np.ndarray, " draws"],
    yy: Float64[np.ndarray, " draws"],
    xy: Float64[np.ndarray, " draws"],
) -> Float64[np.ndarray, " draws"]:
    """From weighted counts and sums."""
    spread = np.sqrt((xx - of_x**2 / n) * (yy - of_y**2 / n))
    return np.clip((xy - of_x * of_y / n) / spread, -1, 1)


def correlation_difference(first: Correlation, second: Correlation) -> Mean:
    """The second correlation less the first, over the same clusters by the same draws, and its
    interval: each end is as far from it as both correlations' own ends allow.

    Source: Zou, Psychological Methods 12 (2007).
    """
    spreads = first.draws.std() * second.draws.std()
    shared = float(np.cov(first.draws, second.draws, ddof=0)[0, 1] / spreads) if spreads else 0.0
    down = square_and_add(second.value - second.low, first.high - first.value, shared)
    up = square_and_add(second.high - second.value, first.value - first.low, shared)
    change = second.value - first.value
    return Mean(change, change - down, change + up)
