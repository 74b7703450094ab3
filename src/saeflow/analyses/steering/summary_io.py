"""Tables of summaries, comparisons and ratings on disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from saeflow.analyses.steering.comparisons import COMPARISONS_SCHEMA
from saeflow.analyses.steering.matched import MATCHED_SCHEMA
from saeflow.analyses.steering.preferences import PREFERENCES_SCHEMA
from saeflow.analyses.steering.ratings import RATINGS_SCHEMA
from saeflow.analyses.steering.summary import BEST_SCHEMA, SUMMARY_SCHEMA, Summaries
from saeflow.analyses.steering.three_way import THREE_WAY_SCHEMA
from saeflow.tables import read_table, write_table

SCHEMAS = {
    "summary": SUMMARY_SCHEMA,
    "best": BEST_SCHEMA,
    "comparisons": COMPARISONS_SCHEMA,
    "matched": MATCHED_SCHEMA,
    "three_way": THREE_WAY_SCHEMA,
}
DIVERGENCE_SCHEMA: dict[str, type[pl.DataType]] = {"completion_id": pl.String, "kl": pl.Float64}


def write_summaries(directory: Path, summaries: Summaries) -> None:
    """Write the tables, each as .parquet and .csv."""
    for name, table in summaries._asdict().items():
        for suffix in ("parquet", "csv"):
            write_table(directory / f"{name}.{suffix}", table, SCHEMAS[name])


def read_summaries(directory: Path) -> Summaries:
    """Read the tables.

    Raises:
        SaeflowError: a file is absent, damaged, or has other columns.
    """
    return Summaries(
        **{
            name: read_table(directory / f"{name}.parquet", schema)
            for name, schema in SCHEMAS.items()
        }
    )


def write_ratings(directory: Path, preferences: pl.DataFrame, ratings: pl.DataFrame) -> None:
    """Write comparisons side by side as preferences.parquet, and ratings as .parquet and .csv."""
    write_table(directory / "preferences.parquet", preferences, PREFERENCES_SCHEMA)
    for suffix in ("parquet", "csv"):
        write_table(directory / f"ratings.{suffix}", ratings, RATINGS_SCHEMA)
