"""The best of many prompts by two measures: an objective that is to be large, and a cross-entropy
that is to be small."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64


class Front(NamedTuple):
    """Prompts that no other betters in both measures, by rising cross-entropy.

    Every value is above those before it.
    """

    prompts: Int64[np.ndarray, "front n"]
    values: Float64[np.ndarray, " front"]
    losses: Float64[np.ndarray, " front"]

    def best_within(self, loss: float) -> float:
        """The largest value at a cross-entropy that is no larger; NaN where there is none."""
        within = np.searchsorted(self.losses, loss, side="right")
        return float(self.values[within - 1]) if within else float("nan")

    def without(self, prompts: Collection[tuple[int, ...]]) -> Front:
        """Those of the front that are none of some prompts."""
        kept = np.array([tuple(each) not in prompts for each in self.prompts.tolist()], dtype=bool)
        return Front(*(each[kept] for each in self))

    def best_under(self, penalty: float, scale: float = 1.0) -> int:
        """The place of the prompt that is best under a penalty."""
        return int(np.argmax(self.values / scale - penalty * self.losses))

    def spread(self, most: int) -> Front:
        """So many of them: both ends, and what lies at equal steps of cross-entropy between."""
        if len(self.values) <= most:
            return self
        wanted = np.linspace(self.losses[0], self.losses[-1], most)
        places = np.searchsorted(self.losses, wanted, side="right") - 1
        places[-1] = len(self.values) - 1
        return Front(*(each[np.unique(places)] for each in self))


def empty(n: int) -> Front:
    """A front without prompts of so many tokens."""
    return Front(np.empty((0, n), np.int64), np.empty(0), np.empty(0))


def merged(
    front: Front,
    prompts: Int64[np.ndarray, "rows n"],
    values: Float64[np.ndarray, " rows"],
    losses: Float64[np.ndarray, " rows"],
) -> Front:
    """The front of its prompts and of others; of equal ones the first."""
    every = Front(
        np.concatenate([front.prompts, prompts]),
        np.concatenate([front.values, values]),
        np.concatenate([front.losses, losses]),
    )
    order = np.lexsort((-every.values, every.losses))
    best = np.maximum.accumulate(np.append(-np.inf, every.values[order]))
    kept = order[every.values[order] > best[:-1]]
    return Front(*(each[kept] for each in every))
