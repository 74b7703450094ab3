"""How well latents tell positions that have their concept from others, at every rating, with its
error over games.

Positions with a concept and positions without are both drawn from games, so that both add to the
error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from saeflow.chess.analyses.concepts.cases import Cases, join_cases
from saeflow.statistics.areas import (
    Error,
    area_interval,
    difference_interval,
    mean_area_error,
    placements,
)
from saeflow.statistics.clusters import Mean


@dataclass(frozen=True, eq=False)
class Awareness:
    """Placements of the cases of a group, those with their concept and those without.

    Attributes:
        place: of each case among the cases of its concept that are of the other class.
        controls: the same in random latents, on average.
        label: whether the concept holds.
        concepts: of each case.
        games: of each case.
        level: of intervals.
    """

    place: Float64[np.ndarray, "ratings n"]
    controls: Float64[np.ndarray, "ratings n"]
    label: Bool[np.ndarray, " n"]
    concepts: Int64[np.ndarray, " n"]
    games: Int64[np.ndarray, " n"]
    level: float

    @classmethod
    def of(
        cls,
        values: Float64[np.ndarray, "latents ratings n"],
        present: Cases,
        absent: Cases,
        level: float,
    ) -> Awareness:
        """Place cases; concepts that no case lacks, or none has, are left out.

        Args:
            values: of the concept's latent and of the random ones in its place, first in the cases
                that have it and then in those that lack it.
            present, absent: the cases.
            level: of intervals.
        """
        cases = join_cases([present, absent])
        label = np.arange(len(cases)) < len(present)
        both = np.isin(cases.concepts, np.intersect1d(present.concepts, absent.concepts))
        values, label, cases = values[:, :, both], label[both], cases.part(both)
        place = np.zeros(values.shape)
        for concept in np.unique(cases.concepts):
            mine = np.flatnonzero(cases.concepts == concept)
            for latent, rating in np.ndindex(values.shape[:2]):
                place[latent, rating, mine] = placements(values[latent, rating, mine], label[mine])
        controls = place[1:].mean(axis=0) if len(place) > 1 else np.full(place.shape[1:], np.nan)
        return cls(place[0], controls, label, cases.concepts, cases.games, level)

    def at(self, rating: int) -> Mean:
        """The area, averaged over concepts by their cases."""
        return self._mean(self.place[rating])

    def of_controls(self, rating: int) -> Mean:
        """The same of random latents."""
        return self._mean(self.controls[rating])

    def change(self, concept: int) -> Mean:
        """A concept's area at the strongest rating less that at the weakest."""
        mine = self.concepts == concept
        if not mine.any():
            return Mean(np.nan, np.nan, np.nan)
        weakest, strongest = (self._error(self.place[rating], mine) for rating in (0, -1))
        return Mean(*difference_interval(weakest, strongest, self.level))

    def _mean(self, place: Float64[np.ndarray, " n"]) -> Mean:
        if not len(place):
            return Mean(np.nan, np.nan, np.nan)
        area = area_interval(self._error(place, np.ones(len(place), bool)), self.level)
        return Mean(area.auc, area.low, area.high)

    def _error(self, place: Float64[np.ndarray, " n"], mine: Bool[np.ndarray, " n"]) -> Error:
        games = np.unique(self.games[mine], return_inverse=True)[1]
        return mean_area_error(place[mine], self.label[mine], games, self.concepts[mine])
