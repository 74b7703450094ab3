"""What scores do not see, in rows for the report: how much a method's texts differ, and what
steering costs where nothing was asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.steering.tables import AVERAGE, goals, methods, of_split
from saeflow.report.wording import interval, number

DIVERSITY = ("distinct_2", "self_similarity")
LOSS = "text_loss_increase"
QUESTIONS = ("choice_accuracy", "choice_log_odds")
NAMES = {
    "distinct_2": "distinct pairs",
    "self_similarity": "alike",
    LOSS: "loss on other text",
    "choice_accuracy": "right answers",
    "choice_log_odds": "log-odds of the right answer",
}
"""Columns in words, in the order of the table."""


class BesideRow(NamedTuple):
    """One method at its chosen scale, or the model without a vector."""

    method: str
    """Empty for the unsteered model."""
    cells: list[str]
    """Of the columns that were measured."""


class BesideScores(NamedTuple):
    """The table of one goal, or of the average over goals."""

    columns: list[str]
    """Names of what was measured, of `NAMES`."""
    rows: list[BesideRow]
    """The unsteered model first."""

    @property
    def headings(self) -> list[str]:
        """The columns in words."""
        return [NAMES[column] for column in self.columns]

    @classmethod
    def of(cls, best: pl.DataFrame, summary: pl.DataFrame, goal: str | None = None) -> BesideScores:
        """From ``best.parquet`` and ``summary.parquet``; without rows where nothing was measured.

        Args:
            goal: whose; None is the average over goals, or the only goal.
        """
        names = goals(best)
        goal = goal or (AVERAGE if len(names) > 1 else next(iter(names), AVERAGE))
        own = best.filter(pl.col("goal") == goal) if len(best) else best
        columns = [
            name for name in NAMES if name in own.columns and own[name].null_count() < len(own)
        ]
        if not columns:
            return cls([], [])
        by_method = {row["method"]: row for row in own.to_dicts()}
        unsteered = _unsteered(summary, columns, goal)
        steered = [(name, by_method[name]) for name in methods(own)]
        rows = [*([("", unsteered)] if unsteered else []), *steered]
        return cls(
            columns,
            [BesideRow(name, [_cell(row, column) for column in columns]) for name, row in rows],
        )


def _unsteered(summary: pl.DataFrame, columns: list[str], goal: str) -> dict[str, Any]:
    """What the model has without a vector, on the completions that report; over several goals the
    mean alone."""
    if summary.is_empty():
        return {}
    rows = of_split(summary, "report").filter(pl.col("scale") == 0)
    if goal != AVERAGE:
        rows = rows.filter(pl.col("goal") == goal)
    # all methods have the same texts there
    rows = rows.unique("goal", keep="first", maintain_order=True)
    if goal != AVERAGE:
        return next(iter(rows.to_dicts()), {})
    return rows.select(pl.col(columns).mean()).row(0, named=True) if len(rows) else {}


def _cell(row: dict[str, Any], column: str) -> str:
    return f"{number(row.get(column))} {interval(row, column)}".strip()
