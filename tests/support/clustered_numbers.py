"""Games of which a label and a number are known in every position, each for stretches of some
games."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Drawn(NamedTuple):
    """One draw of a world."""

    values: np.ndarray
    label: np.ndarray
    games: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        return np.append(np.flatnonzero(np.diff(self.games, prepend=-1)), len(self.games))


@dataclass(frozen=True)
class World:
    """How labels and numbers come about.

    Attributes:
        games, per_game: how many, and positions of each.
        having: games in which the label holds, for one stretch of `run` positions.
        firing: share of the games in which the number is not 0, for a stretch.
        knowing: share of the games in which the number is large where the label holds.
        rounded: whether numbers have one digit, so that many are tied.
    """

    games: int = 50
    per_game: int = 30
    having: int = 30
    run: int = 6
    firing: float = 0.4
    knowing: float = 0.0
    rounded: bool = False

    def draws(self, count: int, seed: int = 0) -> Iterator[Drawn]:
        """So many draws, each of its own games."""
        generator, place = np.random.default_rng(seed), np.arange(self.per_game)
        games = np.repeat(np.arange(self.games), self.per_game)
        shape = (self.games, self.per_game)
        for _ in range(count):
            label = self._stretches(generator, place, np.full(self.games, self.run))
            label &= (generator.permutation(self.games) < self.having)[:, None]
            lengths = generator.integers(3, self.per_game, self.games)
            on = (
                self._stretches(generator, place, lengths)
                & (generator.random(self.games) < self.firing)[:, None]
            )
            values = np.where(on, generator.lognormal(0, 0.4, shape), 0)
            knows = label & (generator.random(self.games) < self.knowing)[:, None]
            values = np.where(knows, generator.lognormal(0.5, 0.5, shape), values)
            yield Drawn(
                (np.round(values) if self.rounded else values).ravel(), label.ravel(), games
            )

    def _stretches(
        self, generator: np.random.Generator, place: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Of every game a stretch that begins anywhere and goes on at its beginning: no place is
        special."""
        start = generator.integers(0, self.per_game, self.games)[:, None]
        return (place - start) % self.per_game < lengths[:, None]


CHANCE = {
    "30 of 50 games": World(),
    "all of 50 games": World(having=50),
    "single positions": World(run=1),
    "30 of 200 games": World(games=200),
    "long stretches": World(run=25),
    "tied numbers": World(rounded=True),
    "numbers in 1 game of 20": World(games=200, run=2, firing=0.05),
    "numbers in 1 game of 50": World(games=200, having=60, run=2, firing=0.02),
    "8 of 50 games": World(having=8),
}
"""The number knows nothing of the label."""
KNOWING = {
    "area 0.59": World(knowing=0.2),
    "area 0.77": World(knowing=0.6),
    "area 0.89": World(knowing=0.85),
    "area 0.97, rare numbers": World(firing=0.05, knowing=0.95),
    "area 0.99, rare numbers": World(games=200, firing=0.05, knowing=0.99),
    "area 0.76, tied numbers": World(knowing=0.6, rounded=True),
    "area 0.73, 100 of 200 games": World(games=200, having=100, knowing=0.5),
}
"""It does, in some of the games."""
