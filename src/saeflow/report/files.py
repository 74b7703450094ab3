"""What the reports of all kinds of study are made of: the assets, the figures with their tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from saeflow.errors import SaeflowError
from saeflow.palette import Look
from saeflow.report.dark import dark
from saeflow.report.page import Findings
from saeflow.report.payload import write_script
from saeflow.report.site import palette

ASSETS = (
    *("style.css", "theme.js", "core.js", "charts.js", "tables.js", "saes.js"),
    *("latent-index.js", "latent-list.js"),
)
"""Of all kinds of study; the last two search and sort any list of the form of latents' index."""
SUFFIXES = ("svg", "png", "csv")
TABLE_ROWS = 300
"""Rows of a figure's table that the page shows; the CSV beside it has all."""


def write_assets(
    output: Path,
    own: Mapping[str, Sequence[str]] | None = None,
    looks: Mapping[str, Look] | None = None,
) -> None:
    """Write the stylesheets and scripts of all pages.

    Args:
        output: the report's folder.
        own: what a kind of study or an analysis has beside them: names of files by the package
            whose assets they are.
        looks: of series.
    """
    (output / "assets").mkdir(parents=True)
    for package, names in [("saeflow.report", ASSETS), *(own or {}).items()]:
        for name in names:
            source = resources.files(package).joinpath("assets", name)
            (output / "assets" / name).write_bytes(source.read_bytes())
    (output / "assets/palette.css").write_text(palette(looks or {}), encoding="utf-8")


def write_figures(root: Path, findings: Findings, output: Path) -> None:
    """Copy the pictures, and write the table of each for the page."""
    (output / "figures").mkdir()
    for name in findings.figures:
        for suffix in SUFFIXES:
            source = root / "figures" / f"{name}.{suffix}"
            if not source.exists():
                raise SaeflowError(f"{source}: no such file; draw the figure again")
            shutil.copyfile(source, output / "figures" / source.name)
        light = (output / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        (output / "figures" / f"{name}.dark.svg").write_text(dark(light), encoding="utf-8")
        write_script(output, f"figure-{name}", _figure_table(output / "figures" / f"{name}.csv"))


def _figure_table(path: Path) -> dict[str, object]:
    """The first rows behind a figure: columns, rows, and how many there are."""
    try:
        # A figure without data has no columns.
        scan = pl.scan_csv(path, infer_schema=False, raise_if_empty=False)
        table = scan.head(TABLE_ROWS).collect()
        count = scan.select(pl.len()).collect().item()
    except (OSError, PolarsError) as error:
        raise SaeflowError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); draw the figure again"
        ) from None
    return {
        "columns": table.columns,
        "rows": [list(row) for row in table.iter_rows()],
        "count": count,
    }
