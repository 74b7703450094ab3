"""Tables of scores on disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from saeflow.judging.scores import SCORES_SCHEMA
from saeflow.tables import read_table, write_table


def write_scores(path: Path, scores: pl.DataFrame) -> None:
    """Write a table of scores, with exactly the columns of `SCORES_SCHEMA`."""
    write_table(path, scores, SCORES_SCHEMA)


def read_scores(path: Path) -> pl.DataFrame:
    """Read a table of scores.

    Raises:
        SaeflowError: the file is absent, damaged, or not a table of scores.
    """
    return read_table(path, SCORES_SCHEMA)
