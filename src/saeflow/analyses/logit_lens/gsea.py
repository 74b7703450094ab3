"""Gene set enrichment analysis of token sets: a running sum with weights, judged by permutation.

Source: Subramanian et al. 2005, "Gene set enrichment analysis", PNAS 102: the score, its
normalisation by the mean of permuted scores of the same sign, and p-values among those.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

GSEA_ROWS_AT_ONCE = 1 << 22  # members of permuted sets at a time


class Enrichment(NamedTuple):
    """The weighted score of one set."""

    score: float
    """Extreme of the running sum, with its sign."""
    normalised: float
    """Divided by the mean size of permuted scores of the same sign."""
    p: float
    """Share of permuted scores of the same sign that are as extreme."""


def score(
    weights: Float32[np.ndarray, " tokens"], members: Int32[np.ndarray, " members"], power: float
) -> float:
    """The weighted running-sum score of a set.

    Args:
        weights: logit weights of one latent.
        members: places of the set's tokens.
        power: of a token's distance from the mean weight; 0 counts all alike.
    """
    gains, ranks = _by_rank(weights, power)
    return float(_scores(np.sort(ranks[members])[None, :], gains)[0])


def permuted(
    weights: Float32[np.ndarray, " tokens"],
    members: Int32[np.ndarray, " members"],
    power: float,
    permutations: int,
    generator: np.random.Generator,
) -> Enrichment:
    """The score of a set beside those of random sets of its size.

    Args:
        weights, members, power: as of `score`.
        permutations: how many random sets.
        generator: of the draws.
    """
    gains, ranks = _by_rank(weights, power)
    own = float(_scores(np.sort(ranks[members])[None, :], gains)[0])
    null = np.empty(permutations)
    at_once = max(1, GSEA_ROWS_AT_ONCE // len(members))
    for first in range(0, permutations, at_once):
        part = null[first : first + at_once]
        drawn = [
            generator.choice(len(weights), len(members), replace=False, shuffle=False) for _ in part
        ]
        part[:] = _scores(np.sort(np.stack(drawn), axis=1), gains)
    same = np.abs(null[np.sign(null) == np.sign(own)])
    p = (1 + np.sum(same >= abs(own))) / (1 + len(same))
    return Enrichment(own, own / float(same.mean()) if len(same) else np.sign(own), float(p))


def _by_rank(
    weights: Float32[np.ndarray, " tokens"], power: float
) -> tuple[Float64[np.ndarray, " tokens"], Int64[np.ndarray, " tokens"]]:
    """What a member at each rank adds to the running sum, and the rank of each token."""
    order = np.argsort(-weights, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    distance = np.abs(weights.astype(np.float64) - weights.mean(dtype=np.float64))
    return distance[order] ** power, ranks


def _scores(
    ranks: Int64[np.ndarray, "sets members"], gains: Float64[np.ndarray, " tokens"]
) -> Float64[np.ndarray, " sets"]:
    """Scores of sets of one size, from the sorted ranks of their members."""
    members, others = ranks.shape[1], len(gains) - ranks.shape[1]
    risen = np.cumsum(gains[ranks], axis=1)
    total = risen[:, -1:]
    risen = np.divide(risen, total, out=np.zeros_like(risen), where=total > 0)
    fallen = (ranks - np.arange(members)) / others
    before = np.concatenate([np.zeros((len(ranks), 1)), risen[:, :-1]], axis=1) - fallen
    high, low = (risen - fallen).max(axis=1), before.min(axis=1)
    return np.where(high >= -low, high, low)
