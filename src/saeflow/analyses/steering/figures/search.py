"""The figure of a search: what every layer and scale gives, and what a budget leaves of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saeflow.analyses.steering import tables
from saeflow.analyses.steering.search import UNSTEERED
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import INK, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NOTHING = "nothing has been searched"
OVER: dict[str, Any] = {
    "facecolor": (1.0, 1.0, 1.0, 0.75),
    "hatch": "///",
    "edgecolor": "#AAAAAA",
    "linewidth": 0,
}
CHOSEN: dict[str, Any] = {"fill": False, "edgecolor": VERMILLION}
MOST_WRITTEN = 80
"""Cells of a panel into which their numbers are written."""
COLUMNS = ["goal", "method", "layer", "multiple", "product", "kl", "over_budget", "chosen"]


def by_cell(search: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The cells that are drawn: of the average over goals, where there are several, then of the
    goals drawn in detail, those that the settings name, else the first two.

    ``over_budget`` and ``chosen`` are shares of goals.
    """
    steered = tables.of_chosen_latents(search)
    if steered.is_empty():
        return steered
    with_vector = steered.filter(pl.col("method") != UNSTEERED).drop_nulls(["layer", "multiple"])
    cells = with_vector.with_columns(
        over_budget=(~pl.col("within_budget").fill_null(False)).cast(pl.Float64),
        chosen=pl.col("chosen").fill_null(False).cast(pl.Float64),
    )
    goals = tables.goals(cells)
    detailed = [goal for goal in settings.detail_goals if goal in goals] or goals[:2]
    averaged = (
        cells.group_by("method", "layer", "multiple", maintain_order=True)
        .agg(pl.col("product", "kl", "over_budget", "chosen").mean())
        .with_columns(goal=pl.lit(tables.AVERAGE))
    )
    drawn = [averaged.select(COLUMNS)] if len(goals) > 1 else []
    return pl.concat(
        [*drawn, *(cells.filter(pl.col("goal") == goal).select(COLUMNS) for goal in detailed)]
    )


@styled
def layer_and_scale(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """The product at every layer and scale: a row of panels per goal, a panel per method.

    Args:
        rows: from ``by_cell``.
    """
    if rows.is_empty():
        return no_data(settings, NOTHING)
    methods = tables.methods(rows)
    groups = rows["goal"].unique(maintain_order=True).to_list()
    layers = rows["layer"].unique().sort().to_list()
    scales = rows["multiple"].unique().sort().to_list()
    figure, axes = panels(
        len(groups) * len(methods),
        settings,
        height=0.9 + 0.26 * len(layers),
        share_x=False,
        share_y=False,
        columns=len(methods),
    )
    largest = max(float(rows["product"].max() or 0.0), 1e-9)  # type: ignore[arg-type]
    picture = None
    for number, panel in enumerate(axes):
        goal, method = groups[number // len(methods)], methods[number % len(methods)]
        own = rows.filter((pl.col("goal") == goal) & (pl.col("method") == method))
        picture = _panel(panel, own, layers, scales, largest)
        called = "average" if goal == tables.AVERAGE else words(goal)
        panel.set_title(f"{method}: {called}")
    assert picture is not None
    figure.colorbar(picture, ax=axes, label="product", shrink=0.8, pad=0.01)
    figure.supxlabel("scale", fontsize=9)
    figure.supylabel("layer", fontsize=9)
    legend(figure, _key(rows))
    return figure


def _panel(
    panel: Axes, rows: pl.DataFrame, layers: list[int], scales: list[float], largest: float
) -> Any:
    """One method on one goal: colours are products, hatched where the budget is exceeded, framed
    where chosen. What was not tried is empty."""
    from matplotlib.patches import Rectangle

    values = np.full((len(layers), len(scales)), np.nan)
    places = [
        (layers.index(row["layer"]), scales.index(row["multiple"]), row) for row in rows.to_dicts()
    ]
    for y, x, row in places:
        values[y, x] = np.nan if row["product"] is None else row["product"]
    picture = panel.imshow(
        values,
        cmap="Blues",
        vmin=0,
        vmax=largest,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
    for y, x, row in places:
        corner = (x - 0.5, y - 0.5)
        if row["over_budget"] > 0.5:
            panel.add_patch(Rectangle(corner, 1, 1, **OVER))
        if row["product"] is not None and values.size <= MOST_WRITTEN:
            dark = row["product"] > 0.6 * largest and row["over_budget"] <= 0.5
            panel.text(
                x,
                y,
                f"{row['product']:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else INK,
            )
    for y, x, row in places:
        if row["chosen"] > 0:  # over all others, and wholly within the panel
            frame = (x - 0.48, y - 0.46), 0.96, 0.92
            panel.add_patch(Rectangle(*frame, **CHOSEN, linewidth=1 + 2 * row["chosen"]))
    panel.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    panel.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
    panel.grid(visible=False)
    return picture


def _key(rows: pl.DataFrame) -> list[Any]:
    from matplotlib.patches import Patch

    several = tables.AVERAGE in rows["goal"]
    chosen = "chosen; of the average, the thicker the more goals" if several else "chosen"
    return [
        Patch(label=chosen, **CHOSEN, linewidth=2),
        Patch(label="over the budget", **OVER),
    ]


def layer_and_scale_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    described = []
    for (goal, method), own in rows.group_by("goal", "method", maintain_order=True):
        within = own.filter(pl.col("over_budget") <= 0.5).drop_nulls("product")
        if len(within):
            best = within.sort("product", descending=True).row(0, named=True)
            called = "average" if goal == tables.AVERAGE else words(str(goal))
            described.append(
                f"{called}, {method}: {best['product']:.2f} at layer {best['layer']} and scale "
                f"{best['multiple']:g}"
            )
    return (
        "Heat maps of the product by layer (upwards) and scale (to the right), one per method. The "
        f"largest within the budget: {'; '.join(described) or 'none'}."
    )


FIGURES = (
    Figure(
        name="layer_and_scale",
        tables=("steering/search.parquet",),
        rows=by_cell,
        draw=layer_and_scale,
        alt=layer_and_scale_alt,
        title="Every layer and scale",
        caption="The product of behaviour and coherence over all completions, by the layer behind "
        "which a vector is added and how much of it is: scales are those of the config. Hatched "
        "cells move the model further than the budget, for the average in most goals, and cannot "
        "be chosen; a frame marks what one half of the completions chose. The largest of many "
        "cells is optimistic: the table has what the other half says.",
        section="search",
        drawn=lambda study: study.steering.search is not None,
    ),
)
