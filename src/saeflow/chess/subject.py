"""What skill and interventions are studied on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int64

from saeflow.chess.association import Halves
from saeflow.chess.concepts import Labels
from saeflow.chess.latents import SparseLatents
from saeflow.corpora.chess.examples import Examples


class Subject(NamedTuple):
    """Positions, which concepts hold in them, and which latents tell concepts.

    Attributes:
        examples: positions, the moves played, the games.
        labels: of the positions.
        associations: as `association.ASSOCIATIONS` has them.
        latents: of the positions, each at its own rating.
        parts: the halves that associations were made with.
        best: an engine's move in every position, -1 where it was not asked; None without an engine.
    """

    examples: Examples
    labels: Labels
    associations: pl.DataFrame
    latents: SparseLatents
    parts: Halves
    best: Int64[np.ndarray, " n"] | None = None

    @property
    def played(self) -> Int64[np.ndarray, " n"]:
        """The move played in every position."""
        return self.examples.moves.astype(np.int64)
