"""Trainings with several seeds are told as one, with intervals over seeds."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from saeflow.analyses.decomposition.curves import CURVES
from saeflow.analyses.decomposition.fidelity import FIDELITY
from saeflow.analyses.decomposition.pooling import (
    ALONG,
    DIFFERENCES,
    POOLED,
    along,
    differences,
    pooled,
)

POOLS = {"seen": ["seen-0", "seen-1", "seen-2"], "unseen": ["un-0", "un-1", "un-2"], "one": ["one"]}
COSINES = {
    "seen-0": 0.9,
    "seen-1": 0.88,
    "seen-2": 0.93,
    "un-0": 0.4,
    "un-1": 0.45,
    "un-2": 0.3,
    "one": 0.7,
}


def fidelity(cosine: float) -> pl.DataFrame:
    row = dict.fromkeys(FIDELITY)
    row |= {"direction": "sea", "cosine": cosine, "cosine_low": cosine - 0.1, "error": 1 - cosine}
    row |= {"best_cosine": -cosine, "concept_share": 0.5}
    return pl.DataFrame([row], schema=FIDELITY)


TABLES = {name: fidelity(cosine) for name, cosine in COSINES.items()}


def test_seeds_of_a_training_are_one_row_with_student_s_interval() -> None:
    table = pooled(TABLES, POOLS, 0.95)
    assert dict(table.schema) == POOLED
    row = table.filter(saes="seen").row(0, named=True)
    values = np.array([0.9, 0.88, 0.93])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (row["seeds"], row["over"]) == (3, "seeds")
    assert row["cosine"] == pytest.approx(values.mean())
    assert (row["cosine_low"], row["cosine_high"]) == pytest.approx((low, high))
    assert row["best_cosine"] == pytest.approx(values.mean())  # without its sign
    alone = table.filter(saes="one").row(0, named=True)
    assert (alone["seeds"], alone["over"]) == (1, "texts")
    assert alone["cosine_low"] == pytest.approx(0.6)


def test_trainings_are_compared_over_seeds_by_welch() -> None:
    table = differences(TABLES, POOLS, 0.95)
    assert dict(table.schema) == DIFFERENCES
    assert set(table["first"]) == {"seen"}  # one seed has no interval
    row = table.filter(measure="cosine").row(0, named=True)
    a, b = np.array([0.9, 0.88, 0.93]), np.array([0.4, 0.45, 0.3])
    variances = a.var(ddof=1) / 3, b.var(ddof=1) / 3
    freedom = sum(variances) ** 2 / sum(v**2 / 2 for v in variances)
    half = stats.t.ppf(0.975, freedom) * sum(variances) ** 0.5
    apart = a.mean() - b.mean()
    assert row["difference"] == pytest.approx(apart)
    assert (row["low"], row["high"]) == pytest.approx((apart - half, apart + half))


def test_curves_of_seeds_are_one_with_a_band() -> None:
    def curve(error: float) -> pl.DataFrame:
        row = dict.fromkeys(CURVES) | {"direction": "sea", "kind": "direction"}
        rows = [row | {"method": "orthogonal", "k": k, "error": error / k} for k in (1, 2)]
        rows += [row | {"method": "lasso", "k": 1, "error": 9.0}]
        return pl.DataFrame(rows, schema=CURVES)

    curves = {name: curve(1 - cosine) for name, cosine in COSINES.items()}
    table = along(curves, POOLS, 0.95)
    assert dict(table.schema) == ALONG
    row = table.filter(saes="unseen", k=2).row(0, named=True)
    assert row["error"] == pytest.approx(np.mean([0.6, 0.55, 0.7]) / 2)
    assert row["error_low"] < row["error"] < row["error_high"]
    assert table.filter(saes="one")["error_low"].to_list() == [None, None]
