"""What skill and interventions are studied on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int64

from saeflow.chess.analyses.concepts.directions import ConceptDirections
from saeflow.chess.analyses.concepts.labelling import Halves, Labelled
from saeflow.chess.games.examples import Examples
from saeflow.chess.knowledge.concepts import Concept, Labels
from saeflow.statistics.sparse_latents import SparseLatents


class Subject(NamedTuple):
    """Positions, which concepts hold in them, and which latents tell concepts.

    Attributes:
        examples: the studied positions, the moves played.
        labelled: their halves and concepts.
        associations: as `association.ASSOCIATIONS` has them.
        latents: of the positions, each at its own rating.
        best: an engine's move in every position, -1 where it was not asked; None without an engine.
        directions: of the same site, where edits go along them.
    """

    examples: Examples
    labelled: Labelled
    associations: pl.DataFrame
    latents: SparseLatents
    best: Int64[np.ndarray, " n"] | None = None
    directions: ConceptDirections | None = None

    @property
    def labels(self) -> Labels:
        """The concepts that hold in each position."""
        return self.labelled.labels

    @property
    def concepts(self) -> list[Concept]:
        """All concepts, skipped or not."""
        return self.labelled.labels.concepts

    @property
    def parts(self) -> Halves:
        """The half that associations were chosen on, and the one they were measured on."""
        return self.labelled.parts

    @property
    def played(self) -> Int64[np.ndarray, " n"]:
        """The move played in every position."""
        return self.examples.moves.astype(np.int64)
