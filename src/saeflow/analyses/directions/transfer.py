"""Directions of several models: what those of one do in another, and how alike they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from saeflow.analyses.directions.candidates import unit
from saeflow.analyses.directions.interventions import Intervention, Measured, Trial
from saeflow.analyses.directions.io import Direction
from saeflow.analyses.directions.settings import EditMeasures
from saeflow.analyses.directions.summary import EDITS, summarise
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel

TRANSFER = {"source": pl.String, "direction": pl.String} | EDITS

ANGLES = {
    "source": pl.String,
    "direction": pl.String,
    "layer": pl.Int32,
    "position": pl.String,
    "cosine": pl.Float64,
    "smallest_angle": pl.Float64,
    "largest_angle": pl.Float64,
}


def moved(direction: Direction, lm: LanguageModel) -> list[Trial]:
    """A direction of any model as edits of this one: none, ablation, and addition of its own gap.

    Raises:
        SaeflowError: the model is of another width, or has fewer layers.
    """
    name, source = direction.metadata["name"], direction.metadata["model"]
    if len(direction.vector) != lm.d_model or direction.layer >= lm.n_layers:
        raise SaeflowError(
            f"directions: '{name}' of '{source}' is {len(direction.vector)} wide at layer "
            f"{direction.layer}, and this model {lm.d_model} wide with {lm.n_layers} layers; "
            "compare models of one shape"
        )
    vector, layer, gap = direction.vector, direction.layer, direction.gap
    return [
        Trial(Intervention("none", vector, layer, 0.0), "direction", 0, 0.0),
        Trial(Intervention("ablate", vector, layer, 0.0), "direction", 0, 0.0),
        Trial(Intervention("add", vector, layer, gap), "direction", 0, 1.0),
    ]


def transferred(
    measured: Measured, direction: Direction, settings: EditMeasures, seed: int
) -> pl.DataFrame:
    """What such edits did, with where the direction comes from."""
    return summarise(measured, settings, seed).select(
        pl.lit(direction.metadata["model"]).alias("source"),
        pl.lit(direction.metadata["name"]).alias("direction"),
        *EDITS,
    )


def angles_between(
    own: Float[Tensor, "positions layers d_model"],
    sources: Mapping[str, Float[Tensor, "positions layers d_model"]],
    positions: Sequence[str],
    layers: Sequence[int],
    direction: str,
) -> pl.DataFrame:
    """Cosines of candidates of one direction in a model and in others, and the angles between what
    they span at a layer.

    Args:
        own: differences of the model.
        sources: of other models, at the same positions and layers.
        positions: names.
        layers: numbers.
        direction: name.

    Returns:
        A row per other model, layer and position with the cosine; and one per other model and layer
        without a position, with the smallest and the largest principal angle between the spans of
        all positions, in degrees.

    Raises:
        SaeflowError: a model is of another shape.
    """
    for name, other in sources.items():
        if other.shape != own.shape:
            raise SaeflowError(
                f"directions: the activations of '{name}' have the shape {tuple(other.shape)} and "
                f"those compared with them {tuple(own.shape)}; compare models of one width, depth "
                "and template"
            )

    def rows() -> Iterator[tuple[object, ...]]:
        for name, other in sources.items():
            cosines = (unit(own) * unit(other)).sum(-1)
            for place, layer in enumerate(layers):
                for p, position in enumerate(positions):
                    yield name, direction, layer, position, float(cosines[p, place]), None, None
                between = subspace_angles(
                    own[:, place].double().numpy().T, other[:, place].double().numpy().T
                )
                ends = np.degrees([between.min(), between.max()])
                yield name, direction, layer, None, None, *map(float, ends)

    return pl.DataFrame(list(rows()), schema=ANGLES, orient="row")
