"""Tables on disk: Parquet with an explicit schema, whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from saeflow import seals
from saeflow.artifacts import atomic, sealed
from saeflow.errors import DamagedError, SaeflowError
from saeflow.seals import stamp

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


def write_table(path: Path, table: pl.DataFrame, schema: Schema | None = None) -> None:
    """Write a table as Parquet, or as CSV if the path ends in .csv.

    Args:
        path: of the file.
        table: what to write.
        schema: columns and types it gets; default is as it is.
    """
    if schema is not None:
        table = table.select(pl.col(name).cast(kind) for name, kind in schema.items())
    if Path(path).suffix == ".csv":
        with atomic(Path(path)) as temporary:
            temporary.write_text(csv_text(table), encoding="utf-8", newline="")
        return
    with sealed(Path(path)) as temporary:
        table.write_parquet(temporary, metadata=stamp())


def csv_text(table: pl.DataFrame) -> str:
    """A table as `write_table` writes it into a CSV file."""
    return table.write_csv()


def read_table(path: Path, schema: Schema | None = None) -> pl.DataFrame:
    """Read a Parquet table.

    Args:
        path: of the file.
        schema: columns and types it must have; default is any.

    Raises:
        SaeflowError: the file is absent, damaged, or has other columns.
    """
    try:
        seals.check(path)
        table = pl.read_parquet(path)
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; make it first") from None
    except (OSError, PolarsError) as error:
        raise DamagedError(
            f"{path}: is no whole Parquet table ({str(error).splitlines()[0]})", [path]
        ) from None
    if schema is not None and dict(table.schema) != dict(schema):
        raise DamagedError(f"{path}: has other columns than {', '.join(schema)}", [path])
    return table
