"""Figures that compare methods: products on held-out completions, behaviour with and without
steering."""

from __future__ import annotations

from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from saeflow.analyses.steering.methods import look
from saeflow.config.sections import Figures
from saeflow.figures import tables
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import GREY, INK

DEFAULT = Figures()
NOTHING = "no completion has been scored"
GOALS_PER_ROW = 5
UNSTEERED = "unsteered"
HOLLOW: dict[str, Any] = {
    "markersize": 6,
    "markerfacecolor": "none",
    "markeredgecolor": GREY,
    "markeredgewidth": 1,
}
DOTTED: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (2, 2))}


def steered_behaviour(summary: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Behaviour on held-out completions: one unsteered row per goal, one row per method at its
    chosen scale.

    Every method has its own completions at scale 0, all drawn from the same unsteered model; the
    first method's stand for all.
    """
    if summary.is_empty():
        return pl.DataFrame()
    columns = [
        "goal",
        "method",
        "scale",
        "behaviour",
        "behaviour_low",
        "behaviour_high",
        "coherence",
        "n",
    ]
    report = tables.of_split(summary, "report").drop_nulls("behaviour")
    control = report.filter(pl.col("scale") == 0).unique("goal", keep="first", maintain_order=True)
    steered = report.filter(pl.col("selected")).select(columns)
    together = pl.concat([control.with_columns(method=pl.lit(UNSTEERED)).select(columns), steered])
    order = {goal: i for i, goal in enumerate(tables.goals(report))}
    return together.sort(
        pl.col("goal").replace_strict(order, return_dtype=pl.Int64), maintain_order=True
    )


@styled
def methods_forest(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
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
            f"average of {len(goals)} goals" if group == tables.AVERAGE else words(group)
        )
    if groups[0] == tables.AVERAGE:
        axes[0].set_facecolor("#F4F4F1")
    axes[0].set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    axes[0].set_xlim(left=0)
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
    told = [
        f"{r['method']} {r['product']:.2f}, interval {_interval(r, 'product')}"
        for r in average.to_dicts()
    ]
    return (
        "Dot charts of the product on held-out completions by method, one per goal and one for the "
        "average. "
        f"Averages: {'; '.join(told) or 'none'}."
    )


@styled
def steered_vs_unsteered(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Behaviour without steering and with each method at its chosen scale, bars with intervals, by
    goal.

    Args:
        rows: from ``steered_behaviour``.
    """
    goals, names = (
        tables.goals(rows),
        [UNSTEERED, *[name for name in tables.methods(rows) if name != UNSTEERED]],
    )
    if not goals:
        return no_data(settings, NOTHING)
    lines = -(-len(goals) // GOALS_PER_ROW)
    per_line = -(-len(goals) // lines)
    figure, axes = panels(lines, settings, height=2.3, share_x=False, columns=1)
    for i, panel in enumerate(axes):
        _bars(panel, rows, goals[i * per_line : (i + 1) * per_line], names)
        panel.set_xlim(-0.5, max(per_line, 3) - 0.5)
    axes[0].set_ylim(bottom=0)
    figure.supylabel("behaviour", fontsize=9)
    legend(
        figure,
        [Patch(facecolor=_fill(name)[0], edgecolor=_fill(name)[1], label=name) for name in names],
    )
    return figure


def steered_vs_unsteered_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    told = []
    for goal in tables.goals(rows):
        own = rows.filter(pl.col("goal") == goal)
        told.append(
            f"{words(goal)}: "
            + ", ".join(f"{r['method']} {r['behaviour']:.2f}" for r in own.to_dicts())
        )
    return f"Bars of mean behaviour on held-out completions. {'; '.join(told)}."


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
    held_out = Line2D(
        [], [], color=INK, marker="o", linewidth=2, label="held-out product with interval"
    )
    in_sample = Line2D([], [], linestyle="", marker="o", label="in-sample maximum", **HOLLOW)
    return [held_out, in_sample, Line2D([], [], label=UNSTEERED, **DOTTED)]


def _bars(panel: Axes, rows: pl.DataFrame, goals: list[str], names: list[str]) -> None:
    width = 0.84 / len(names)
    for row in rows.filter(pl.col("goal").is_in(goals)).to_dicts():
        x = goals.index(row["goal"]) - 0.42 + (names.index(row["method"]) + 0.5) * width
        face, edge = _fill(row["method"])
        panel.bar(x, row["behaviour"], width * 0.88, facecolor=face, edgecolor=edge, linewidth=0.9)
        if row["behaviour_low"] is not None and row["behaviour_high"] is not None:
            panel.plot(
                [x, x], [row["behaviour_low"], row["behaviour_high"]], color=INK, linewidth=1
            )
    panel.set_xticks(range(len(goals)), [words(goal) for goal in goals])
    panel.tick_params(axis="x", length=0, labelsize=9, labelcolor=INK)
    panel.grid(axis="x", visible=False)


def _fill(method: str) -> tuple[str, str]:
    """Face and edge of a bar: the unsteered one is hollow."""
    return ("white", INK) if method == UNSTEERED else (look(method).colour, look(method).colour)


def _interval(row: dict[str, float | None], column: str) -> str:
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    return "unknown" if low is None or high is None else f"{low:.2f} to {high:.2f}"
