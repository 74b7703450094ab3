"""Choice by validation inside the training rows, and the test of what was chosen.

Everything that looks at labels, the ranking of latents included, happens inside the rows of a fold.
So on labels that are noise the validation is one half, too, and its excess over the test (the
optimism) is what choosing among options costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from saeflow.analyses.probing.probes import Probe, Rows
from saeflow.statistics.areas import areas_between


class HeldOut(NamedTuple):
    """Rows that a probe is tested on."""

    rows: Rows
    y: Bool[np.ndarray, " n"]


class Outcome(NamedTuple):
    """What came of one variant of a probe.

    Attributes:
        option: that was chosen.
        validation: mean area over the folds; NaN where there were too few rows for folds.
        areas: on each of the test sets; NaN where one has a single class.
    """

    option: float
    validation: float
    areas: list[float]


def areas(
    scores: Float64[np.ndarray, "n variants options"], y: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, "variants options"]:
    """Areas under the ROC curve; NaN where there is one class only."""
    flat = scores.reshape(len(scores), int(np.prod(scores.shape[1:])))
    if y.all() or not y.any():
        return np.full(scores.shape[1:], np.nan)
    return areas_between(flat[y], flat[~y]).reshape(scores.shape[1:])


def validated(
    probe: Probe, rows: Rows, y: Bool[np.ndarray, " n"], folds: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "variants options"]:
    """Mean areas over the folds that have both classes on both sides; NaN where none has.

    Args:
        probe: fitted anew without each fold.
        rows: for training.
        y: their labels.
        folds: of each row.
    """
    of_folds = []
    for fold in np.unique(folds):
        train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if all(0 < y[part].sum() < len(part) for part in (train, held)):
            scores = probe.scores(rows[train], y[train], [rows[held]], probe.options)[0]
            of_folds.append(areas(scores, y[held]))
    if not of_folds:
        return np.full((len(probe.variants), len(probe.options)), np.nan)
    return np.asarray(np.mean(of_folds, axis=0))


def evaluate(
    probe: Probe,
    rows: Rows,
    y: Bool[np.ndarray, " n"],
    folds: Int64[np.ndarray, " n"],
    tests: Sequence[HeldOut],
) -> list[Outcome]:
    """Choose each variant's option by validation, fit it to all training rows, and test it.

    Args:
        probe: what is tested.
        rows: for training.
        y: their labels; there are some of both.
        folds: of each row; the same for every probe.
        tests: rows that nothing has seen.

    Returns:
        Per variant. Where there are too few rows to validate, the middle option is taken.
    """
    validation = validated(probe, rows, y, folds)
    unknown = np.isnan(validation[:, 0])
    best = np.where(
        unknown, len(probe.options) // 2, np.argmax(np.nan_to_num(validation, nan=-1.0), axis=1)
    )
    options = sorted({int(place) for place in best})
    chosen = [probe.options[place] for place in options]
    scores = probe.scores(rows, y, [test.rows for test in tests], chosen)
    tested = [areas(each, test.y) for each, test in zip(scores, tests, strict=True)]
    return [
        Outcome(
            float(probe.options[place]),
            float(validation[variant, place]),
            [float(each[variant, options.index(int(place))]) for each in tested],
        )
        for variant, place in enumerate(best)
    ]
