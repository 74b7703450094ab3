"""Linear probes and differences of means on the same concepts and halves: what a direction of one's
own finds.

Both are fitted on the half that chooses latents and measured on the held-out half, as latents are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int64

from saeflow.chess.analyses.concepts.held_out import HeldOut
from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.statistics.probes import Directions, difference_of_means, fit_probes
from saeflow.statistics.sparse_areas import clustered_area
from saeflow.tables import Schema

PROBE, DIFFERENCE = "probe", "difference_of_means"
PROBES: Schema = {
    "concept": pl.String,
    "family": pl.String,
    "square": pl.Int8,
    "method": pl.String,
    "auc_selection": pl.Float64,
    "auc": pl.Float64,
    "auc_low": pl.Float64,
    "auc_high": pl.Float64,
    "p": pl.Float64,
    "untested": pl.String,
}


def fit(
    activations: Float32[np.ndarray, "n d_model"],
    labelled: Labelled,
    kept: Int64[np.ndarray, " concepts"],
    settings: Concepts,
) -> dict[str, Directions]:
    """Fit both kinds of directions on the half that chooses latents.

    Args:
        activations: of all positions, mean over tokens.
        labelled: the positions, their halves and concepts.
        kept: the places of the concepts that are not skipped.
        settings: of the stage.

    Returns:
        Directions of the concepts kept, by method; none where no concept is kept.
    """
    if not len(kept):
        return {}
    chosen = labelled.parts.selection
    x, y = activations[chosen], labelled.labels.values[chosen][:, kept]
    return {
        PROBE: fit_probes(x, y, settings.probe_penalty),
        DIFFERENCE: difference_of_means(x, y),
    }


def measure(
    fitted: dict[str, Directions],
    activations: Float32[np.ndarray, "n d_model"],
    labelled: Labelled,
    kept: Int64[np.ndarray, " concepts"],
    settings: Concepts,
) -> pl.DataFrame:
    """How well directions tell their concepts on either half.

    Args:
        fitted: from `fit`; the others as there.

    Returns:
        The columns of `PROBES`, two rows per concept.
    """
    if not fitted:
        return pl.DataFrame(schema=PROBES)
    held_out = HeldOut.of(labelled, settings)
    rows = [
        row
        for method, directions in fitted.items()
        for row in _measured(activations @ directions.weights, labelled, kept, held_out, method)
    ]
    named = [labelled.labels.concepts[index] for index in kept]
    table = pl.DataFrame(rows).with_columns(
        concept=pl.Series([concept.name for concept in named] * len(fitted)),
        family=pl.Series([concept.family for concept in named] * len(fitted)),
        square=pl.Series([concept.square for concept in named] * len(fitted)),
    )
    return table.select(pl.col(name).cast(kind) for name, kind in PROBES.items())


def _measured(
    scores: Float64[np.ndarray, "n concepts"],
    labelled: Labelled,
    kept: Int64[np.ndarray, " concepts"],
    held_out: HeldOut,
    method: str,
) -> Iterator[dict[str, float | str | None]]:
    """The areas of both halves; the p of a probe is of the distribution that its interval is
    from."""
    for score, concept in zip(scores.T, kept.tolist(), strict=True):
        label = labelled.labels.values[:, concept]
        chosen, held = (
            clustered_area(
                np.arange(len(rows)),
                score[rows].astype(np.float32),
                label[rows],
                np.unique(labelled.games[rows], return_inverse=True)[1],
                held_out.settings.interval,
            )
            for rows in labelled.parts
        )
        held = held_out.bounded(concept, held)
        yield {
            "method": method,
            "auc_selection": chosen.auc,
            "auc": held.auc,
            "auc_low": held.low,
            "auc_high": held.high,
            "p": held.p,
            "untested": held_out.untested(concept),
        }
