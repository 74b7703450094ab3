"""Intervals of means of bounded scores that hold for few samples and for rare scores.

A percentile bootstrap of 32 zeros is [0, 0], and where one completion in ten scores it covers the
truth in 30 to 90 % of studies. The interval here supposes that one more unit was seen, with the
worst value at the lower end and the best value at the upper end, and weighs all of them at random:
weights are uniform over those that sum to one. For scores of 0 and 1 this is the interval of
Clopper and Pearson (Biometrika 26, 1934) exactly; in simulations it covers at least as often as it
says for every bounded distribution that was tried, from two units upwards (docs/statistics.md).

Source: Gaffke, Math. Methods Statist. 14 (2005); Learned-Miller and Thomas, arXiv 1905.06208.

Values without bounds leave no worst and no best: their intervals are of what was seen, as wide as
Student's for that many units (`as_wide_as_students`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

# Scores and weights are rounded to multiples of these, so that sums of their products fit in a
# double without rounding: they are the same in whatever order BLAS adds, which depends on where
# memory lies.
SCORE_GRID, WEIGHT_GRID = 2.0**22, 2.0**28


def on_grid(values: Float[np.ndarray, "*shape"], grid: float) -> Float[np.ndarray, "*shape"]:
    """Values rounded to multiples of ``1 / grid``."""
    return np.round(values * grid) / grid


def random_weights(
    unit: Int[np.ndarray, " samples"],
    draws: int,
    generator: np.random.Generator,
    unseen: Sequence[np.random.Generator] = (),
) -> Float[np.ndarray, "draws samples_and_unseen"]:
    """Random weights of samples and, in the last columns, of units that were not seen.

    Args:
        unit: of each sample, counted from 0. Samples of one unit (a prompt) share its weight; a
            unit that was not seen weighs as much as one of average size.
        draws: how many.
        generator: of the draws.
        unseen: a generator for each unit that was not seen, where there are groups whose rare
            events have nothing to do with each other. Else there is one such unit.
    """
    units = int(unit.max(initial=-1)) + 1
    seen = generator.standard_exponential((draws, units))
    other = np.stack([each.standard_exponential(draws) for each in unseen or [generator]], axis=1)
    total = np.maximum(seen.sum(axis=1, keepdims=True), 1 / SCORE_GRID)
    size = max(len(unit) / max(units, 1), 1)
    return on_grid(np.concatenate([seen[:, unit] / size, other], axis=1) / total, WEIGHT_GRID)


def seen_weights(
    units: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws units"]:
    """Random weights of units that were seen, for values without bounds.

    A single unit says nothing of others: its weights are NaN, and so is every interval drawn with
    them, which would have no width and look sure.
    """
    weights = random_weights(np.arange(units), draws, generator)[:, :-1]
    return weights if units > 1 else np.full_like(weights, np.nan)


def as_wide_as_students(
    draws: Float[np.ndarray, "draws groups"],
    values: Float[np.ndarray, " groups"],
    units: Int[np.ndarray, " groups"] | int,
    level: float,
) -> Float[np.ndarray, "draws groups"]:
    """Draws by weights of what was seen, moved away from their values for an interval at a level.

    Random weights of n units spread a mean by sqrt((n - 1) / (n + 1)) of its standard error, and
    quantiles of draws leave out that the spread is itself an estimate: at a level of 0.95, the
    interval of three units held the mean of normal values in 65 % of draws. Here its width is that
    of Student's distribution, and its skewness remains.

    Args:
        draws: means, or ratios or differences of means.
        values: the same of the units as they are.
        units: that each was drawn from; fewer than two give NaN.
        level: of the interval that is taken of the draws.
    """
    n = np.maximum(units, 2)
    tail = (1 + level) / 2
    factor = np.sqrt((n + 1) / (n - 1)) * stats.t.ppf(tail, n - 1) / stats.norm.ppf(tail)
    return np.where(np.less(units, 2), np.nan, values + factor * (draws - values))


def mean_draws(
    scores: Float[np.ndarray, "groups samples"],
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    unseen: Int[np.ndarray, " groups"] | None = None,
) -> Float[np.ndarray, "2 draws groups"]:
    """Weighted means of scores in [0, 1] with the unseen unit at 0, then with it at 1.

    Args:
        scores: NaN where one is missing; a group without scores has NaN.
        weights: from `random_weights`.
        unseen: which of the unseen units is each group's; None is the first for all.
    """
    sums, counts = _sums(scores, weights)
    other = weights[:, scores.shape[1] :]
    other = other[:, :1] if unseen is None else other[:, unseen]
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = sums / (counts + other), (sums + other) / (counts + other)
    nothing = np.isnan(scores).all(axis=1)
    return np.where(nothing, np.nan, np.stack([low, high]))


def seen_draws(
    values: Float[np.ndarray, "groups samples"],
    weights: Float[np.ndarray, "draws samples_and_unseen"],
) -> Float[np.ndarray, "draws groups"]:
    """Weighted means of what was seen alone, for values without bounds; NaN where there is none."""
    sums, counts = _sums(values, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isnan(values).all(axis=1), np.nan, sums / counts)


def _sums(
    values: Float[np.ndarray, "groups samples"],
    weights: Float[np.ndarray, "draws samples_and_unseen"],
) -> tuple[Float[np.ndarray, "draws groups"], Float[np.ndarray, "draws groups"]]:
    seen, shares = ~np.isnan(values), weights[:, : values.shape[1]]
    return shares @ np.where(seen, on_grid(values, SCORE_GRID), 0.0).T, shares @ seen.T


def interval(
    draws: Float[np.ndarray, "2 draws groups"], level: float
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """The two-sided interval: from a low quantile of the first draws to a high one of the second.

    The quantiles are order statistics of expected probability, so that few draws make an interval
    no narrower on average. Draws that are not defined (NaN) are left out.
    """
    tails = (1 - level) / 2, (1 + level) / 2
    low, high = (_quantile(end, tail) for end, tail in zip(draws, tails, strict=True))
    return low, high


def _quantile(
    draws: Float[np.ndarray, "draws groups"], tail: float
) -> Float[np.ndarray, " groups"]:
    quantiles = np.full(draws.shape[1], np.nan)
    defined = ~np.isnan(draws)
    whole = defined.all(axis=0)
    if whole.any():
        quantiles[whole] = np.quantile(draws[:, whole], tail, axis=0, method="weibull")
    for column in np.flatnonzero(defined.any(axis=0) & ~whole):
        quantiles[column] = np.quantile(draws[defined[:, column], column], tail, method="weibull")
    return quantiles
