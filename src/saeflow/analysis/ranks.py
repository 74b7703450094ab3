"""Where the members of token sets stand among all tokens, in the order of one latent's logit weights.

One sort per latent serves all sets, and nothing of the size sets × latents × tokens is ever made. The published score
of a set is the extreme of a running sum along the sorted tokens. A token's memberships are the bits of one word, so 64
sets are sorted at once. Turned about, a word tells which of 64 consecutive ranks are members of one set; its bits are
counted, and the running sum is known at the end of every such block. Between, it can rise or fall only as far as the
members in it allow, so it is followed token by token only in the few blocks that may hold the extreme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt64

_SIGN = np.uint32(0x80000000)
_BLOCK = 64  # ranks, and bits of a word
_LIMITS = np.iinfo(np.int32)
# Masks of the six steps that turn a matrix of 64 × 64 bits about (Warren 2012, "Hacker's Delight", 7-3).
_TURNS = (
    (32, 0x00000000FFFFFFFF),
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


class Ties(NamedTuple):
    """Runs of equal weights in the sorted order; logit weights in float32 have some in nearly every row."""

    ranks: Int64[np.ndarray, " tied"]
    """Ranks that belong to such runs."""
    middles: Int64[np.ndarray, " tied"]
    """Per such rank twice the mean rank of its run."""
    within: Int64[np.ndarray, " within"]
    """Ranks that are followed by an equal weight."""
    term: float
    """Sum of t³ - t over runs of length t."""


class Order(NamedTuple):
    """Tokens from the largest weight to the smallest."""

    tokens: Int64[np.ndarray, " tokens"]
    ties: Ties | None
    """None where no two weights are equal."""


class Standing(NamedTuple):
    """How the members of each set stand in an order."""

    ks: Float64[np.ndarray, " sets"]
    """Two-sample Kolmogorov-Smirnov statistic, positive where members lie above the others."""
    auc: Float64[np.ndarray, " sets"]
    """Probability that a member lies above another token, ties counted half."""
    leading: Int64[np.ndarray, " sets"]
    """Members up to where the running sum is furthest from 0, counted from the end they gather at."""


class Extreme(NamedTuple):
    """A running sum at one of its ends: its value times members × others, and after how many tokens it is reached."""

    values: Int64[np.ndarray, " sets"]
    places: Int64[np.ndarray, " sets"]


@dataclass(frozen=True)
class SetIndex:
    """Token sets, ready to be looked up in one order after another.

    Attributes:
        places: members of all sets, one set after another.
        starts: where each set begins in them.
        words: per 64 sets and token, of which of them it is a member; a last token is a member of none.
        sizes: of the sets.
        fallen: per set and block, its size times the ranks up to the block's end.
        steps: per set its size times 1, 2, … up to the ranks of a block.
        tokens: how many tokens there are in all.
    """

    places: Int64[np.ndarray, " members"]
    starts: Int64[np.ndarray, " sets"]
    words: UInt64[np.ndarray, "groups tokens_1"]
    sizes: Int64[np.ndarray, " sets"]
    fallen: Int64[np.ndarray, "sets blocks"]
    steps: Int32[np.ndarray, "sets ranks"]
    tokens: int

    @classmethod
    def of(cls, members: Sequence[Int32[np.ndarray, " members"]], tokens: int) -> SetIndex:
        """Index sets, none of them empty or whole, of a vocabulary of so many tokens."""
        sizes = np.array([len(own) for own in members], dtype=np.int64)
        words = np.zeros((-(-len(members) // _BLOCK), tokens + 1), np.uint64)
        for number, own in enumerate(members):
            words[number // _BLOCK, own] |= np.uint64(1) << np.uint64(number % _BLOCK)
        places = np.concatenate([np.empty(0, np.int64), *(own.astype(np.int64) for own in members)])
        ends = np.minimum(np.arange(1, -(-tokens // _BLOCK) + 1) * _BLOCK, tokens)
        steps = (sizes[:, None] * np.arange(1, _BLOCK + 1)).astype(np.int32)
        return cls(places, np.cumsum(sizes) - sizes, words, sizes, sizes[:, None] * ends, steps, tokens)


def ordered(weights: Float32[np.ndarray, " tokens"]) -> Order:
    """Sort tokens by falling weight; among equal weights by rising place.

    The bits of the floats are turned so that they sort as whole numbers, first by their lower half, then by their upper
    one: NumPy sorts numbers of 16 bits by counting, three times faster than floats by comparing.
    """
    bits = (np.float32(0) - weights).view(np.uint32)  # 0 - w: falling order, and one zero instead of two
    bits ^= (bits.view(np.int32) >> 31).view(np.uint32) | _SIGN
    low = np.argsort((bits & np.uint32(0xFFFF)).astype(np.uint16), kind="stable")
    tokens = low[np.argsort((bits >> np.uint32(16)).astype(np.uint16)[low], kind="stable")]
    values = bits[tokens]
    within = np.flatnonzero(values[1:] == values[:-1])
    return Order(tokens, _ties(within) if len(within) else None)


def _ties(within: Int64[np.ndarray, " within"]) -> Ties:
    """Runs from the ranks that are followed by an equal weight."""
    opens = np.append(True, within[1:] != within[:-1] + 1)
    first = within[opens]
    lengths = np.diff(np.append(np.flatnonzero(opens), len(within))) + 1
    ranks = np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    runs = lengths.astype(np.float64)
    return Ties(ranks, np.repeat(2 * first + lengths - 1, lengths), within, float((runs**3 - runs).sum()))


def standings(order: Order, sets: SetIndex) -> Standing:
    """How each set stands in an order of tokens.

    With m members and n others, the running sum after r tokens, h of them members, is h / m - (r - h) / n, which is
    (h tokens - m r) / (m n): whole numbers hold all of it.
    """
    m, n = sets.sizes, sets.tokens - sets.sizes
    if not len(m):
        return Standing(np.empty(0), np.empty(0), np.empty(0, np.int64))
    high, low = _extremes(order, sets)
    above = high.values >= -low.values
    values, places = np.where(above, high.values, low.values), np.where(above, high.places, low.places)
    passed = (values + m * places) // sets.tokens
    pairs = m * n
    larger = m * (m - 1) / 2 + pairs - _rank_sums(order, sets)
    return Standing(values / pairs, larger / pairs, np.where(above, passed, m - passed))


def _rank_sums(order: Order, sets: SetIndex) -> Float64[np.ndarray, " sets"]:
    """Sums of the members' ranks, of tied weights the mean rank."""
    by_rank = np.arange(0, 2 * sets.tokens, 2, dtype=np.int32)
    if order.ties:
        by_rank[order.ties.ranks] = order.ties.middles
    by_token = np.empty(sets.tokens, np.int32)
    by_token[order.tokens] = by_rank
    return np.add.reduceat(by_token[sets.places], sets.starts, dtype=np.int64) / 2


def _extremes(order: Order, sets: SetIndex) -> tuple[Extreme, Extreme]:
    """The highest and the lowest value of each set's running sum, where weights are tied at the end of their run."""
    m, n = sets.sizes[:, None], sets.tokens - sets.sizes[:, None]
    words = _by_set(order, sets)
    hits = np.bitwise_count(words)
    after = np.cumsum(hits, axis=1, dtype=np.int64)
    after *= sets.tokens
    after -= sets.fallen
    read = _read(order, sets)
    ends = np.minimum(np.arange(1, words.shape[1] + 1) * _BLOCK, sets.tokens)
    known = np.where(read.reshape(-1)[ends - 1], after, 0)
    high, low = known.argmax(axis=1), known.argmin(axis=1)
    rows = np.arange(len(m))
    highest, lowest = Extreme(known[rows, high], ends[high]), Extreme(known[rows, low], ends[low])
    # A block that ends at `after` was never higher than that and what its other tokens took away since, nor lower than
    # that less what its members added.
    lowered = after - hits * n
    may_hold = after + (_BLOCK - hits.astype(np.int64)) * m > highest.values[:, None]
    may_hold |= lowered < lowest.values[:, None]
    at, block = np.divmod(np.flatnonzero(may_hold), words.shape[1])
    start = np.where(block > 0, after[at, block - 1], 0)
    walk = _followed(words[at, block], sets, at)
    partly = np.flatnonzero(~np.all(read, axis=1)[block])
    unread, each = ~read[block[partly]], np.arange(len(at))
    for extreme, farthest, never, sign in (
        (highest, np.argmax, _LIMITS.min, 1),
        (lowest, np.argmin, _LIMITS.max, -1),
    ):
        walk[partly] = np.where(unread, never, walk[partly])
        place = farthest(walk, axis=1)
        _take(extreme, at, start + walk[each, place], block * _BLOCK + place + 1, sign)
    return highest, lowest


def _by_set(order: Order, sets: SetIndex) -> UInt64[np.ndarray, "sets blocks"]:
    """Per set and block of 64 ranks a word whose bit i is set where the token at rank i of the block is a member."""
    blocks = -(-sets.tokens // _BLOCK)
    found = np.empty((len(sets.words), _BLOCK, blocks), np.uint64)
    padded = np.append(order.tokens, np.full(blocks * _BLOCK - sets.tokens, sets.tokens))
    for words, turned in zip(sets.words, found, strict=True):
        turned[:] = words[padded].reshape(blocks, _BLOCK).T
        for width, mask in _TURNS:
            halves = turned.reshape(-1, 2, width, blocks)
            first, second = halves[:, 0], halves[:, 1]
            crossed = ((first >> np.uint64(width)) ^ second) & np.uint64(mask)
            second ^= crossed
            crossed <<= np.uint64(width)
            first ^= crossed
    return found.reshape(-1, blocks)[: len(sets.sizes)]


def _read(order: Order, sets: SetIndex) -> Bool[np.ndarray, "blocks ranks"]:
    """After which ranks the running sum is read: not within a run of equal weights, nor after the last token."""
    read = np.ones((sets.fallen.shape[1], _BLOCK), np.bool_)
    read.reshape(-1)[sets.tokens :] = False
    if order.ties:
        read.reshape(-1)[order.ties.within] = False
    return read


def _followed(
    words: UInt64[np.ndarray, " blocks"], sets: SetIndex, at: Int64[np.ndarray, " blocks"]
) -> Int32[np.ndarray, "blocks ranks"]:
    """Running sums token by token within some blocks, from 0 on; they are at most 64 times the number of tokens.

    Args:
        words: members of each block.
        sets: the sets.
        at: per block the set.
    """
    hits = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    walk = np.cumsum(hits, axis=1, dtype=np.uint8) * np.int32(sets.tokens)
    walk -= sets.steps[at]
    return walk


def _take(
    found: Extreme,
    at: Int64[np.ndarray, " blocks"],
    values: Int64[np.ndarray, " blocks"],
    places: Int64[np.ndarray, " blocks"],
    sign: int,
) -> None:
    """Put the largest (or, with sign -1, the smallest) value of each set in its place if it is beyond what is there."""
    order = np.argsort(sign * values, kind="stable")
    order = order[sign * values[order] > sign * found.values[at[order]]]
    found.values[at[order]], found.places[at[order]] = values[order], places[order]  # of one set the last one stays
