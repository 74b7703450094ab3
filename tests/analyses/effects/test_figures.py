"""Figures of effects show predictions beside what was measured."""

from __future__ import annotations

import figure_tables as made
import polars as pl
import pytest
from drawing import drawn, texts

UNKNOWN = pl.DataFrame()


def test_r2_is_one_for_a_perfect_prediction_and_zero_for_the_mean() -> None:
    pairs = made.predictions(10, 30)
    perfect = pairs.with_columns(predicted=pl.col("measured"))
    mean = pairs.with_columns(
        predicted=pl.col("measured").filter(pl.col("kind") == "sample").mean()
    )
    assert drawn("effects_predicted_measured", perfect, UNKNOWN).rows["r2"][0] == pytest.approx(1)
    assert drawn("effects_predicted_measured", mean, UNKNOWN).rows["r2"][0] == pytest.approx(0)
    rows = drawn("effects_predicted_measured", pairs, UNKNOWN).rows
    assert rows.filter(pl.col("kind") == "cell")["count"].sum() == 300
    assert rows.filter(pl.col("kind") == "top").height == 30


def test_r2_over_all_effects_is_taken_where_it_is_known() -> None:
    metrics = pl.DataFrame({"r2": 0.25, "r2_ceiling": 0.5})
    drawing, _, rows = drawn("effects_predicted_measured", made.predictions(10, 30), metrics)
    assert rows.select("r2", "r2_ceiling").row(0) == (0.25, 0.5)
    assert "R² = 0.250 (noise leaves about 0.500)" in texts(drawing)
