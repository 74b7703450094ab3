"""The figure of what steering towards a goal does to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from saeflow.analyses.steering import tables
from saeflow.analyses.steering.figures.legends import method_handle
from saeflow.analyses.steering.methods import look
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import EQUALITY, legend, no_data, panels, styled, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
LATENTS_DRAWN = 100
DOTS: dict[str, Any] = {"s": 11, "linewidths": 0, "alpha": 0.6, "rasterized": True}


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
    latent and method.

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
        "steers towards the goal, and the change that was measured. Of each method the "
        f"{LATENTS_DRAWN} latents that move most are drawn.",
        section="goals",
        drawn=lambda study: study.effects is not None,
    ),
)
