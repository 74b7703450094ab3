"""Linear probes and differences of means: directions along which activations tell labels.

A probe is a logistic regression on standardised activations with a penalty on its weights; a
difference of means is the direction from the mean of the rows without a label to that of those with
it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

_STEPS = 100  # of Newton's method at most; ten are usual
_TOLERANCE = 1e-8
_LABELS_AT_ONCE = 16


class Directions(NamedTuple):
    """Directions along which activations tell labels.

    Attributes:
        weights: one direction per label, in the activations' own units.
        offsets: of the log-odds; 0 for differences of means.
    """

    weights: Float64[np.ndarray, "d_model labels"]
    offsets: Float64[np.ndarray, " labels"]


def fit_probes(
    x: Float32[np.ndarray, "n d_model"], labels: Bool[np.ndarray, "n labels"], penalty: float
) -> Directions:
    """Logistic regressions at their minima: mean log-loss and ``penalty / 2`` times the squared
    standardised weights.

    Newton's method with step halving, some labels at a time; takes of the order of n d_model²
    operations per label and step.
    """
    mean, spread = (
        x.mean(axis=0, dtype=np.float64),
        np.maximum(x.std(axis=0, dtype=np.float64), 1e-12),
    )
    standard = torch.from_numpy((x - mean) / spread)
    rows = torch.cat([standard, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    ridge = torch.full((rows.shape[1],), penalty, dtype=torch.float64)
    ridge[-1] = 0.0
    columns = torch.split(torch.from_numpy(labels).double(), _LABELS_AT_ONCE, dim=1)
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
        for label in range(w.shape[1]):
            hessian = (rows.T * curvature[:, label]) @ rows + torch.diag(ridge + 1e-12)
            step[:, label] = torch.linalg.solve(hessian, gradient[:, label])
        w, loss = _shortened(rows, targets, ridge, w, step, loss)
    return w


def _shortened(
    rows: Tensor, targets: Tensor, ridge: Tensor, w: Tensor, step: Tensor, loss: Tensor
) -> tuple[Tensor, Tensor]:
    """The step, halved for each label until its loss does not rise."""
    size = torch.ones_like(loss)
    for _ in range(30):
        tried = w - size * step
        losses = _losses(rows, targets, ridge, tried)
        worse = losses > loss + 1e-15
        if not bool(worse.any()):
            break
        size = torch.where(worse, size / 2, size)
    return tried, losses


def _losses(rows: Tensor, targets: Tensor, ridge: Tensor, w: Tensor) -> Tensor:
    odds = rows @ w
    return (torch.nn.functional.softplus(odds) - targets * odds).mean(dim=0) + (
        ridge[:, None] * w**2
    ).sum(dim=0) / 2


def difference_of_means(
    x: Float32[np.ndarray, "n d_model"], labels: Bool[np.ndarray, "n labels"]
) -> Directions:
    """The mean of the rows with each label less that of those without, brought to length 1."""
    total, count = x.sum(axis=0, dtype=np.float64), labels.sum(axis=0)
    inside = x.T.astype(np.float64) @ labels
    difference = inside / count - (total[:, None] - inside) / (len(x) - count)
    length = np.linalg.norm(difference, axis=0)
    return Directions(difference / np.where(length > 0, length, 1), np.zeros(labels.shape[1]))
