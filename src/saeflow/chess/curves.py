"""Curves along the ratings that a model is told, with their bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from saeflow.chess.games.positions import RATING_BINS
from saeflow.figures.style import legend_entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


def curve(panel: Axes, rows: pl.DataFrame, name: str, colour: str, marker: str) -> None:
    """Draw a column of a table along its ratings, and its interval where that is known."""
    measured = rows.drop_nulls(name)
    panel.plot(measured["rating"], measured[name], color=colour, marker=marker)
    banded = measured.drop_nulls([f"{name}_low", f"{name}_high"])
    panel.fill_between(
        banded["rating"],
        banded[f"{name}_low"],
        banded[f"{name}_high"],
        color=colour,
        alpha=0.13,
        linewidth=0,
    )


def name_ratings(axes: Sequence[Axes], rows: pl.DataFrame) -> None:
    """Name the ratings below panels whose curves lie along their bins."""
    bins = sorted(rows["rating"].drop_nulls().unique().to_list())
    for panel in axes:
        panel.set_xticks(bins, [RATING_BINS[rating] for rating in bins], rotation=60, ha="right")
        panel.tick_params(axis="x", labelsize=7)


def handle(label: str, colour: str, marker: str) -> Line2D:
    """The entry of a legend."""
    return legend_entry(color=colour, marker=marker, markersize=5, label=label)
