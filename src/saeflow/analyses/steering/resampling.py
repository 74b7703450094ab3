"""Intervals and tests for the product of two means, many groups at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from saeflow.statistics.means import interval, mean_draws, on_grid, random_weights
from saeflow.statistics.permutation import PERMUTATIONS, as_large, exchanges

__all__ = ["Means", "bootstrap_weights", "contrast", "interval", "means"]

Scores = tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]]
"""Behaviour and coherence, NaN in both where either is missing."""
# Scores are rounded to multiples of 2**-36. Sums of up to 2**16 of them fit in a double without
# rounding, so they are the same in whatever order BLAS adds, which depends on where memory happens
# to lie.
_GRID = 2.0**36


class Means(NamedTuple):
    """Mean behaviour, mean coherence and their product: ``[groups]``, or draws for the two ends of
    their intervals."""

    behaviour: Float[np.ndarray, "*draws groups"]
    coherence: Float[np.ndarray, "*draws groups"]
    product: Float[np.ndarray, "*draws groups"]


def bootstrap_weights(
    samples: int,
    draws: int,
    generator: np.random.Generator,
    unit: Int[np.ndarray, " samples"] | None = None,
    unseen: Sequence[np.random.Generator] = (),
) -> Float[np.ndarray, "draws samples_and_unseen"]:
    """Random weights that serve every group over the same samples; see `saeflow.statistics.means`.

    Args:
        unit: of each sample, where samples are drawn by unit; None takes each for itself.
        unseen: a generator for each goal, where rare events of goals have nothing to do with each
            other.
    """
    return random_weights(np.arange(samples) if unit is None else unit, draws, generator, unseen)


def means(
    behaviour: Float[np.ndarray, "groups samples"],
    coherence: Float[np.ndarray, "groups samples"],
    weights: Float[np.ndarray, "draws samples_and_unseen"] | None = None,
    unseen: Int[np.ndarray, " groups"] | None = None,
) -> Means:
    """Means over the samples that have both scores; NaN where there is none.

    Args:
        behaviour, coherence: scores from 0 to 1, NaN in both where either is missing.
        weights: from `bootstrap_weights`: draws ``[2, draws, groups]`` for the lower and the upper
            end of an interval. None is the plain mean.
        unseen: which of the units that were not seen is each group's; None is the first for all.
    """
    if weights is None:
        observed = (~np.isnan(behaviour)).sum(axis=1)
        with np.errstate(invalid="ignore"):
            plain = [
                np.nansum(on_grid(scores, _GRID), axis=1) / observed
                for scores in (behaviour, coherence)
            ]
        return Means(plain[0], plain[1], plain[0] * plain[1])
    drawn = [mean_draws(scores, weights, unseen) for scores in (behaviour, coherence)]
    return Means(drawn[0], drawn[1], drawn[0] * drawn[1])


class Contrast(NamedTuple):
    """Differences of the product, first minus second, of pairs of groups; paired by sample."""

    n: Int[np.ndarray, " pairs"]
    """Samples with all four scores."""
    units: Int[np.ndarray, " pairs"]
    """Units, of samples with all four scores, that can be exchanged."""
    first: Float[np.ndarray, " pairs"]
    """The product of the first group over those samples."""
    second: Float[np.ndarray, " pairs"]
    draws: Float[np.ndarray, "2 draws pairs"]
    """Of the difference, for the two ends of its interval."""
    p_value: Float[np.ndarray, " pairs"]
    """Two-sided: the share of exchanges, the unexchanged labels counted, whose difference is as
    large."""


def contrast(
    first: Scores,
    second: Scores,
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    unit: Int[np.ndarray, " samples"],
    generator: np.random.Generator,
    unseen: Int[np.ndarray, " pairs"] | None = None,
    averages: Sequence[Int[np.ndarray, " members"]] = (),
    permutations: int = PERMUTATIONS,
) -> Contrast:
    """Compare two lists of groups, sample by sample.

    Under the hypothesis that two groups do not differ, the completions of a unit may be exchanged.
    Behaviour and coherence of a completion are exchanged together, and a unit is exchanged in all
    pairs of groups or in none, so that whatever else its completions share is kept.

    Args:
        first, second: behaviour and coherence, NaN in both where either is missing.
        weights: of the samples, for intervals.
        unit: of each sample: itself, or its prompt.
        generator: of the exchanges.
        unseen: which of the units that were not seen is each pair's.
        averages: pairs whose differences are averaged; each makes one more pair of the result.
    """
    both = ~np.isnan(first[0]) & ~np.isnan(second[0])
    first, second = _kept(first, both), _kept(second, both)
    units = int(unit.max(initial=-1)) + 1
    n = both.sum(axis=1)
    exchangeable = np.array([len(np.unique(unit[row])) for row in both], dtype=np.int64)
    products = [means(*side).product for side in (first, second)]
    draws = means(*first, weights, unseen).product - means(*second, weights, unseen).product[::-1]
    joined = [_with_averages(product, averages) for product in products]
    count, made = np.zeros(len(joined[0])), 0
    for chunk in exchanges(units, generator, permutations):
        count += as_large(
            joined[0] - joined[1],
            _with_averages(exchanged(first, second, chunk[:, unit]), averages),
        )
        made += len(chunk)
    return Contrast(
        n=np.append(n, [n[members].sum() for members in averages]).astype(np.int64),
        units=np.append(exchangeable, [exchangeable[members].max() for members in averages]).astype(
            np.int64
        ),
        first=joined[0],
        second=joined[1],
        draws=_with_averages(draws, averages),
        p_value=np.where(np.isnan(joined[0] - joined[1]), np.nan, count / made),
    )


def _with_averages(
    values: Float[np.ndarray, "*draws pairs"], averages: Sequence[Int[np.ndarray, " members"]]
) -> Float[np.ndarray, "*draws more"]:
    averaged = [values[..., members].mean(axis=-1, keepdims=True) for members in averages]
    return np.concatenate([values, *averaged], axis=-1)


def _kept(scores: Scores, kept: Bool[np.ndarray, "pairs samples"]) -> Scores:
    behaviour, coherence = (np.where(kept, on_grid(values, _GRID), np.nan) for values in scores)
    return behaviour, coherence


def exchanged(
    first: Scores, second: Scores, exchange: Bool[np.ndarray, "chunk samples"]
) -> Float[np.ndarray, "chunk pairs"]:
    """The difference of the products after exchanging the samples where ``exchange`` is true."""
    signs = exchange.astype(np.float64)
    ours, theirs = means(*first), means(*second)
    count = (~np.isnan(first[0])).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Exchanging moves the sum of the exchanged differences from one mean to the other.
        behaviour, coherence = (
            signs @ np.nan_to_num(other - own).T / count
            for own, other in zip(first, second, strict=True)
        )
    return (ours.behaviour + behaviour) * (ours.coherence + coherence) - (
        theirs.behaviour - behaviour
    ) * (theirs.coherence - coherence)
