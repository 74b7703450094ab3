"""What held-out games say of a latent and a concept: an area, its interval, and what chance gives
in its place.

Games are the units: positions of one are alike. Of a concept that too few games have, or lack,
nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.seeds import numpy_generator
from saeflow.statistics.areas import Area
from saeflow.statistics.rotation import Rotations
from saeflow.statistics.sparse_areas import clustered_area
from saeflow.statistics.sparse_latents import SparseLatents


class Measured(NamedTuple):
    """An area on the held-out half.

    Attributes:
        auc: the area.
        low, high: its interval.
        p: two-sided, of an area so far from one half where labels and positions are out of step.
        chance_low, chance_high: between which areas out of step lie, as often as the level of
            intervals says.
    """

    auc: float
    low: float
    high: float
    p: float
    chance_low: float
    chance_high: float


NOTHING_CLAIMED = (0.0, 1.0, 1.0, np.nan, np.nan)
"""In place of interval, p and chance where too few games tell."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out positions, those of a game together.

    Attributes:
        labels: of which concepts hold.
        names: of the concepts.
        games: the game of each position, counted from 0.
        having: in how many games each concept holds somewhere.
        lacking: in how many it is absent somewhere.
        settings: of the stage.
    """

    labels: Bool[np.ndarray, "n concepts"]
    names: list[str]
    games: Int64[np.ndarray, " n"]
    having: Int64[np.ndarray, " concepts"]
    lacking: Int64[np.ndarray, " concepts"]
    settings: Concepts

    @classmethod
    def of(cls, labelled: Labelled, settings: Concepts) -> HeldOut:
        """The held-out half."""
        rows = labelled.parts.held_out
        labels = labelled.labels.values[rows]
        games = np.unique(labelled.games[rows], return_inverse=True)[1]
        names = [concept.name for concept in labelled.labels.concepts]
        starts = np.flatnonzero(np.diff(games, prepend=-1))
        having, all_have = (
            reduce.reduceat(labels, starts, axis=0) for reduce in (np.logical_or, np.logical_and)
        )
        return cls(labels, names, games, having.sum(axis=0), (~all_have).sum(axis=0), settings)

    def untested(self, concept: int) -> str | None:
        """Why nothing is claimed of a concept, or None."""
        if (having := int(self.having[concept])) < self.settings.games:
            return f"only {having} held-out games have it, fewer than {self.settings.games}"
        if (lacking := int(self.lacking[concept])) < self.settings.games:
            return f"only {lacking} held-out games lack it, fewer than {self.settings.games}"
        return None

    def rotations(self, seed: int) -> Rotations:
        """The draws of labels out of step, for all concepts."""
        starts = np.append(np.flatnonzero(np.diff(self.games, prepend=-1)), len(self.games))
        return Rotations(starts, self.settings.draws, numpy_generator(seed, "chess draws"))

    def measured(
        self, concept: int, chosen: Sequence[int], latents: SparseLatents, rotations: Rotations
    ) -> list[Measured]:
        """How well latents tell a concept.

        Args:
            concept: its place.
            chosen: the latents.
            latents: of the held-out positions.
            rotations: of the same.
        """
        label, level = self.labels[:, concept], self.settings.interval
        areas = [
            clustered_area(*latents.of_latent(latent), label, self.games, level)
            for latent in chosen
        ]
        if self.untested(concept):
            return [Measured(area.auc, *NOTHING_CLAIMED) for area in areas]
        ranks = np.stack([latents.ranks.column(latents, latent) for latent in chosen], axis=1)
        chances = rotations.chances(label, ranks, level)
        pairs = zip(areas, chances, strict=True)
        return [Measured(area.auc, area.low, area.high, *chance) for area, chance in pairs]

    def bounded(self, concept: int, area: Area) -> Area:
        """The area as it is if enough games tell, else with an interval and a p that claim
        nothing."""
        return area._replace(low=0.0, high=1.0, p=1.0) if self.untested(concept) else area
