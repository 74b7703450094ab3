"""What is kept of a stream that is longer than memory: the best of every group, and its frequent
tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64


class Kept(NamedTuple):
    """What was kept, sorted by group and then by falling score."""

    groups: Int64[np.ndarray, " kept"]
    scores: Float64[np.ndarray, " kept"]
    rows: Int64[np.ndarray, " kept"]
    ranks: Int64[np.ndarray, " kept"]
    """Place in the group, from 0."""


class Best:
    """The entries of largest score in every group, at most one per block of text; of equal ones the
    first row.

    Memory is that of the entries kept, however long the stream is.
    """

    def __init__(self, groups: int, most: int) -> None:
        """Keep nothing yet.

        Args:
            groups: how many groups there are.
            most: entries kept of each.
        """
        self._most = most
        self._floor = np.full(groups, -np.inf)
        self._kept = [
            np.empty(0, np.int64),
            np.empty(0),
            np.empty(0, np.int64),
            np.empty(0, np.int64),
        ]

    def add(
        self,
        groups: Int64[np.ndarray, " entries"],
        scores: Float64[np.ndarray, " entries"],
        rows: Int64[np.ndarray, " entries"],
        blocks: Int64[np.ndarray, " entries"] | Int32[np.ndarray, " entries"],
    ) -> None:
        """Take entries, whose rows come after those of entries taken before."""
        new = scores > self._floor[groups]
        if not new.any():
            return
        given = [groups[new], scores[new], rows[new], blocks[new].astype(np.int64)]
        merged = [np.concatenate(pair) for pair in zip(self._kept, given, strict=True)]
        best = _first_of_block(merged)
        merged = [column[best] for column in merged]
        order = np.lexsort((merged[2], -merged[1], merged[0]))
        merged = [column[order] for column in merged]
        places = ranks(merged[0])
        self._kept = [column[places < self._most] for column in merged]
        last = merged[0][places == self._most - 1], merged[1][places == self._most - 1]
        self._floor[last[0]] = last[1]

    def kept(self) -> Kept:
        """What is kept so far."""
        groups, scores, rows, _ = self._kept
        return Kept(groups, scores, rows, ranks(groups))


def _first_of_block(columns: list[np.ndarray]) -> Bool[np.ndarray, " entries"]:
    """Which entries are the best of their group and block."""
    groups, scores, rows, blocks = columns
    order = np.lexsort((rows, -scores, blocks, groups))
    same = (groups[order][1:] == groups[order][:-1]) & (blocks[order][1:] == blocks[order][:-1])
    first = np.ones(len(groups), np.bool_)
    first[order[1:]] = ~same
    return first


def ranks(groups: Int64[np.ndarray, " entries"]) -> Int64[np.ndarray, " entries"]:
    """Per entry of a sorted list of groups its place in its group, from 0."""
    new = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])[: len(groups)])
    return np.arange(len(groups)) - np.repeat(new, np.diff(np.append(new, len(groups))))


class FrequentTokens:
    """Candidates for the token that each latent fires on most, in memory that does not grow with
    the stream.

    A token that makes up more than 1 / (candidates + 1) of a latent's firings is among its
    candidates for certain.

    Source: Misra and Gries 1982, "Finding repeated elements"; merged as in Agarwal et al. 2012,
        "Mergeable summaries".
    """

    def __init__(self, d_vocab: int, candidates: int = 64) -> None:
        """Know no token yet.

        Args:
            d_vocab: larger than every token.
            candidates: tokens per latent.
        """
        self._d_vocab, self._candidates = d_vocab, candidates
        self._keys = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)

    def add(
        self, latents: Int32[np.ndarray, " entries"], tokens: Int32[np.ndarray, " entries"]
    ) -> None:
        """Take entries."""
        keys = latents.astype(np.int64) * self._d_vocab + tokens
        keys, counts = np.unique(keys, return_counts=True)
        keys, places = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([self._counts, counts]), len(keys)).astype(
            np.int64
        )
        order = np.lexsort((keys, -counts, keys // self._d_vocab))
        keys, counts = keys[order], counts[order]
        groups = keys // self._d_vocab
        places = ranks(groups)
        # the largest count that has no place is taken off all others
        beyond = places == self._candidates
        counts -= np.where(
            np.isin(groups, groups[beyond]), _spread(groups, groups[beyond], counts[beyond]), 0
        )
        kept = places < self._candidates
        order = np.argsort(keys[kept])
        self._keys, self._counts = keys[kept][order], np.maximum(counts[kept][order], 0)

    def counter(self) -> TokenCounter:
        """Counts the candidates exactly, in a second pass over the stream."""
        return TokenCounter(self._keys, self._d_vocab)


def _spread(
    groups: Int64[np.ndarray, " entries"],
    named: Int64[np.ndarray, " some"],
    values: Int64[np.ndarray, " some"],
) -> Int64[np.ndarray, " entries"]:
    """Per entry the value of its group; anything where its group is not named."""
    if not len(named):
        return np.zeros_like(groups)
    return values[np.minimum(np.searchsorted(named, groups), len(named) - 1)]


class TokenCounter:
    """Exact counts of candidate tokens."""

    def __init__(self, keys: Int64[np.ndarray, " candidates"], d_vocab: int) -> None:
        """Count from zero.

        Args:
            keys: latent · d_vocab + token of every candidate, increasing.
            d_vocab: larger than every token.
        """
        self._keys, self._d_vocab = keys, d_vocab
        self._counts = np.zeros(len(keys), np.int64)

    def add(
        self, latents: Int32[np.ndarray, " entries"], tokens: Int32[np.ndarray, " entries"]
    ) -> None:
        """Take entries."""
        keys = latents.astype(np.int64) * self._d_vocab + tokens
        keys, counts = np.unique(keys, return_counts=True)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        is_candidate = self._keys[places] == keys
        self._counts[places[is_candidate]] += counts[is_candidate]

    def most(self, d_sae: int) -> tuple[Int64[np.ndarray, " d_sae"], Int64[np.ndarray, " d_sae"]]:
        """Per latent the token it fires on most and how often; -1 and 0 where it never fires."""
        tokens, counts = np.full(d_sae, -1), np.zeros(d_sae, np.int64)
        # of equal counts the smallest token comes last
        order = np.lexsort((-self._keys, self._counts))
        latents = self._keys[order] // self._d_vocab
        tokens[latents], counts[latents] = self._keys[order] % self._d_vocab, self._counts[order]
        return tokens, counts
