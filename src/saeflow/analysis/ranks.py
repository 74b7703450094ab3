"""Where the members of token sets stand among all tokens, in the order of one latent's logit weights.

One sort per latent serves all sets. Of a set only the ranks of its members matter: between two members the running sum
of the published score falls in a straight line, so its extremes lie beside members, and the rank sum is their sum. So
the cost of a set is that of its members, and nothing of the size sets × latents × tokens is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

_SIGN = np.uint32(0x80000000)
_TOKEN = np.uint64(0xFFFFFFFF)
_GATHERED = 16  # a set of more than a sixteenth of the tokens is found in the sorted order, a smaller one is sorted


class Ties(NamedTuple):
    """Runs of equal weights in the sorted order."""

    starts: Int64[np.ndarray, " tokens"]
    """Per rank the first rank of its run."""
    ends: Int64[np.ndarray, " tokens"]
    """Per rank the last rank of its run."""
    term: float
    """Sum of t³ - t over runs of length t."""


class Order(NamedTuple):
    """Tokens from the largest weight to the smallest."""

    tokens: Int64[np.ndarray, " tokens"]
    ties: Ties | None
    """None where no two weights are equal."""


class Standing(NamedTuple):
    """How the members of a set stand in an order."""

    ks: float
    """Two-sample Kolmogorov-Smirnov statistic, positive where members lie above the others."""
    auc: float
    """Probability that a member lies above another token, ties counted half."""
    leading: int
    """Members up to where the running sum is furthest from 0, counted from the end they gather at."""


@dataclass(frozen=True)
class SetIndex:
    """Token sets, ready to be looked up in one order after another.

    Attributes:
        members: places of each set in the vocabulary.
        masks: the same as a mask, of large sets only.
        counted: per set, 0, tokens, 2 tokens, … for as many members as it has.
        tokens: how many tokens there are in all.
    """

    members: list[Int32[np.ndarray, " members"]]
    masks: list[Bool[np.ndarray, " tokens"] | None]
    counted: list[Int64[np.ndarray, " members"]]
    tokens: int

    @classmethod
    def of(cls, members: Sequence[Int32[np.ndarray, " members"]], tokens: int) -> SetIndex:
        """Index sets, none of them empty or whole, of a vocabulary of so many tokens."""
        masks: list[Bool[np.ndarray, " tokens"] | None] = []
        for places in members:
            mask = np.zeros(tokens, np.bool_)
            mask[places] = True
            masks.append(mask if len(places) * _GATHERED > tokens else None)
        counted = [np.arange(len(places), dtype=np.int64) * tokens for places in members]
        return cls(list(members), masks, counted, tokens)


def ordered(weights: Float32[np.ndarray, " tokens"]) -> Order:
    """Sort tokens by falling weight; among equal weights by rising place.

    A float and the place of its token are packed into one integer that sorts as they do, which sorts several times
    faster than places by their floats.
    """
    bits = (np.float32(0) - weights).view(np.uint32)  # 0 - w: falling order, and one zero instead of two
    bits ^= (bits.view(np.int32) >> 31).view(np.uint32) | _SIGN
    keys = bits.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(weights), dtype=np.uint64)
    keys.sort()
    values = keys >> np.uint64(32)
    same = values[1:] == values[:-1]
    return Order((keys & _TOKEN).astype(np.int64), _ties(same) if same.any() else None)


def _ties(same: Bool[np.ndarray, " tokens_1"]) -> Ties:
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    lengths = np.diff(np.append(first, len(same) + 1))
    starts = np.repeat(first, lengths)
    runs = lengths.astype(np.float64)
    return Ties(starts, np.repeat(first + lengths - 1, lengths), float((runs**3 - runs).sum()))


def standings(order: Order, sets: SetIndex) -> list[Standing]:
    """How each set stands in an order of tokens."""
    ranks = np.empty(sets.tokens, np.int32)
    ranks[order.tokens] = np.arange(sets.tokens, dtype=np.int32)
    found = []
    for members, mask, counted in zip(sets.members, sets.masks, sets.counted, strict=True):
        own = np.sort(ranks[members]) if mask is None else np.flatnonzero(mask[order.tokens])
        standing = _standing(own, counted, sets.tokens) if order.ties is None else _tied(own, order.ties, sets.tokens)
        found.append(standing)
    return found


def _standing(
    ranks: Int64[np.ndarray, " members"] | Int32[np.ndarray, " members"],
    counted: Int64[np.ndarray, " members"],
    tokens: int,
) -> Standing:
    """From the members' ranks, increasing, where no two tokens are tied.

    With m members and n others, the running sum before member j at rank r is j / m - (r - j) / n, which is
    (j tokens - m r) / (m n); after it it is 1 / m more. So one array of whole numbers holds all of it.
    """
    m, n = len(ranks), tokens - len(ranks)
    before = counted - ranks * np.int64(m)
    high, low = int(before.argmax()), int(before.argmin())
    above, below = int(before[high]) + n, -int(before[low])
    ks, leading = (above, high + 1) if above >= below else (-below, m - low)
    pairs = m * n
    larger = m * (m - 1) // 2 + pairs - int(ranks.sum(dtype=np.int64))
    return Standing(ks / pairs, larger / pairs, leading)


def _tied(ranks: Int64[np.ndarray, " members"] | Int32[np.ndarray, " members"], ties: Ties, tokens: int) -> Standing:
    """The same where weights are tied: the running sum is read only before and after runs of equal weights."""
    m, n = len(ranks), tokens - len(ranks)
    starts, ends = ties.starts[ranks], ties.ends[ranks]
    reached = np.searchsorted(ranks, ends, "right")
    passed = np.searchsorted(ranks, starts, "left")
    after = reached * n - (ends + 1 - reached) * m
    before = passed * n - (starts - passed) * m
    high, low = int(after.argmax()), int(before.argmin())
    above, below = int(after[high]), -int(before[low])
    ks, leading = (above, int(reached[high])) if above >= below else (-below, m - int(passed[low]))
    pairs = m * n
    middle = int(starts.sum() + ends.sum()) / 2
    return Standing(ks / pairs, (m * (m - 1) / 2 + pairs - middle) / pairs, leading)
