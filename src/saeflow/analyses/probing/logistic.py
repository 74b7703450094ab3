"""Logistic regressions of one set of rows for many strengths of the penalty at once.

The path over strengths is Newton's, each strength beginning where the one before ended. Fits of few
columns, of which sparse probes need hundreds, take a small part of what scikit-learn's general
solver takes, and end at the same minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy import linalg, special
from scipy.linalg import blas

_STEPS, _HALVINGS = 60, 30
_TOLERANCE = 1e-8  # of the gradient, per row and unit of strength


class Scaling(NamedTuple):
    """How columns are brought to mean 0 and spread 1, from training rows alone."""

    mean: Float64[np.ndarray, " d"]
    spread: Float64[np.ndarray, " d"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n d"]) -> Scaling:
        """Of training rows; a column without spread becomes 0."""
        spread = x.std(axis=0, dtype=np.float64)
        return cls(x.mean(axis=0, dtype=np.float64), np.where(spread > 1e-12, spread, np.inf))

    def scaled(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
        """Any rows, by the same numbers."""
        return np.asarray((x - self.mean) / self.spread, np.float64)


class Path(NamedTuple):
    """Regressions by rising strength: log-odds are ``x @ weights + intercepts``."""

    weights: Float64[np.ndarray, "d strengths"]
    intercepts: Float64[np.ndarray, " strengths"]

    def log_odds(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n strengths"]:
        """Of rows that are scaled as those it was fitted to."""
        return np.asarray(x @ self.weights + self.intercepts)


def ridge_path(
    x: Float64[np.ndarray, "n d"], y: Bool[np.ndarray, " n"], strengths: Sequence[float]
) -> Path:
    """Minima of ``C Σ log-loss + ½ |w|²`` for every C; the intercept has no price, as in
    scikit-learn.

    Args:
        x: scaled rows.
        y: their labels; there are some of both.
        strengths: values of C, rising.
    """
    if x.shape[1] > len(x):  # a penalty that no turn of the space changes: turn to what rows span
        left, sizes, right = linalg.svd(x, full_matrices=False)
        turned = ridge_path(left * sizes, y, strengths)
        return Path(right.T @ turned.weights, turned.intercepts)
    rows = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    target = y.astype(np.float64)
    w = np.zeros(rows.shape[1])
    w[-1] = special.logit(target.mean())
    path = np.empty((rows.shape[1], len(strengths)))
    for place, strength in enumerate(strengths):
        w = _minimum(rows, target, strength, w)
        path[:, place] = w
    return Path(path[:-1], path[-1])


def _minimum(
    rows: Float64[np.ndarray, "n d1"],
    target: Float64[np.ndarray, " n"],
    strength: float,
    w: Float64[np.ndarray, " d1"],
) -> Float64[np.ndarray, " d1"]:
    price = np.ones(len(w))
    price[-1] = 0.0
    # The curvature steers the steps and does not say where they end: half the bits are enough.
    short = rows.astype(np.float32)
    loss, odds = _loss(rows, target, strength, price, w)
    for _ in range(_STEPS):
        p = special.expit(odds)
        gradient = strength * (rows.T @ (p - target)) + price * w
        if np.abs(gradient).max() < _TOLERANCE * max(1.0, strength * len(rows)):
            break
        bent = short * np.sqrt(strength * p * (1 - p)).astype(np.float32)[:, None]
        hessian = blas.ssyrk(1.0, bent.T, lower=True).astype(np.float64)
        hessian[np.diag_indices_from(hessian)] += price + 1e-6
        step = linalg.solve(hessian, gradient, lower=True, assume_a="pos", check_finite=False)
        size = 1.0
        for _ in range(_HALVINGS):
            tried = w - size * step
            new, odds = _loss(rows, target, strength, price, tried)
            if new <= loss:
                break
            size /= 2
        else:
            break
        w, loss = tried, new
    return w


def _loss(
    rows: Float64[np.ndarray, "n d1"],
    target: Float64[np.ndarray, " n"],
    strength: float,
    price: Float64[np.ndarray, " d1"],
    w: Float64[np.ndarray, " d1"],
) -> tuple[float, Float64[np.ndarray, " n"]]:
    odds: Any = rows @ w
    losses = np.logaddexp(0, odds) - target * odds
    return float(strength * losses.sum() + (price * w**2).sum() / 2), odds
