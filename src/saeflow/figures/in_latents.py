"""Figures in the space of latents: effects of steering vectors, predicted and measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from saeflow.config.sections import Figures
from saeflow.figures import tables
from saeflow.figures.style import GREY, INK, SERIES, legend, look, method_handle, no_data, panels, styled, words

DEFAULT = Figures()
CELLS = 110
LATENTS_DRAWN = 100
EQUALITY: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3))}
DOTS: dict[str, Any] = {"s": 11, "linewidths": 0, "alpha": 0.6, "rasterized": True}


def density(predictions: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """How many pairs of predicted and measured effect fall into each cell of a square grid.

    Args:
        predictions: row (a held-out vector), latent, predicted, measured; one row per pair.
    Returns:
        predicted, measured (the cell's middle), width, count, and the same on every row: pairs, r2 (the share of the
        variance of all measured effects that the prediction explains).
    """
    pairs = predictions.drop_nulls(["predicted", "measured"]) if "measured" in predictions.columns else pl.DataFrame()
    if pairs.is_empty():
        return pl.DataFrame()
    predicted, measured = (pairs[name].cast(pl.Float64).to_numpy() for name in ("predicted", "measured"))
    low, high = float(min(predicted.min(), measured.min())), float(max(predicted.max(), measured.max()))
    edges = np.linspace(low, high if high > low else low + 1.0, CELLS + 1)
    counts, _, _ = np.histogram2d(predicted, measured, bins=(edges, edges))
    middles, (i, j) = (edges[1:] + edges[:-1]) / 2, np.nonzero(counts)
    spread = float(((measured - measured.mean()) ** 2).sum())
    r2 = 1 - float(((measured - predicted) ** 2).sum()) / spread if spread > 0 else None
    cells = {"predicted": middles[i], "measured": middles[j], "count": counts[i, j].astype(np.int64)}
    same = {"width": float(edges[1] - edges[0]), "pairs": len(pairs), "r2": r2}
    return pl.DataFrame(cells).with_columns(pl.lit(value).alias(name) for name, value in same.items())


@styled
def effects_predicted_measured(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Measured against predicted effects of vectors that the approximator was not fitted on.

    Args:
        rows: from ``density``.
    """
    if rows.is_empty():
        return no_data(settings, "no held-out effect has been predicted")
    figure = Figure(figsize=(min(settings.width, 6.6), 5.2), dpi=settings.dpi, layout="constrained")
    panel = figure.subplots()
    width = rows["width"][0]
    middles = {name: rows[name].to_numpy() for name in ("predicted", "measured")}
    low = min(float(values.min()) for values in middles.values()) - width / 2
    high = max(float(values.max()) for values in middles.values()) + width / 2
    cells = round((high - low) / width)
    column, row = (((values - low) / width).astype(int).clip(0, cells - 1) for values in middles.values())
    grid = np.full((cells, cells), np.nan)
    grid[row, column] = rows["count"].to_numpy()
    norm = LogNorm(vmin=1, vmax=max(2, int(np.nanmax(grid))))
    frame = (low, high, low, high)
    picture = panel.imshow(
        grid, cmap="cividis_r", norm=norm, origin="lower", extent=frame, interpolation="nearest", zorder=1
    )
    panel.plot([low, high], [low, high], zorder=0.9, **EQUALITY)
    panel.set(xlabel="predicted effect", ylabel="measured effect", xlim=(low, high), ylim=(low, high))
    panel.set_title(_fit(rows), fontweight="normal")
    figure.colorbar(picture, ax=panel, label="pairs of vector and latent", shrink=0.85)
    return figure


def effects_predicted_measured_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return "No data: no held-out effect has been predicted."
    return (
        f"Density of measured against predicted effects of held-out vectors, with the line of equality. {_fit(rows)}."
    )


def strongest(side_effects: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Of each goal and method, the latents that move most, by prediction or by measurement."""
    if side_effects.is_empty():
        return pl.DataFrame()
    size = pl.max_horizontal(pl.col("predicted").abs(), pl.col("measured").abs())
    rank = size.rank("ordinal", descending=True).over("goal", "method")
    return side_effects.drop_nulls(["predicted", "measured"]).filter(rank <= LATENTS_DRAWN)


@styled
def side_effects(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Measured against predicted change of latents when steering towards each goal, a dot per latent and method.

    Args:
        rows: from ``strongest``.
    """
    goals = tables.goals(rows)
    if not goals:
        return no_data(settings, "no side effect has been measured")
    figure, axes = panels(len(goals), settings, height=2.3, share_x=False, share_y=False)
    for goal, panel in zip(goals, axes, strict=True):
        own = rows.filter(pl.col("goal") == goal)
        for method in reversed(tables.methods(own)):  # the control lies lowest
            dots, (colour, marker) = own.filter(pl.col("method") == method), look(method)
            panel.scatter(dots["predicted"], dots["measured"], c=colour, marker=marker, **DOTS)
        panel.axline((0, 0), slope=1, zorder=0.8, **EQUALITY)
        panel.set_title(words(goal))
        panel.locator_params(nbins=4)
    figure.supxlabel("predicted effect", fontsize=9)
    figure.supylabel("measured effect", fontsize=9)
    legend(figure, map(method_handle, tables.methods(rows)))
    return figure


def side_effects_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return "No data: no side effect has been measured."
    correlation = rows.group_by("method").agg(r=pl.corr("predicted", "measured")).fill_nan(None).drop_nulls()
    known = dict(correlation.iter_rows())
    told = [f"{method} {known[method]:.2f}" for method in tables.methods(rows) if method in known]
    return (
        "Scatter charts of measured against predicted change of latents, one per goal, with the line of equality. "
        f"Correlation over all goals: {', '.join(told) or 'unknown'}."
    )


@styled
def effect_scales(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """The scales at which effects were measured, coloured by how the search for the scale ended.

    Args:
        rows: scale, status; one row per steering vector.
    """
    counts = _statuses(rows)
    if not counts:
        return no_data(settings, "no effect has been measured")
    figure = Figure(figsize=(settings.width, 2.9), dpi=settings.dpi, layout="constrained")
    panel = figure.subplots()
    groups = [rows.filter(pl.col("status") == status)["scale"].drop_nulls().to_numpy() for status in counts]
    colours = [*SERIES, GREY][: len(groups)]
    labels = [f"{words(status)} ({count})" for status, count in counts.items()]
    panel.hist(groups, bins=40, stacked=True, color=colours, label=labels, edgecolor="white", linewidth=0.4)
    panel.set(xlabel="scale", ylabel="steering vectors")
    panel.grid(axis="x", visible=False)
    panel.legend(loc="best")
    return figure


def effect_scales_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    counts = _statuses(rows)
    if not counts:
        return "No data: no effect has been measured."
    told = ", ".join(f"{words(status)} {count}" for status, count in counts.items())
    median = float(np.median(rows["scale"].drop_nulls().to_numpy()))
    return (
        f"Histogram of the scales of {len(rows)} steering vectors; median {median:.3g}. How the search ended: {told}."
    )


def _statuses(rows: pl.DataFrame) -> dict[str, int]:
    """The statuses and how many vectors have each, the most frequent first."""
    if rows.is_empty():
        return {}
    counts = rows.drop_nulls(["scale", "status"]).group_by("status").len()
    return dict(counts.sort("len", "status", descending=[True, False]).iter_rows())


def _fit(rows: pl.DataFrame) -> str:
    r2, pairs = rows["r2"][0], rows["pairs"][0]
    return f"R² = {'undefined' if r2 is None else f'{r2:.3f}'} over {pairs:,} pairs of held-out vector and latent"
