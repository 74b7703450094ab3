"""Bootstrap intervals and permutation tests for the product of two means, many groups at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

PERMUTATIONS = 9999
_CHUNK = 1000  # permutations held in memory at a time
# Scores are rounded to multiples of 2**-36. Sums of up to 2**16 of them fit in a double without rounding, so they are
# the same in whatever order BLAS adds, which depends on where memory happens to lie.
_GRID = 2.0**36
_TIE = 1e-12  # differences that are equal but for rounding count as equal


class Means(NamedTuple):
    """Mean behaviour, mean coherence and their product: ``[groups]``, or ``[resamples, groups]`` for resamples."""

    behaviour: Float[np.ndarray, "*resamples groups"]
    coherence: Float[np.ndarray, "*resamples groups"]
    product: Float[np.ndarray, "*resamples groups"]


def bootstrap_weights(
    samples: int, resamples: int, generator: np.random.Generator
) -> Float[np.ndarray, "resamples samples"]:
    """How often each sample is drawn in each resample with replacement.

    One matrix serves every group over the same samples: a resampled mean is then a row of a matrix product.
    """
    if samples == 0:
        return np.zeros((resamples, 0))
    return generator.multinomial(samples, np.full(samples, 1 / samples), size=resamples).astype(np.float64)


def means(
    behaviour: Float[np.ndarray, "groups samples"],
    coherence: Float[np.ndarray, "groups samples"],
    weights: Float[np.ndarray, "resamples samples"] | None = None,
) -> Means:
    """Weighted means over the samples that have both scores; NaN where there is none.

    Args:
        behaviour, coherence: scores, NaN in both where either is missing.
        weights: from `bootstrap_weights`; None is the plain mean, without the axis ``resamples``.
    """
    observed = ~np.isnan(behaviour)
    rows = np.ones((1, behaviour.shape[1])) if weights is None else weights
    with np.errstate(invalid="ignore"):
        count = rows @ observed.T
        mean_behaviour, mean_coherence = (
            rows @ np.where(observed, _on_grid(scores), 0.0).T / count for scores in (behaviour, coherence)
        )
    found = Means(mean_behaviour, mean_coherence, mean_behaviour * mean_coherence)
    return Means(*(values[0] for values in found)) if weights is None else found


def interval(
    draws: Float[np.ndarray, "resamples groups"], level: float
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """The percentile bootstrap interval; resamples that drew no complete pair (NaN) are left out."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    found = np.full((2, draws.shape[1]), np.nan)
    defined = ~np.isnan(draws)
    whole, some = defined.all(axis=0), defined.any(axis=0)
    if whole.any():
        found[:, whole] = np.quantile(draws[:, whole], tails, axis=0)
    for column in np.flatnonzero(some & ~whole):
        found[:, column] = np.quantile(draws[defined[:, column], column], tails)
    return found[0], found[1]


class Contrast(NamedTuple):
    """Differences of the product, first minus second, of pairs of groups; paired by sample."""

    n: np.ndarray
    """``[pairs]`` samples with all four scores."""
    first: Float[np.ndarray, " pairs"]
    """The product of the first group over those samples."""
    second: Float[np.ndarray, " pairs"]
    draws: Float[np.ndarray, "resamples pairs"]
    """Bootstrap of the difference."""
    null: Float[np.ndarray, "permutations pairs"]
    """The difference with the labels of random samples exchanged."""


def contrast(
    first: tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]],
    second: tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]],
    weights: Float[np.ndarray, "resamples samples"],
    generator: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Contrast:
    """Compare two lists of groups, sample by sample.

    Under the hypothesis that two groups do not differ, the two completions of a sample may be exchanged. Behaviour
    and coherence of a completion are exchanged together, and a sample is exchanged in all pairs of groups or in none,
    so that whatever else a sample's completions share is kept.

    Args:
        first, second: behaviour and coherence, NaN in both where either is missing.
    """
    both = ~np.isnan(first[0]) & ~np.isnan(second[0])
    first, second = _kept(first, both), _kept(second, both)
    one, other = means(*first), means(*second)
    draws = means(*first, weights).product - means(*second, weights).product
    null = [
        _exchanged(first, second, generator.integers(0, 2, size=(min(_CHUNK, permutations - done), both.shape[1])))
        for done in range(0, permutations, _CHUNK)
    ]
    return Contrast(both.sum(axis=1), one.product, other.product, draws, np.concatenate(null))


def _kept(
    scores: tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]],
    kept: Bool[np.ndarray, "pairs samples"],
) -> tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]]:
    return np.where(kept, _on_grid(scores[0]), np.nan), np.where(kept, _on_grid(scores[1]), np.nan)


def _on_grid(scores: Float[np.ndarray, "groups samples"]) -> Float[np.ndarray, "groups samples"]:
    return np.round(scores * _GRID) / _GRID


def _exchanged(
    first: tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]],
    second: tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]],
    exchange: np.ndarray,
) -> Float[np.ndarray, "permutations pairs"]:
    """The difference of the products after exchanging the samples where ``exchange [permutations, samples]`` is 1."""
    signs = exchange.astype(np.float64)
    one, other = means(*first), means(*second)
    count = (~np.isnan(first[0])).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Exchanging moves the sum of the exchanged differences from one mean to the other.
        behaviour, coherence = (
            signs @ np.nan_to_num(theirs - ours).T / count for ours, theirs in zip(first, second, strict=True)
        )
    return (one.behaviour + behaviour) * (one.coherence + coherence) - (other.behaviour - behaviour) * (
        other.coherence - coherence
    )


def p_value(
    difference: Float[np.ndarray, " pairs"], null: Float[np.ndarray, "permutations pairs"]
) -> Float[np.ndarray, " pairs"]:
    """Two-sided: the share of permutations, the unpermuted one counted, whose difference is as large."""
    with np.errstate(invalid="ignore"):
        as_large = (np.abs(null) >= np.abs(difference) - _TIE).sum(axis=0)
    return np.where(np.isnan(difference), np.nan, (1 + as_large) / (1 + len(null)))
