"""Directions of the activations' own space that tell concepts, ready to be moved along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.statistics.probes import Directions


class ConceptDirections(NamedTuple):
    """One direction per concept and method; all numbers are of the games that choose.

    Attributes:
        concepts: the name of each direction's concept.
        methods: how each was fitted: `probes.PROBE` or `probes.DIFFERENCE`.
        vectors: of length 1; where a method finds no direction, zeros.
        without: where along it the mean of the positions lies that lack the concept.
        apart: how much further the mean of those lies that have it.
    """

    concepts: list[str]
    methods: list[str]
    vectors: Float32[np.ndarray, "n d_model"]
    without: Float64[np.ndarray, " n"]
    apart: Float64[np.ndarray, " n"]

    def of_method(self, method: str) -> dict[str, int]:
        """The row of each concept."""
        pairs = zip(self.concepts, self.methods, strict=True)
        return {concept: row for row, (concept, own) in enumerate(pairs) if own == method}


def concept_directions(
    fitted: Mapping[str, Directions],
    activations: Float32[np.ndarray, "n d_model"],
    labelled: Labelled,
    kept: Int64[np.ndarray, " concepts"],
) -> ConceptDirections:
    """What `probes.fit` found, brought to length 1, with the places of both kinds of positions.

    Args:
        fitted: by method.
        activations: of all positions, mean over tokens.
        labelled: the positions, their halves and concepts.
        kept: the places of the concepts that were fitted.
    """
    names = [labelled.labels.concepts[index].name for index in kept]
    if not fitted:
        d_model = activations.shape[1]
        nothing = np.zeros(0)
        return ConceptDirections([], [], np.zeros((0, d_model), np.float32), nothing, nothing)
    chosen = labelled.parts.selection
    x, holds = activations[chosen].astype(np.float64), labelled.labels.values[chosen][:, kept]
    count, total = holds.sum(axis=0)[:, None], x.sum(axis=0)
    inside = holds.T @ x
    having, lacking = inside / count, (total - inside) / (len(x) - count)
    vectors = np.concatenate([_unit(directions.weights.T) for directions in fitted.values()])
    without = np.einsum("nd,nd->n", vectors, np.tile(lacking, (len(fitted), 1)))
    beyond = np.einsum("nd,nd->n", vectors, np.tile(having - lacking, (len(fitted), 1)))
    return ConceptDirections(
        names * len(fitted),
        [method for method in fitted for _ in names],
        np.ascontiguousarray(vectors, np.float32),  # the file's writer heeds no other order
        without,
        beyond,
    )


def _unit(rows: Float64[np.ndarray, "n d_model"]) -> Float64[np.ndarray, "n d_model"]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
