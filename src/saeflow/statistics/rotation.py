"""What areas chance gives to series of games: every game's numbers beside the labels of another.

Positions of a game are alike, in what numbers say and in what holds, so that shuffled positions
would make chance look small. Here every game gets the labels of another game, rotated within it:
all that positions of a game have in common is kept, in labels and in numbers, and only what ties
the one to the other is broken. Games stay whole, for labels that lay across two games would average
over both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

_PARTNERS = 64  # games whose labels each game may get; their mixtures are many more than are drawn
_SAME = 1e-12  # areas that are equal but for rounding count as equal


class Chance(NamedTuple):
    """What is found out of step.

    Attributes:
        p: two-sided, of an area so far from one half.
        low, high: between which areas out of step lie.
    """

    p: float
    low: float
    high: float


class Rotations:
    """Games that change their labels, drawn once for all labels and numbers.

    Args:
        starts: where each game begins, and the end: positions of a game are neighbours; two games
            or more.
        draws: how many draws; every game's partner is drawn anew in each.
        generator: of the draws.
    """

    def __init__(
        self, starts: Int64[np.ndarray, " games_1"], draws: int, generator: np.random.Generator
    ) -> None:
        self._starts, lengths = starts, np.diff(starts)
        games = np.arange(len(lengths))
        order = generator.permutation(games)
        place = np.argsort(order)
        shifts = generator.permutation(games[1:])[:_PARTNERS]
        partners = order[(place + shifts[:, None]) % len(games)]
        offsets = generator.integers(0, lengths[partners])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        of = np.repeat(games, lengths)
        # A partner that is shorter goes on at its beginning.
        rotated = (within + offsets[:, of]) % lengths[partners][:, of]
        self._index = starts[partners][:, of] + rotated
        self._drawn = generator.integers(0, len(shifts), (draws, len(games)))
        picks = self._drawn * len(games) + games
        shape, ends = (draws, len(shifts) * len(games)), np.arange(draws + 1) * len(games)
        self._picks = sparse.csr_array((np.ones(picks.size), picks.ravel(), ends), shape=shape)

    def chances(
        self, label: Bool[np.ndarray, " n"], ranks: Float64[np.ndarray, "n series"], level: float
    ) -> list[Chance]:
        """How the areas of some series of numbers compare with those of the same numbers out of
        step.

        Args:
            label: some hold, some do not.
            ranks: mid-ranks of each series, from 1.
            level: share of the areas out of step that lie between the ends.

        Returns:
            Per series; the smallest p is 1 / (1 + draws).
        """
        n = len(label)
        # Sums of halves are exact in any order. The last column counts positives.
        columns = np.concatenate([ranks - (n + 1) / 2, np.ones((n, 1))], axis=1)
        seen = _distances(label.astype(np.float64) @ columns, n)
        partnered = label[self._index].astype(np.float64)
        by_game = [
            partnered[:, i:j] @ columns[i:j]
            for i, j in zip(self._starts[:-1], self._starts[1:], strict=True)
        ]
        sums = np.stack(by_game, axis=1).reshape(-1, columns.shape[1])
        drawn = _distances(self._picks @ sums, n)
        as_far = (np.abs(drawn) >= np.abs(seen) - _SAME).sum(axis=0)
        p = (1 + as_far) / (1 + len(drawn))
        ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0) + 0.5
        return [Chance(*map(float, series)) for series in zip(p, *ends, strict=True)]


def _distances(
    sums: Float64[np.ndarray, "*draws series_1"], n: int
) -> Float64[np.ndarray, "*draws series"]:
    """How far areas are from one half, from sums of centred ranks over the positives and their
    number."""
    positives = sums[..., -1:]
    return sums[..., :-1] / np.maximum(positives * (n - positives), 1)
