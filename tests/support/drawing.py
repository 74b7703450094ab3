"""Drawing figures from tables that nothing computed, for their tests."""

from __future__ import annotations

import runpy
from typing import NamedTuple

import chess_tables
import diffing_tables
import direction_tables
import figure_tables
import matplotlib
import polars as pl
from checkout import ROOT
from matplotlib.figure import Figure as Drawing

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.kinds import figures

SMALL = Figures(dpi=50)
FIGURES = figures()
"""All that there are."""


class Drawn(NamedTuple):
    """A figure with what is told and kept beside it."""

    drawing: Drawing
    alt: str
    rows: pl.DataFrame


def tables_of(figure: Figure, goals: int = 2) -> list[pl.DataFrame]:
    """Plausible tables of a figure, in the order in which it names them. Those of an analysis may
    stand beside its own tests: ``tables()`` of ``tests/analyses/<key>/figure_tables.py``."""
    beside = (
        runpy.run_path(str(file))["tables"]()
        for file in sorted(ROOT.glob("tests/analyses/*/figure_tables.py"))
    )
    made = {
        **figure_tables.tables(goals),
        **direction_tables.tables(),
        **diffing_tables.tables(),
        **chess_tables.tables(),
        **{path: table for tables in beside for path, table in tables.items()},
    }
    return [made[path] for path in figure.tables]


def drawn(name: str, *tables: pl.DataFrame, settings: Figures = SMALL) -> Drawn:
    """A figure, drawn from some tables, else from plausible ones."""
    figure = FIGURES[name]
    rows = figure.rows(*(tables or tables_of(figure)), settings)
    return Drawn(figure.draw(rows, settings), figure.alt(rows), rows)


def texts(drawing: Drawing) -> str:
    """Every text of a drawing."""
    return " | ".join(text.get_text() for text in drawing.findobj(matplotlib.text.Text))
