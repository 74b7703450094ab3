"""Tables of scores and summaries on disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from saeflow.judging.comparisons import COMPARISONS_SCHEMA
from saeflow.judging.scores import SCORES_SCHEMA
from saeflow.judging.summary import BEST_SCHEMA, SUMMARY_SCHEMA, Summaries
from saeflow.tables import read_table, write_table

SCHEMAS = {"summary": SUMMARY_SCHEMA, "best": BEST_SCHEMA, "comparisons": COMPARISONS_SCHEMA}


def write_scores(path: Path, scores: pl.DataFrame) -> None:
    """Write a table of scores, with exactly the columns of `SCORES_SCHEMA`."""
    write_table(path, scores, SCORES_SCHEMA)


def read_scores(path: Path) -> pl.DataFrame:
    """Read a table of scores.

    Raises:
        SaeflowError: the file is absent, damaged, or not a table of scores.
    """
    return read_table(path, SCORES_SCHEMA)


def write_summaries(directory: Path, summaries: Summaries) -> None:
    """Write summary, best and comparisons, each as .parquet and .csv."""
    for name, table in summaries._asdict().items():
        for suffix in ("parquet", "csv"):
            write_table(directory / f"{name}.{suffix}", table, SCHEMAS[name])


def read_summaries(directory: Path) -> Summaries:
    """Read summary, best and comparisons.

    Raises:
        SaeflowError: a file is absent, damaged, or has other columns.
    """
    return Summaries(**{name: read_table(directory / f"{name}.parquet", schema) for name, schema in SCHEMAS.items()})
