"""The figure of products on held-out completions, by method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from saeflow.analyses.steering import tables
from saeflow.analyses.steering.methods import look
from saeflow.analyses.steering.tables import of_chosen_latents
from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.lines import Line2D

DEFAULT = Figures()
NOTHING = "no completion has been scored"
UNSTEERED = "unsteered"
HOLLOW: dict[str, Any] = {
    "markersize": 6,
    "markerfacecolor": "none",
    "markeredgecolor": GREY,
    "markeredgewidth": 1,
}
DOTTED: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (2, 2))}


@styled
def methods_forest(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Product on held-out completions at the chosen scale, a panel per goal and one for their
    average.

    Args:
        rows: a row per goal and method, and one per method with the goal ``average``.
    """
    names, goals = tables.methods(rows), tables.goals(rows)
    if not goals:
        return no_data(settings, NOTHING)
    groups = (
        [tables.AVERAGE, *goals] if len(goals) > 1 and tables.AVERAGE in rows["goal"] else goals
    )
    figure, axes = panels(len(groups), settings, height=0.55 + 0.2 * len(names))
    for group, panel in zip(groups, axes, strict=True):
        _dots(panel, rows.filter(pl.col("goal") == group), names)
        panel.set_title(
            f"average of {counted(len(goals), 'goal')}" if group == tables.AVERAGE else words(group)
        )
    if groups[0] == tables.AVERAGE:
        axes[0].set_facecolor("#F4F4F1")
    axes[0].set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    axes[0].set_xlim(left=-0.01 * axes[0].get_xlim()[1])  # a line at 0 is seen beside the axis
    figure.supxlabel("product (behaviour × coherence) on held-out completions", fontsize=9)
    legend(figure, _forest_key())
    return figure


def methods_forest_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    average = (
        rows.filter(pl.col("goal") == tables.AVERAGE)
        .drop_nulls("product")
        .sort("product", descending=True)
    )
    averages = [
        f"{r['method']} {r['product']:.2f}, interval {_interval(r, 'product')}"
        for r in average.to_dicts()
    ]
    return (
        "Dot charts of the product on held-out completions by method, one per goal and one for the "
        f"average. Averages: {'; '.join(averages) or 'none'}."
    )


def _dots(panel: Axes, rows: pl.DataFrame, names: list[str]) -> None:
    """A dot with its interval per method, a hollow marker for the in-sample maximum, a line for no
    steering."""
    for row in rows.drop_nulls("product").to_dicts():
        colour, marker = look(row["method"])
        y = names.index(row["method"])
        low, high = row.get("product_low"), row.get("product_high")
        if low is not None and high is not None:
            panel.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        panel.plot(row["product"], y, color=colour, marker=marker, markersize=5.5)
        if row.get("in_sample_product") is not None:
            panel.plot(row["in_sample_product"], y, "o", **HOLLOW)
    if (
        "unsteered_product" in rows.columns
        and (unsteered := rows["unsteered_product"].drop_nulls()).len()
    ):
        panel.axvline(unsteered[0], zorder=0.8, **DOTTED)
    panel.grid(axis="y", visible=False)


def _forest_key() -> list[Line2D]:
    held_out = legend_entry(
        color=INK, marker="o", linewidth=2, label="held-out product with interval"
    )
    in_sample = legend_entry(linestyle="", marker="o", label="in-sample maximum", **HOLLOW)
    return [held_out, in_sample, legend_entry(label=UNSTEERED, **DOTTED)]


def _interval(row: dict[str, float | None], column: str) -> str:
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    return "unknown" if low is None or high is None else f"{low:.2f} to {high:.2f}"


FIGURES = (
    Figure(
        name="methods_forest",
        tables=("steering/best.parquet",),
        rows=lambda best, settings: of_chosen_latents(best),
        draw=methods_forest,
        alt=methods_forest_alt,
        title="Which method steers best",
        caption="Each dot is one method at the scale that did best on one part of its "
        "completions; its position is the product of behaviour and coherence on the others, which "
        "had no part in the choice, with its interval. The hollow marker is the best product over "
        "all scales on the same completions it was picked from: it is optimistic. The dashed line "
        "is the model without steering.",
        section="results",
    ),
)
