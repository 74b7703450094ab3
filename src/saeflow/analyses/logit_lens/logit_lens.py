"""Directions of the residual stream through the unembedding: what each latent does to the logits of
all tokens.

Source: Bloom and Lin 2024, "Understanding SAE Features with the Logit Lens". Differences: token
sets are tested and the tests corrected for their number, scores keep their sign, and the product is
never held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int32, UInt32
from torch import Tensor

from saeflow.analyses.logit_lens.ranks import SetIndex, ordered, standings
from saeflow.products import linear

BINS = 64
_CHUNK_BYTES = 1 << 26  # of logit weights at a time
Weights = Float32[np.ndarray, " tokens"]
OnProgress = Callable[[int, int], None]


class Moments(NamedTuple):
    """Of one latent's logit weights over tokens."""

    mean: float
    std: float
    """Of the population."""
    skewness: float
    kurtosis: float
    """Excess: 0 for a normal distribution."""
    entropy: float
    """Of the softmax of the logit weights, nats."""


class Histogram(NamedTuple):
    """Counts in bins of equal width."""

    low: float
    high: float
    counts: UInt32[np.ndarray, " bins"]


@dataclass(frozen=True)
class LensTable:
    """What the lens shows of some directions, an entry per direction.

    Attributes:
        moments: mean, standard deviation, skewness, excess kurtosis, entropy.
        top, bottom: places of the tokens with the largest and the smallest logit weights, the
        extreme ones first. top_weights, bottom_weights: their logit weights. low, high: smallest
        and largest logit weight. counts: of logit weights in 64 bins from low to high. ks, auc,
        leading: per token set, as `ranks.Standing` has them. tie_terms: sum of t³ - t over runs of
        equal logit weights.
    """

    moments: Float64[np.ndarray, "rows 5"]
    top: Int32[np.ndarray, "rows k"]
    top_weights: Float32[np.ndarray, "rows k"]
    bottom: Int32[np.ndarray, "rows k"]
    bottom_weights: Float32[np.ndarray, "rows k"]
    low: Float32[np.ndarray, " rows"]
    high: Float32[np.ndarray, " rows"]
    counts: UInt32[np.ndarray, "rows bins"]
    ks: Float64[np.ndarray, "rows sets"]
    auc: Float64[np.ndarray, "rows sets"]
    leading: Int32[np.ndarray, "rows sets"]
    tie_terms: Float64[np.ndarray, " rows"]

    @classmethod
    def empty(cls, rows: int, sets: int, k: int) -> LensTable:
        """Room for so many directions."""
        return cls(
            moments=np.empty((rows, len(Moments._fields))),
            top=np.empty((rows, k), np.int32),
            top_weights=np.empty((rows, k), np.float32),
            bottom=np.empty((rows, k), np.int32),
            bottom_weights=np.empty((rows, k), np.float32),
            low=np.empty(rows, np.float32),
            high=np.empty(rows, np.float32),
            counts=np.empty((rows, BINS), np.uint32),
            ks=np.empty((rows, sets)),
            auc=np.empty((rows, sets)),
            leading=np.empty((rows, sets), np.int32),
            tie_terms=np.empty(rows),
        )

    def column(self, name: str) -> Float64[np.ndarray, " rows"]:
        """One of the moments."""
        return self.moments[:, Moments._fields.index(name)]

    def fill(self, row: int, weights: Weights, sets: SetIndex) -> None:
        """Write one direction's entries; rows may be filled at the same time."""
        k = self.top.shape[1]
        order = ordered(weights)
        self.moments[row] = moments(weights)
        self.top[row], self.bottom[row] = order.tokens[:k], order.tokens[::-1][:k]
        self.top_weights[row], self.bottom_weights[row] = (
            weights[self.top[row]],
            weights[self.bottom[row]],
        )
        self.low[row], self.high[row] = weights[order.tokens[-1]], weights[order.tokens[0]]
        self.counts[row] = histogram(weights, self.low[row], self.high[row]).counts
        self.tie_terms[row] = order.tie_term
        self.ks[row], self.auc[row], self.leading[row] = standings(order, sets)


def moments(weights: Weights) -> Moments:
    """Moments of logit weights, and the entropy of their softmax."""
    mean = weights.mean(dtype=np.float64)
    centred = weights - np.float32(mean)
    square = centred * centred
    variance = square.mean(dtype=np.float64)
    if variance <= 0:
        return Moments(float(mean), 0.0, 0.0, 0.0, float(np.log(len(weights))))
    skewness = np.mean(square * centred, dtype=np.float64) / variance**1.5
    kurtosis = np.mean(square * square, dtype=np.float64) / variance**2 - 3
    shifted = weights - weights.max()
    likelihood = np.exp(shifted)
    total = likelihood.sum(dtype=np.float64)
    entropy = np.log(total) - np.sum(likelihood * shifted, dtype=np.float64) / total
    return Moments(
        float(mean), float(variance**0.5), float(skewness), float(kurtosis), float(entropy)
    )


def histogram(weights: Weights, low: float, high: float) -> Histogram:
    """Counts of logit weights in bins of equal width from the smallest to the largest, which is in
    the last bin."""
    width = (np.float32(high) - np.float32(low)) / np.float32(BINS)
    if width <= 0:
        places = np.zeros(len(weights), np.int32)
    else:
        places = np.minimum(((weights - np.float32(low)) / width).astype(np.int32), BINS - 1)
    return Histogram(float(low), float(high), np.bincount(places, minlength=BINS).astype(np.uint32))


def logit_weights(
    directions: Float[Tensor, "rows d_model"], unembedding: Float[Tensor, "tokens d_model"]
) -> Iterator[tuple[int, Float32[np.ndarray, "part tokens"]]]:
    """The product of directions and unembedding, some rows at a time, each part with the number of
    its first row."""
    rows = max(1, _CHUNK_BYTES // (4 * len(unembedding)))
    for first in range(0, len(directions), rows):
        yield (
            first,
            linear(directions[first : first + rows].contiguous(), unembedding).cpu().numpy(),
        )


@torch.no_grad()
def look_through(
    directions: Float[Tensor, "rows d_model"],
    unembedding: Float[Tensor, "tokens d_model"],
    members: Sequence[Int32[np.ndarray, " members"]],
    k: int,
    threads: int = 1,
    progress: OnProgress | None = None,
) -> LensTable:
    """Everything the lens shows of many directions; memory does not grow with their number times
    that of tokens.

    Args:
        directions: float32; a latent's decoder row, at the length it is to be looked at.
        unembedding: from `models.unembedding`.
        members: places of each token set in the vocabulary.
        k: tokens listed at either end.
        threads: that sort and count; they change no number.
        progress: told how many directions are done.
    """
    sets = SetIndex.of(members, len(unembedding))
    table = LensTable.empty(len(directions), len(members), min(k, len(unembedding)))
    with ThreadPoolExecutor(threads, "saeflow-lens") as workers:
        for first, part in logit_weights(directions, unembedding):
            rows = range(first, first + len(part))
            list(workers.map(table.fill, rows, part, [sets] * len(part), chunksize=1))
            if progress:
                progress(rows.stop, len(directions))
    return table


def random_directions(
    count: int, d_model: int, generator: np.random.Generator
) -> Float[Tensor, "count d_model"]:
    """Directions drawn uniformly, of length 1."""
    drawn = torch.from_numpy(generator.standard_normal((count, d_model)))
    return (drawn / drawn.norm(dim=1, keepdim=True)).float()
