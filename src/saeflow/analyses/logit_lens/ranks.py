"""Where the members of token sets stand among all tokens, in the order of one latent's logit
weights.

One sort per latent serves all sets, and nothing of the size sets × latents × tokens is ever made.
The published score of a set is the extreme of a running sum along the sorted tokens. The ranks of a
set's members are the bits of 64-bit words, so that the sum is known at every 64th rank by counting
bits. Between, it can rise or fall only as far as the members there allow, and it is followed rank
by rank only where that may be to a new extreme. Threads take latents side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt32, UInt64

from saeflow.compiling import compiled
from saeflow.statistics.areas import area_of_rank_sum

_SIGN = np.uint32(0x80000000)
_WORD = 64  # bits
_ONE, _WORD_BITS, _WITHIN = np.uint64(1), np.uint64(6), np.uint64(63)
_DIGIT_BITS = 11  # three digits sort 32 bits, and their counts stay in the nearest cache
_DIGITS = 1 << _DIGIT_BITS


class Order(NamedTuple):
    """Tokens from the largest weight to the smallest."""

    tokens: Int32[np.ndarray, " tokens"]
    ranks: Int32[np.ndarray, "tokens 2"]
    """Per token its rank, and twice the mean rank of those of equal weight."""
    inner: UInt64[np.ndarray, " words"]
    """Bits of ranks that are followed by an equal weight: a running sum is not read there."""
    tie_term: float
    """Sum of t³ - t over runs of t equal weights; logit weights in float32 have some in nearly
    every row."""


class Standing(NamedTuple):
    """How the members of each set stand in an order."""

    ks: Float64[np.ndarray, " sets"]
    """Two-sample Kolmogorov-Smirnov statistic, positive where members lie above the others."""
    auc: Float64[np.ndarray, " sets"]
    """Probability that a member lies above another token, ties counted half."""
    leading: Int64[np.ndarray, " sets"]
    """Members up to where the running sum is furthest from 0, counted from the end they gather
    at."""


@dataclass(frozen=True)
class SetIndex:
    """Token sets, ready to be looked up in one order after another.

    Attributes:
        members: of all sets, one set after another.
        starts: where each set begins in them; one more at the end.
        tokens: how many tokens there are in all.
    """

    members: Int32[np.ndarray, " members"]
    starts: Int64[np.ndarray, " sets_1"]
    tokens: int

    @classmethod
    def of(cls, members: Sequence[Int32[np.ndarray, " members"]], tokens: int) -> SetIndex:
        """Index sets, none of them empty or whole, of a vocabulary of so many tokens."""
        every = np.concatenate([np.empty(0, np.int32), *members]).astype(np.int32)
        return cls(every, np.cumsum([0, *map(len, members)]), tokens)


def ordered(weights: Float32[np.ndarray, " tokens"]) -> Order:
    """Sort tokens by falling weight; among equal weights by rising place."""
    # 0 - w: falling order, and one zero instead of two
    keys = (np.float32(0) - weights).view(np.uint32)
    keys ^= (keys.view(np.int32) >> 31).view(np.uint32) | _SIGN
    tokens, keys = _sorted(keys)
    return Order(tokens, *_ranked(tokens, keys))


def standings(order: Order, sets: SetIndex) -> Standing:
    """How each set stands in an order of tokens.

    With m members and n others, the running sum after r tokens, h of them members, is h / m - (r -
    h) / n, which is (h tokens - m r) / (m n): whole numbers hold all of it.
    """
    m = np.diff(sets.starts)
    n = sets.tokens - m
    extremes, passed, ranks = _followed(order.ranks, order.inner, sets.members, sets.starts)
    # These ranks are doubled, start from 0 and count from the largest weight.
    auc = area_of_rank_sum(m * sets.tokens - ranks / 2, m, n)
    return Standing(extremes / (m * n), auc, np.where(extremes >= 0, passed, m - passed))


@compiled
def _sorted(
    keys: UInt32[np.ndarray, " tokens"],
) -> tuple[Int32[np.ndarray, " tokens"], UInt32[np.ndarray, " tokens"]]:
    """Sort whole numbers digit by digit, the lowest first, each by counting; equal ones keep their
    order.

    Returns:
        The places of the sorted numbers, and the numbers.
    """
    tokens = len(keys)
    places = np.arange(tokens).astype(np.int32)
    other_keys, other_places = np.empty_like(keys), np.empty_like(places)
    counts = np.zeros((3, _DIGITS), np.int64)
    for key in keys:
        for digit in range(3):
            counts[digit, (key >> np.uint32(digit * _DIGIT_BITS)) & np.uint32(_DIGITS - 1)] += 1
    for digit in range(3):
        next_place = 0
        for value in range(_DIGITS):
            count = counts[digit, value]
            counts[digit, value] = next_place
            next_place += count
        shift = np.uint32(digit * _DIGIT_BITS)
        for rank in range(tokens):
            value = (keys[rank] >> shift) & np.uint32(_DIGITS - 1)
            to = counts[digit, value]
            counts[digit, value] = to + 1
            other_keys[to], other_places[to] = keys[rank], places[rank]
        keys, other_keys = other_keys, keys
        places, other_places = other_places, places
    return places, keys


@compiled
def _ranked(
    order: Int32[np.ndarray, " tokens"], keys: UInt32[np.ndarray, " tokens"]
) -> tuple[Int32[np.ndarray, "tokens 2"], UInt64[np.ndarray, " words"], float]:
    """What an `Order` says of sorted tokens whose numbers are equal where their weights are."""
    tokens = len(order)
    ranks = np.empty((tokens, 2), np.int32)
    inner = np.zeros((tokens + _WORD - 1) // _WORD, np.uint64)
    first, tie_term = 0, 0.0
    while first < tokens:
        end = first + 1
        while end < tokens and keys[end] == keys[first]:
            end += 1
        for rank in range(first, end):
            ranks[order[rank], 0], ranks[order[rank], 1] = rank, first + end - 1
            if rank < end - 1:
                _set(inner, rank)
        run = float(end - first)
        tie_term += run * run * run - run
        first = end
    return ranks, inner, tie_term


@compiled
def _followed(
    ranks: Int32[np.ndarray, "tokens 2"],
    inner: UInt64[np.ndarray, " words"],
    members: Int32[np.ndarray, " members"],
    starts: Int64[np.ndarray, " sets_1"],
) -> tuple[Int64[np.ndarray, " sets"], Int64[np.ndarray, " sets"], Int64[np.ndarray, " sets"]]:
    """Follow the running sum of every set.

    Returns:
        Per set the running sum furthest from 0, times members × others (of two alike the positive
        one); how many members lie before that place; twice the sum of the members' ranks, of tied
        weights the mean rank.
    """
    tokens, sets, words = len(ranks), len(starts) - 1, len(inner)
    extremes = np.zeros(sets, np.int64)
    passed = np.zeros(sets, np.int64)
    sums = np.zeros(sets, np.int64)
    bits, before = np.empty(words, np.uint64), np.empty(words + 1, np.int64)
    for index in range(sets):
        bits[:] = 0
        total = 0
        for member in members[starts[index] : starts[index + 1]]:
            _set(bits, ranks[member, 0])
            total += ranks[member, 1]
        sums[index] = total
        extremes[index], passed[index] = _extreme(
            bits, inner, before, tokens, starts[index + 1] - starts[index]
        )
    return extremes, passed, sums


@compiled
def _set(bits: UInt64[np.ndarray, " words"], place: int) -> None:
    """Set one bit."""
    at = np.uint64(place)
    bits[at >> _WORD_BITS] |= _ONE << (at & _WITHIN)


@compiled
def _extreme(
    bits: UInt64[np.ndarray, " words"],
    inner: UInt64[np.ndarray, " words"],
    before: Int64[np.ndarray, " words_1"],
    tokens: int,
    size: int,
) -> tuple[int, int]:
    """The extreme of one set's running sum, and how many members lie before it.

    Args:
        bits: ranks of members.
        inner: ranks after which the sum is not read.
        before: written over: how many members lie before each word.
        tokens: of the vocabulary.
        size: of the set.
    """
    high, low, members_high, members_low, members = 0, 0, 0, 0, 0
    for word in range(len(bits)):
        before[word] = members
        members += np.int64(_ones(bits[word]))  # type: ignore[assignment]
        after = members * tokens - size * min(_WORD * (word + 1), tokens)
        if inner[word] >> np.uint64(_WORD - 1) == 0:
            if after > high:
                high, members_high = after, members
            if after < low:
                low, members_low = after, members
    before[len(bits)] = members
    for word in range(len(bits)):
        inside = before[word + 1] - before[word]
        others = min(_WORD, tokens - _WORD * word) - inside
        opens = before[word] * tokens - size * _WORD * word
        closes = opens + inside * tokens - size * (inside + others)
        highest = min(opens + inside * (tokens - size), closes + others * size)
        lowest = max(opens - others * size, closes - inside * (tokens - size))
        if highest <= high and lowest >= low:
            continue
        members = before[word]
        for bit in range(inside + others):
            members += (bits[word] >> np.uint64(bit)) & np.uint64(1)
            if (inner[word] >> np.uint64(bit)) & np.uint64(1):
                continue
            value = members * tokens - size * (_WORD * word + bit + 1)
            if value > high:
                high, members_high = value, members
            if value < low:
                low, members_low = value, members
    return (high, members_high) if high >= -low else (low, members_low)


@compiled
def _ones(word: np.uint64) -> int:
    """How many bits of a word are set (Warren 2012, "Hacker's Delight", 5-1)."""
    pairs = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + (
        (pairs >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    eights = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (eights * np.uint64(0x0101010101010101)) >> np.uint64(56)  # type: ignore[return-value]
