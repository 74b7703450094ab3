"""Linear probes and differences of means on the same concepts and halves: what a direction of one's
own finds.

A probe is a logistic regression on standardised activations with a penalty on its weights; a
difference of means is the direction from the mean of the positions without the concept to that of
those with it. Both are fitted on the half that chooses latents and measured on the held-out half,
as latents are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from saeflow.chess.held_out import HeldOut
from saeflow.chess.labelling import Labelled
from saeflow.config.sections.concepts import Concepts
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
_STEPS = 100  # of Newton's method at most; ten are usual
_TOLERANCE = 1e-8
_CONCEPTS_AT_ONCE = 16


class Directions(NamedTuple):
    """Where to look for concepts among activations.

    Attributes:
        weights: one direction per concept, in the activations' own units.
        offsets: of the log-odds; 0 for differences of means.
    """

    weights: Float64[np.ndarray, "d_model concepts"]
    offsets: Float64[np.ndarray, " concepts"]


def fit_probes(
    x: Float32[np.ndarray, "n d_model"], labels: Bool[np.ndarray, "n concepts"], penalty: float
) -> Directions:
    """Logistic regressions at their minima: mean log-loss and ``penalty / 2`` times the squared
    standardised weights.

    Newton's method with step halving, some concepts at a time; takes of the order of n d_model²
    operations per concept and step.
    """
    mean, spread = (
        x.mean(axis=0, dtype=np.float64),
        np.maximum(x.std(axis=0, dtype=np.float64), 1e-12),
    )
    standard = torch.from_numpy((x - mean) / spread)
    rows = torch.cat([standard, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    ridge = torch.full((rows.shape[1],), penalty, dtype=torch.float64)
    ridge[-1] = 0.0
    columns = torch.split(torch.from_numpy(labels).double(), _CONCEPTS_AT_ONCE, dim=1)
    fitted = torch.cat([_newton(rows, part, ridge) for part in columns], dim=1).numpy()
    weights = fitted[:-1] / spread[:, None]
    return Directions(weights, fitted[-1] - mean @ weights)


def _newton(rows: Tensor, targets: Tensor, ridge: Tensor) -> Tensor:
    rate = targets.mean(dim=0)
    w = torch.zeros(rows.shape[1], targets.shape[1], dtype=torch.float64)
    w[-1] = (rate / (1 - rate)).log()
    loss = _losses(rows, targets, ridge, w)
    for _ in range(_STEPS):
        odds = torch.sigmoid(rows @ w)
        gradient = rows.T @ (odds - targets) / len(rows) + ridge[:, None] * w
        if float(gradient.abs().max()) < _TOLERANCE:
            break
        curvature = odds * (1 - odds) / len(rows)
        step = torch.empty_like(w)
        for concept in range(w.shape[1]):
            hessian = (rows.T * curvature[:, concept]) @ rows + torch.diag(ridge + 1e-12)
            step[:, concept] = torch.linalg.solve(hessian, gradient[:, concept])
        w, loss = _shortened(rows, targets, ridge, w, step, loss)
    return w


def _shortened(
    rows: Tensor, targets: Tensor, ridge: Tensor, w: Tensor, step: Tensor, loss: Tensor
) -> tuple[Tensor, Tensor]:
    """The step, halved for each concept until its loss does not rise."""
    size = torch.ones_like(loss)
    for _ in range(30):
        tried = w - size * step
        found = _losses(rows, targets, ridge, tried)
        worse = found > loss + 1e-15
        if not bool(worse.any()):
            break
        size = torch.where(worse, size / 2, size)
    return tried, found


def _losses(rows: Tensor, targets: Tensor, ridge: Tensor, w: Tensor) -> Tensor:
    odds = rows @ w
    return (torch.nn.functional.softplus(odds) - targets * odds).mean(dim=0) + (
        ridge[:, None] * w**2
    ).sum(dim=0) / 2


def difference_of_means(
    x: Float32[np.ndarray, "n d_model"], labels: Bool[np.ndarray, "n concepts"]
) -> Directions:
    """The mean of the positions with each concept less that of those without, brought to length
    1."""
    total, count = x.sum(axis=0, dtype=np.float64), labels.sum(axis=0)
    inside = x.T.astype(np.float64) @ labels
    difference = inside / count - (total[:, None] - inside) / (len(x) - count)
    length = np.linalg.norm(difference, axis=0)
    return Directions(difference / np.where(length > 0, length, 1), np.zeros(labels.shape[1]))


def probe_kept(
    activations: Float32[np.ndarray, "n d_model"],
    labelled: Labelled,
    census: pl.DataFrame,
    settings: Concepts,
) -> pl.DataFrame:
    """`probe` of the concepts that are not skipped.

    Args:
        census: from `association.associate`.
    """
    kept = np.flatnonzero(census["skipped"].is_null().to_numpy())
    return (
        probe(activations, labelled, kept, settings) if len(kept) else pl.DataFrame(schema=PROBES)
    )


def probe(
    activations: Float32[np.ndarray, "n d_model"],
    labelled: Labelled,
    kept: Int64[np.ndarray, " concepts"],
    settings: Concepts,
) -> pl.DataFrame:
    """Fit both kinds of directions on one half and measure them on the other.

    Args:
        activations: of all positions, mean over tokens.
        labelled: the positions, their halves and concepts.
        kept: the places of the concepts that are not skipped.
        settings: of the stage.

    Returns:
        The columns of `PROBES`, two rows per concept.
    """
    parts, labels = labelled.parts, labelled.labels.values[:, kept]
    x, y = activations[parts.selection], labels[parts.selection]
    fitted = {
        PROBE: fit_probes(x, y, settings.probe_penalty),
        DIFFERENCE: difference_of_means(x, y),
    }
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
