"""Probes: what tells a label from rows, each for a list of strengths.

A probe gives scores for other rows, per variant (such as how many latents it may use) and per
strength. It scales columns, ranks latents and reduces dimensions by the rows that it is fitted to,
and nothing else, so that whoever leaves rows out of the fit may test on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy import sparse

from saeflow.analyses.probing.logistic import Path, Scaling, ridge_path
from saeflow.analyses.probing.sparse_columns import Latents, columns, strongest, sums

Rows = Any
"""Activations as an array, or latents as a sparse matrix; ``rows[places]`` are some of them."""
Scores = list[Float64[np.ndarray, "n variants options"]]

NEIGHBOURS = (1.0, 4.0, 16.0, 64.0)
COMPONENTS = 100
HIDDEN = 64
_MEAN_DIFFERENCE_OPTIONS = (1.0,)


@dataclass(frozen=True)
class Probe:
    """A probe.

    Attributes:
        name: of the method.
        variants: how many latents or directions each variant may use; 0 where that is no matter.
        options: strengths, or what else is chosen by validation; rising in flexibility, as the
            first of equals is chosen.
        scores: from rows, labels, other rows and options, the scores of each of the others.
    """

    name: str
    variants: Sequence[int]
    options: Sequence[float]
    scores: Callable[[Rows, Bool[np.ndarray, " n"], Sequence[Rows], Sequence[float]], Scores]


def _linear(path: Path, others: Sequence[Any]) -> Scores:
    return [path.log_odds(x)[:, None, :] for x in others]


def _logistic_ridge(
    x: Any, y: Bool[np.ndarray, " n"], others: Sequence[Any], options: Sequence[float]
) -> Scores:
    scaling = Scaling.of(x)
    path = ridge_path(scaling.scaled(x), y, options)
    return _linear(path, [scaling.scaled(other) for other in others])


def _logistic_lasso(
    x: Any, y: Bool[np.ndarray, " n"], others: Sequence[Any], options: Sequence[float]
) -> Scores:
    scaling = Scaling.of(x)
    path = _lasso(scaling.scaled(x), y, options)
    return _linear(path, [scaling.scaled(other) for other in others])


def _lasso(x: Any, y: Bool[np.ndarray, " n"], options: Sequence[float]) -> Path:
    """scikit-learn's, which prices the intercept; a column of 1,000 makes that price small."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        l1_ratio=1.0,
        solver="liblinear",
        intercept_scaling=1000.0,
        max_iter=200,
        tol=1e-3,
        random_state=0,
    )
    fits = []
    for strength in options:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weak penalties end before they converge, as good
            fits.append(model.set_params(C=strength).fit(x, y))
            fits[-1] = (model.coef_[0].copy(), float(model.intercept_[0]))
    weights, intercepts = zip(*fits, strict=True)
    return Path(np.stack(weights, axis=1), np.array(intercepts))


def _mean_difference(
    x: Any, y: Bool[np.ndarray, " n"], others: Sequence[Any], options: Sequence[float]
) -> Scores:
    scaling = Scaling.of(x)
    scaled = scaling.scaled(x)
    direction = scaled[y].mean(axis=0) - scaled[~y].mean(axis=0)
    return [(scaling.scaled(other) @ direction)[:, None, None] for other in others]


def _pca_logistic(
    x: Any, y: Bool[np.ndarray, " n"], others: Sequence[Any], options: Sequence[float]
) -> Scores:
    scaling = Scaling.of(x)
    scaled = scaling.scaled(x)
    count = max(1, min(COMPONENTS, len(x) - 1, x.shape[1]))
    gram = scaled.T @ scaled if x.shape[1] <= len(x) else scaled @ scaled.T
    _, vectors = np.linalg.eigh(gram)
    vectors = vectors[:, ::-1][:, :count]
    turn = vectors if x.shape[1] <= len(x) else scaled.T @ vectors
    lengths = np.linalg.norm(turn, axis=0)
    turn = turn / np.where(lengths > 1e-9, lengths, 1.0)
    return _logistic_ridge(
        scaled @ turn, y, [scaling.scaled(other) @ turn for other in others], options
    )


def _of_library(
    make: Callable[[float, int], Any],
    x: Any,
    y: Bool[np.ndarray, " n"],
    others: Sequence[Any],
    options: Sequence[float],
) -> Scores:
    """A classifier of scikit-learn, fitted to scaled rows once per option."""
    scaling = Scaling.of(x)
    scaled = scaling.scaled(x).astype(np.float32)
    moved = [scaling.scaled(other).astype(np.float32) for other in others]
    columns_of: list[list[Any]] = [[] for _ in others]
    for option in options:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = make(option, len(x)).fit(scaled, y)
            for place, rows in enumerate(moved):
                columns_of[place].append(model.predict_proba(rows)[:, 1] if len(rows) else [])
    return [np.array(each, np.float64).T[:, None, :] for each in columns_of]


def _neighbours(option: float, n: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(int(option), n), weights="distance")


def _network(option: float, n: int) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((HIDDEN,), alpha=1 / (option * n), max_iter=100, random_state=0)


def _trees(option: float, n: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=int(option), max_depth=4, min_samples_leaf=max(1, min(20, n // 8)), random_state=0
    )


def on_activations(name: str, strengths: Sequence[float]) -> Probe:
    """A probe on activations.

    Args:
        name: one of `ON_ACTIVATIONS`.
        strengths: values of C for all that are regressions.
    """
    scores, options = ON_ACTIVATIONS[name]
    return Probe(name, [0], options or strengths, scores)


ON_ACTIVATIONS: dict[str, tuple[Any, Sequence[float] | None]] = {
    "logistic_ridge": (_logistic_ridge, None),
    "logistic_lasso": (_logistic_lasso, None),
    "mean_difference": (_mean_difference, _MEAN_DIFFERENCE_OPTIONS),
    "pca_logistic": (_pca_logistic, None),
    "neighbours": (partial(_of_library, _neighbours), NEIGHBOURS[::-1]),
    "network": (partial(_of_library, _network), (0.01, 1.0)),
    "trees": (partial(_of_library, _trees), (20.0, 80.0)),
}
"""By name: its scores, and its options where they are no strengths of a penalty."""


def sparse_probe(ks: Sequence[int], strengths: Sequence[float], binarised: bool = False) -> Probe:
    """Logistic regressions on the k latents that differ most between the classes.

    Args:
        ks: how many latents.
        strengths: values of C.
        binarised: whether a latent tells only that it is active.
    """

    def scores(
        x: Latents, y: Bool[np.ndarray, " n"], others: Sequence[Latents], options: Sequence[float]
    ) -> Scores:
        if binarised:
            x, others = _active(x), [_active(other) for other in others]
        which = strongest(x, y, max(ks))
        return _by_count(
            columns(x, which), y, [columns(other, which) for other in others], ks, options
        )

    return Probe("binarised" if binarised else "sparse", ks, strengths, scores)


def projection_probe(ks: Sequence[int], strengths: Sequence[float]) -> Probe:
    """Logistic regressions on the first k columns, which are random projections."""

    def scores(
        x: Any, y: Bool[np.ndarray, " n"], others: Sequence[Any], options: Sequence[float]
    ) -> Scores:
        return _by_count(x, y, others, ks, options)

    return Probe("projections", ks, strengths, scores)


def _by_count(
    x: Any, y: Bool[np.ndarray, " n"], others: Sequence[Any], ks: Sequence[int], options: Any
) -> Scores:
    """Ridge paths on the first k columns, for every k."""
    scaling = Scaling.of(x)
    scaled, moved = scaling.scaled(x), [scaling.scaled(other) for other in others]
    by_k: list[list[Any]] = [[] for _ in others]
    for k in ks:
        path = ridge_path(np.ascontiguousarray(scaled[:, :k]), y, options)
        for place, rows in enumerate(moved):
            by_k[place].append(path.log_odds(rows[:, :k]))
    return [np.stack(each, axis=1) for each in by_k]


def lasso_probe(strengths: Sequence[float]) -> Probe:
    """A logistic regression with a price on absolute weights, over all latents. Columns are divided
    by their spread and not centred, which an intercept makes good and keeps them sparse."""

    def scores(
        x: Latents, y: Bool[np.ndarray, " n"], others: Sequence[Latents], options: Sequence[float]
    ) -> Scores:
        values = x.data.astype(np.float64)
        mean, square = sums(x, values) / len(y), sums(x, values**2) / len(y)
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        kept = np.flatnonzero(spread > 1e-12)
        if not len(kept):
            return [np.zeros((other.shape[0], 1, len(options))) for other in others]
        shrink = sparse.dia_array((1 / spread[kept][None], [0]), shape=(len(kept), len(kept)))
        scaled = sparse.csr_matrix((x[:, kept] @ shrink).astype(np.float64))
        # The library's solver reads indices of 32 bits alone.
        scaled.indices, scaled.indptr = (
            each.astype(np.int32) for each in (scaled.indices, scaled.indptr)
        )
        path = _lasso(scaled, y, options)
        return _linear(path, [(other[:, kept] @ shrink) for other in others])

    return Probe("lasso", [0], strengths, scores)


def _active(latents: Latents) -> Latents:
    binary = latents.copy()
    binary.data = (binary.data != 0).astype(np.float32)
    return binary
