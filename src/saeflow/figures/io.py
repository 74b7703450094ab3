"""Reading the tables that figures are drawn from, and writing figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

import matplotlib.style
import polars as pl
from matplotlib.figure import Figure as Drawing

from saeflow import seals
from saeflow.artifacts import atomic, read_json, write_checksums
from saeflow.config.sections import Figures
from saeflow.errors import DamagedError
from saeflow.figures.figure import Figure
from saeflow.figures.style import STYLE
from saeflow.tables import read_table, write_table
from saeflow.tensors import open_hdf5


def read_tables(figure: Figure, root: Path, paths: Iterable[Path]) -> list[pl.DataFrame]:
    """The tables that a figure is drawn from, in the order in which it names them; one that is
    absent is empty.

    Args:
        figure: which.
        root: the folder of the study.
        paths: files below it, or below the folder of the same layout where what was fetched lies;
            those that the figure does not name are passed over.

    Raises:
        SaeflowError: a file is absent or cannot be read.
    """
    files = sorted(paths, key=str)
    return [_together(root, files, pattern) for pattern in figure.tables]


def _together(root: Path, files: Sequence[Path], pattern: str) -> pl.DataFrame:
    """All files of one path, one below the other, with a column for each name in braces."""
    read, depth = READERS[PurePosixPath(pattern).suffix], len(PurePosixPath(pattern).parts)
    place, tables = _expression(pattern), []
    for file in files:
        parts = file.relative_to(root).parts if file.is_relative_to(root) else file.parts[-depth:]
        if named := place.fullmatch("/".join(parts)):
            columns = (pl.lit(value).alias(name) for name, value in named.groupdict().items())
            tables.append(read(file).with_columns(columns))
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def _expression(pattern: str) -> re.Pattern[str]:
    """What matches the paths of a pattern, with a group for each name, by its last word."""
    return re.compile(
        "".join(
            re.escape(text) + (f"(?P<{name.rpartition('_')[2]}>[^/]+)" if name else "")
            for text, name, _, _ in Formatter().parse(pattern)
        )
    )


def _numbers(path: Path) -> pl.DataFrame:
    """The numbers of a JSON object as one row."""
    values = read_json(path).items()
    return pl.DataFrame({name: float(v) for name, v in values if type(v) in (int, float)})


def _columns(path: Path) -> pl.DataFrame:
    """The data sets of an HDF5 file that hold one value per row, by their names; numbers that
    stand for words as these."""
    try:
        seals.check(path)
        with open_hdf5(path) as file:
            return pl.DataFrame(
                {
                    name: [str(values.attrs["names"][number]) for number in values[:]]
                    if "names" in values.attrs
                    else values[:]
                    for name, values in file.items()
                    if values.ndim == 1
                }
            )
    except (OSError, KeyError, ValueError) as error:
        raise DamagedError(f"{path}: cannot be read as a table ({error})", [path]) from None


READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": read_table,
    ".json": _numbers,
    ".h5": _columns,
}
"""By a file's suffix."""


def write_figure(
    figure: Figure,
    tables: Iterable[pl.DataFrame],
    settings: Figures,
    directory: Path,
    facts: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draw one figure of a study and save it.

    Args:
        figure: which.
        tables: from `read_tables`.
        settings: of the stage.
        directory: where it is saved.
        facts: what the figure's `facts` say of the study; without them its rows speak of none.

    Returns:
        The files written, ``<directory>/<name>.png``, ``.svg`` and ``.csv``.

    Raises:
        SaeflowError: a file cannot be written.
    """
    rows = figure.rows(*tables, settings, **facts or {})
    drawing = figure.draw(rows, settings)
    return save(drawing, directory / figure.name, rows, figure.title, figure.alt(rows))


def save(drawing: Drawing, path: Path, rows: pl.DataFrame, title: str, alt: str) -> list[Path]:
    """Write a figure as PNG and SVG, the rows behind it as CSV, their checksums as JSON; equal
    figures are equal bytes.

    Args:
        path: without suffix.
        title, alt: kept inside the pictures, so that they stay readable to those who do not see
            them.
    """
    path = Path(path)
    texts = {"Title": title, "Description": alt}
    kinds = {"png": {**texts, "Software": None}, "svg": {**texts, "Creator": None, "Date": None}}
    for kind, metadata in kinds.items():
        target = path.with_name(f"{path.name}.{kind}")
        with matplotlib.style.context(STYLE, after_reset=True), atomic(target) as temporary:
            drawing.savefig(temporary, format=kind, metadata=metadata)
    write_table(path.with_name(f"{path.name}.csv"), rows)
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg", "csv")]
    write_checksums(path.with_name(f"{path.name}.json"), files)
    return files
