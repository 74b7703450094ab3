"""The figure of what steering towards a goal does to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from saeflow.analyses.steering import tables
from saeflow.analyses.steering.methods import look
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import (
    EQUALITY,
    legend,
    legend_entry,
    no_data,
    panels,
    styled,
    words,
)
from saeflow.palette import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
LATENTS_DRAWN = 100
NAMED = 6
"""Of each method the latents that are drawn large, in its colour."""
SMALL: dict[str, Any] = {"s": 5, "linewidths": 0, "alpha": 0.45, "color": "#9A9A9A"}
LARGE: dict[str, Any] = {"s": 30, "linewidths": 0.5, "edgecolors": "white"}


def strongest(side_effects: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Of each goal and method, the latents that move most, by prediction or by measurement."""
    if side_effects.is_empty():
        return pl.DataFrame()
    own = tables.of_chosen_latents(side_effects)
    size = pl.max_horizontal(pl.col("predicted").abs(), pl.col("measured").abs())
    rank = size.rank("ordinal", descending=True).over("goal", "method")
    return own.drop_nulls(["predicted", "measured"]).filter(rank <= LATENTS_DRAWN)


@styled
def side_effects(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Measured against predicted change of latents when steering towards each goal, a dot per
    latent and method: those that move most in the colour of the method, the cloud of the others in
    grey.

    Args:
        rows: from ``strongest``.
    """
    goals = tables.goals(rows)
    if not goals:
        return no_data(settings, "no side effect has been measured")
    figure, axes = panels(len(goals), settings, height=2.3, share_x=False, share_y=False)
    for goal, panel in zip(goals, axes, strict=True):
        own = rows.filter(pl.col("goal") == goal).sort(
            pl.col("measured").abs(), "latent", descending=[True, False]
        )
        rank = pl.int_range(pl.len()).over("method")
        others, large = own.filter(rank >= NAMED), own.filter(rank < NAMED)
        panel.scatter(others["predicted"], others["measured"], **SMALL)
        for method in reversed(tables.methods(own)):  # the control lies lowest
            dots, (colour, marker) = large.filter(pl.col("method") == method), look(method)
            panel.scatter(dots["predicted"], dots["measured"], c=colour, marker=marker, **LARGE)
        panel.axline((0, 0), slope=1, zorder=0.8, **EQUALITY)
        _name_farthest(panel, large)
        panel.set_title(words(goal))
        panel.locator_params(nbins=4)
    figure.supxlabel("predicted change of mean activation", fontsize=9)
    figure.supylabel("measured change of mean activation", fontsize=9)
    cloud = legend_entry(
        linestyle="", marker="o", markersize=3, color="#9A9A9A", label="all methods, other latents"
    )
    marks = [
        legend_entry(linestyle="", marker=marker, markersize=6, color=colour, label=method)
        for method in tables.methods(rows)
        for colour, marker in [look(method)]
    ]
    legend(figure, [*marks, cloud])
    return figure


def _name_farthest(panel: Axes, large: pl.DataFrame) -> None:
    """The number of the latent that moves most, beside its dot."""
    for x, y, latent in large.select("predicted", "measured", "latent").head(1).iter_rows():
        panel.annotate(
            str(latent),
            (x, y),
            (-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color=INK,
        )


def side_effects_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return "No data: no side effect has been measured."
    correlation = (
        rows.group_by("method").agg(r=pl.corr("predicted", "measured")).fill_nan(None).drop_nulls()
    )
    by_method = dict(correlation.iter_rows())
    described = [
        f"{method} {by_method[method]:.2f}"
        for method in tables.methods(rows)
        if method in by_method
    ]
    return (
        "Scatter charts of measured against predicted change of latents, one per goal, with the "
        f"line of equality. Correlation over all goals: {', '.join(described) or 'unknown'}."
    )


FIGURES = (
    Figure(
        name="side_effects",
        tables=("steering/{goal}/side_effects.parquet",),
        rows=strongest,
        draw=side_effects,
        alt=side_effects_alt,
        title="Side effects of steering towards goals",
        caption="Each dot is one latent: the change that the approximator predicts when a method "
        "steers towards the goal, and the change that was measured. On the dashed line both are "
        f"equal. Of each method the {NAMED} latents that move most have its colour, the next "
        f"{LATENTS_DRAWN - NAMED} are grey; the number is that of the latent that moves most of "
        "all.",
        section="goals",
        drawn=lambda study: study.effects is not None,
    ),
)
