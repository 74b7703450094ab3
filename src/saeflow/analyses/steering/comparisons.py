"""Methods against each other, each at its chosen scale, on samples that chose neither scale."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from saeflow.analyses.steering.methods import PLANTED
from saeflow.analyses.steering.pairs import PairedScores
from saeflow.analyses.steering.resampling import Contrast, contrast, interval
from saeflow.seeds import numpy_generator
from saeflow.statistics.permutation import holm

AVERAGE = "average"
"""The goal of the rows that average over all goals, as in the paper's tables."""

COMPARISONS_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String, "other": pl.String, "scale": pl.Float64,
    "other_scale": pl.Float64,
    "n": pl.Int64, "units": pl.Int64, "product": pl.Float64, "other_product": pl.Float64,
    "difference": pl.Float64, "difference_low": pl.Float64, "difference_high": pl.Float64,
    "p_value": pl.Float64, "p_holm": pl.Float64,
}  # fmt: skip


class ScaleChoice(NamedTuple):
    """The group, that is the scale, chosen for each goal and method."""

    cells: pl.DataFrame
    """Columns goal, method."""
    groups: Int[np.ndarray, " cells"]
    """Index into `PairedScores.groups`; -1 where nothing could be chosen."""


def compare(
    paired: PairedScores,
    choice: ScaleChoice,
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    level: float,
    seed: int,
) -> pl.DataFrame:
    """Every pair of methods of every goal on the report half, then every pair's mean over the
    goals.

    Args:
        weights: random weights of the samples of the report half.

    Returns:
        A table with the columns of `COMPARISONS_SCHEMA`; difference is product minus other_product,
        over the samples that have all four scores, with its interval, the p-value of a paired
        permutation test that exchanges ``units`` (samples, or prompts where there are several), and
        that p-value after Holm's correction for all rows (those with methods of planted latents are
        a family of their own).
    """
    pairs = _pairs(choice)
    if pairs.is_empty():
        return pl.DataFrame(schema=COMPARISONS_SCHEMA)
    first, second = pairs["cell"].to_numpy(), pairs["other_cell"].to_numpy()
    generator = numpy_generator(seed, "summary", "permutation")
    members, kept = _averaged(pairs)
    measured = contrast(
        _chosen_scores(paired, choice, first),
        _chosen_scores(paired, choice, second),
        weights,
        paired.units("report"),
        generator,
        paired.unseen_of[np.maximum(choice.groups[first], 0)],
        members,
    )
    scale = np.where(choice.groups >= 0, paired.groups["scale"].to_numpy()[choice.groups], np.nan)
    scales = pairs.select("goal", "method", "other").with_columns(
        scale=pl.Series(scale[first]), other_scale=pl.Series(scale[second])
    )
    named = pl.concat([scales, kept], how="diagonal")
    statistics = _statistics(measured, level, len(scales), _planted(named))
    return pl.concat([named, statistics], how="horizontal")


def _pairs(choice: ScaleChoice) -> pl.DataFrame:
    """Columns goal, method, other, cell, other_cell: a row per goal and unordered pair of its
    methods."""
    numbered = choice.cells.with_row_index("cell")
    rows = [
        (goal, first["method"], second["method"], first["cell"], second["cell"])
        for (goal,), of_goal in numbered.group_by("goal", maintain_order=True)
        for first, second in combinations(of_goal.to_dicts(), 2)
    ]
    return pl.DataFrame(
        rows, schema=["goal", "method", "other", "cell", "other_cell"], orient="row"
    )


def _chosen_scores(
    paired: PairedScores, choice: ScaleChoice, cells: Int[np.ndarray, " pairs"]
) -> tuple[Float[np.ndarray, "pairs samples"], Float[np.ndarray, "pairs samples"]]:
    """Behaviour and coherence on the report half at the chosen scale; NaN where none was chosen."""
    groups, columns = choice.groups[cells], paired.columns("report")
    undefined = (groups < 0)[:, None]
    return (
        np.where(undefined, np.nan, paired.behaviour[groups][:, columns]),
        np.where(undefined, np.nan, paired.coherence[groups][:, columns]),
    )


def _averaged(pairs: pl.DataFrame) -> tuple[list[Int[np.ndarray, " goals"]], pl.DataFrame]:
    """The rows of every pair of methods that all goals have, and what their averages are called."""
    goals = pairs["goal"].n_unique()
    rows = (
        pairs.with_row_index("row")
        .group_by("method", "other", maintain_order=True)
        .agg("row")
        .filter(pl.col("row").list.len() == goals)
    )
    members = [np.array(row) for row in rows["row"].to_list()]
    return members, rows.select(pl.lit(AVERAGE).alias("goal"), "method", "other")


def _planted(pairs: pl.DataFrame) -> Bool[np.ndarray, " pairs"]:
    """Pairs with a method that is given what no study of real text knows: a question, and a family
    of tests, apart."""
    return (
        pairs.select(pl.any_horizontal(pl.col("method", "other").str.ends_with(PLANTED)))
        .to_series()
        .to_numpy()
    )


def _statistics(
    measured: Contrast, level: float, of_goals: int, planted: Bool[np.ndarray, " pairs"]
) -> pl.DataFrame:
    """Columns of every comparison; the first ``of_goals`` are of single goals, the others are their
    averages."""
    low, high = interval(measured.draws, level)
    # The average over one goal is that goal again and no further claim.
    claims = len(measured.n) if of_goals > len(measured.n) - of_goals else of_goals
    corrected = np.empty(claims)
    for family in (planted[:claims], ~planted[:claims]):
        corrected[family] = holm(measured.p_value[:claims][family])
    return pl.DataFrame(
        {
            "n": measured.n,
            "units": measured.units,
            "product": measured.first,
            "other_product": measured.second,
            "difference": measured.first - measured.second,
            "difference_low": low,
            "difference_high": high,
            "p_value": measured.p_value,
            "p_holm": np.resize(corrected, len(measured.n)),
        },
        schema={name: COMPARISONS_SCHEMA[name] for name in list(COMPARISONS_SCHEMA)[5:]},
    )
