"""Tables of scores and summaries on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from saeflow.artifacts import atomic
from saeflow.errors import SaeflowError
from saeflow.judging.scores import SCORES_SCHEMA


def write_scores(path: Path, scores: pl.DataFrame) -> None:
    """Write a table of scores as Parquet, with exactly the columns of `SCORES_SCHEMA`."""
    _write(path, scores, SCORES_SCHEMA)


def read_scores(path: Path) -> pl.DataFrame:
    """Read a table of scores.

    Raises:
        SaeflowError: the file is absent, damaged, or not a table of scores.
    """
    return read_table(path, SCORES_SCHEMA)


def write_table(path: Path, table: pl.DataFrame, schema: Mapping[str, type[pl.DataType]]) -> None:
    """Write a table as Parquet and, beside it under the same name, as CSV with the same columns."""
    path = Path(path)
    _write(path, table, schema)
    with atomic(path.with_suffix(".csv")) as temporary:
        table.select(*schema).write_csv(temporary)


def read_table(path: Path, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    """Read a Parquet table that must have exactly the columns of a schema.

    Raises:
        SaeflowError: the file is absent, damaged, or has other columns.
    """
    try:
        table = pl.read_parquet(path)
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file") from None
    except (OSError, PolarsError) as error:
        raise SaeflowError(f"{path}: is not a Parquet table ({error}); delete it and it is made again") from None
    if dict(table.schema) != dict(schema):
        raise SaeflowError(f"{path}: has other columns than {', '.join(schema)}; delete it and it is made again")
    return table


def _write(path: Path, table: pl.DataFrame, schema: Mapping[str, type[pl.DataType]]) -> None:
    with atomic(Path(path)) as temporary:
        table.select(pl.col(name).cast(kind) for name, kind in schema.items()).write_parquet(temporary)
