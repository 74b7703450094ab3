"""Methods against each other, each at its chosen scale, on samples that chose neither scale."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from saeflow.judging.pairs import PairedScores
from saeflow.judging.resampling import Contrast, contrast, interval, p_value
from saeflow.seeds import numpy_generator

AVERAGE = "average"
"""The goal of the rows that average over all goals, as in the paper's tables."""

COMPARISONS_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String, "other": pl.String, "scale": pl.Float64, "other_scale": pl.Float64,
    "n": pl.Int64, "product": pl.Float64, "other_product": pl.Float64,
    "difference": pl.Float64, "difference_low": pl.Float64, "difference_high": pl.Float64, "p_value": pl.Float64,
}  # fmt: skip


class Choice(NamedTuple):
    """The group, that is the scale, chosen for each goal and method."""

    cells: pl.DataFrame
    """Columns goal, method."""
    groups: Int[np.ndarray, " cells"]
    """Index into `PairedScores.groups`; -1 where nothing could be chosen."""


def compare(
    paired: PairedScores, choice: Choice, weights: Float[np.ndarray, "resamples samples"], level: float, seed: int
) -> pl.DataFrame:
    """Every pair of methods of every goal on the report half, then every pair's mean over the goals.

    Args:
        weights: bootstrap weights of the samples of the report half.

    Returns:
        A table with the columns of `COMPARISONS_SCHEMA`; difference is product minus other_product, over the samples
        that have all four scores, with its bootstrap interval and the p-value of a paired permutation test.
    """
    pairs = _pairs(choice)
    if pairs.is_empty():
        return pl.DataFrame(schema=COMPARISONS_SCHEMA)
    first, second = pairs["cell"].to_numpy(), pairs["other_cell"].to_numpy()
    generator = numpy_generator(seed, "summary", "permutation")
    found = contrast(_chosen_scores(paired, choice, first), _chosen_scores(paired, choice, second), weights, generator)
    scale = np.where(choice.groups >= 0, paired.groups["scale"].to_numpy()[choice.groups], np.nan)
    scales = pairs.select("goal", "method", "other").with_columns(
        scale=pl.Series(scale[first]), other_scale=pl.Series(scale[second])
    )
    average, kept = _average(pairs, found)
    return pl.concat(
        [pl.concat([scales, _statistics(found, level)], how="horizontal"),
         pl.concat([kept, _statistics(average, level)], how="horizontal")],
        how="diagonal",
    )  # fmt: skip


def _pairs(choice: Choice) -> pl.DataFrame:
    """Columns goal, method, other, cell, other_cell: a row per goal and unordered pair of its methods."""
    numbered = choice.cells.with_row_index("cell")
    rows = [
        (goal, first["method"], second["method"], first["cell"], second["cell"])
        for (goal,), of_goal in numbered.group_by("goal", maintain_order=True)
        for first, second in combinations(of_goal.to_dicts(), 2)
    ]
    return pl.DataFrame(rows, schema=["goal", "method", "other", "cell", "other_cell"], orient="row")


def _chosen_scores(
    paired: PairedScores, choice: Choice, cells: Int[np.ndarray, " pairs"]
) -> tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]]:
    """Behaviour and coherence on the report half at the chosen scale; NaN where none was chosen."""
    groups, columns = choice.groups[cells], paired.columns("report")
    undefined = (groups < 0)[:, None]
    return (
        np.where(undefined, np.nan, paired.behaviour[groups][:, columns]),
        np.where(undefined, np.nan, paired.coherence[groups][:, columns]),
    )


def _average(pairs: pl.DataFrame, found: Contrast) -> tuple[Contrast, pl.DataFrame]:
    """The mean over goals of each pair of methods, NaN where a goal has no value, and what the rows are."""
    goals = pairs["goal"].n_unique()
    rows = (
        pairs.with_row_index("row")
        .group_by("method", "other", maintain_order=True)
        .agg("row")
        .filter(pl.col("row").list.len() == goals)
    )
    members = [np.array(row) for row in rows["row"].to_list()]
    averaged = Contrast(
        n=np.array([found.n[row].sum() for row in members]),
        first=np.array([found.first[row].mean() for row in members]),
        second=np.array([found.second[row].mean() for row in members]),
        draws=_columns([found.draws[:, row].mean(axis=1) for row in members], len(found.draws)),
        null=_columns([found.null[:, row].mean(axis=1) for row in members], len(found.null)),
    )
    return averaged, rows.select(pl.lit(AVERAGE).alias("goal"), "method", "other")


def _columns(columns: list[Float[np.ndarray, " rows"]], rows: int) -> Float[np.ndarray, "rows columns"]:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0))


def _statistics(found: Contrast, level: float) -> pl.DataFrame:
    difference = found.first - found.second
    low, high = interval(found.draws, level)
    return pl.DataFrame(
        {
            "n": found.n,
            "product": found.first,
            "other_product": found.second,
            "difference": difference,
            "difference_low": np.where(found.n > 1, low, np.nan),
            "difference_high": np.where(found.n > 1, high, np.nan),
            "p_value": p_value(difference, found.null),
        },
        schema={name: COMPARISONS_SCHEMA[name] for name in list(COMPARISONS_SCHEMA)[5:]},
    )
