"""What figures and report ask of the tables: the order of goals and methods, curves, splits."""

from __future__ import annotations

import polars as pl

from saeflow.analyses.steering.methods import BY_NAME, PLANTED

AVERAGE = "average"
"""The goal of the rows that average over all goals."""


def methods(table: pl.DataFrame) -> list[str]:
    """The methods in a table: those we know in their fixed order, then others by name."""
    present = set(table["method"].drop_nulls()) if "method" in table.columns else set()
    return [name for name in BY_NAME if name in present] + sorted(present - set(BY_NAME))


def of_chosen_latents(table: pl.DataFrame) -> pl.DataFrame:
    """A table by method without the methods that are given latents which no study of real text
    knows."""
    columns = [name for name in ("method", "other") if name in table.columns]
    return (
        table.filter(~pl.col(name).str.ends_with(PLANTED) for name in columns) if columns else table
    )


def goals(table: pl.DataFrame) -> list[str]:
    """The goals in a table, in its order; the row of averages is none."""
    if "goal" not in table.columns:
        return []
    return [
        name for name in table["goal"].drop_nulls().unique(maintain_order=True) if name != AVERAGE
    ]


def curve(summary: pl.DataFrame, goal: str, method: str, columns: list[str]) -> pl.DataFrame:
    """The rows of one goal and method along increasing scale, without those where a column is
    null; the point of a method in words, whose scale is null, comes last."""
    rows = summary.filter((pl.col("goal") == goal) & (pl.col("method") == method))
    return rows.drop_nulls(columns).sort("scale", nulls_last=True)


def of_split(summary: pl.DataFrame, split: str) -> pl.DataFrame:
    """The rows of one split of a summary; an empty table stays as it is."""
    return summary.filter(pl.col("split") == split) if "split" in summary.columns else summary
