"""Figures along the scale: what more steering does to behaviour, coherence and their product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import polars as pl

from saeflow.analyses.steering import scale_words, tables
from saeflow.analyses.steering.figures.legends import TOLD, method_handle
from saeflow.analyses.steering.methods import look
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import band_opacity, legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.lines import Line2D

DEFAULT = Figures()
NOTHING = "no completion has been scored"
DASHES = (0, (4, 3))
RING: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.5}
ARROW: dict[str, Any] = {
    "arrowstyle": "-|>",
    "linewidth": 0,
    "mutation_scale": 11,
    "shrinkA": 0,
    "shrinkB": 0,
}
CROSS: dict[str, Any] = {
    "marker": "x",
    "markersize": 8,
    "markeredgewidth": 1.5,
    "color": INK,
    "linestyle": "",
}


def along_scale(
    summary: pl.DataFrame, settings: Figures = DEFAULT, multiples: Sequence[float] | None = None
) -> pl.DataFrame:
    """The part of a summary that is drawn along the scale: all completions together.

    Args:
        multiples: the study's scales, where they are multiples of the mean activation norm; the
            column of that name has them beside the absolute ones.
    """
    rows = tables.of_split(tables.of_chosen_latents(summary), "all")
    if multiples is None or rows.is_empty():
        return rows
    by_index = pl.col("scale_index").replace_strict(
        dict(enumerate(multiples)), default=None, return_dtype=pl.Float64
    )
    return rows.with_columns(multiple=pl.when(pl.col("scale").is_not_null()).then(by_index))


def in_detail(
    summary: pl.DataFrame, settings: Figures = DEFAULT, multiples: Sequence[float] | None = None
) -> pl.DataFrame:
    """The same, for the goals drawn in detail: those the settings name, else the first two."""
    rows = along_scale(summary, settings, multiples)
    present = tables.goals(rows)
    detailed = [goal for goal in settings.detail_goals if goal in present] or present[:2]
    return rows.filter(pl.col("goal").is_in(detailed)) if detailed else rows


@styled
def product_by_scale(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Product of behaviour and coherence against scale, a panel per goal, a line per method.

    Args:
        rows: from ``along_scale``.
    """
    goals = tables.goals(rows)
    if not goals:
        return no_data(settings, NOTHING)
    figure, axes = panels(len(goals), settings, height=2.0)
    for goal, panel in zip(goals, axes, strict=True):
        _lines(panel, rows, goal, "product")
        panel.set_title(words(goal))
    axes[0].set_ylim(bottom=-0.02)
    figure.supxlabel(scale_words.axis(_axis(rows) == "multiple"), fontsize=9)
    figure.supylabel("product", fontsize=9)
    legend(figure, _key(rows))
    return figure


def product_by_scale_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    peaks = (
        rows.filter("eligible")
        .drop_nulls("product")
        .sort("product", descending=True)
        .group_by("goal", maintain_order=True)
        .first()
    )
    described = [
        f"{words(r['goal'])}: {r['method']}, {r['product']:.2f} {_at(r)}" for r in peaks.to_dicts()
    ]
    return (
        "Line charts of product against scale, one per goal. Highest point of each: "
        f"{'; '.join(described)}."
    )


def _at(row: dict[str, Any]) -> str:
    return f"at scale {scale_words.of_row(row)}" if row["scale"] is not None else "in words"


def _axis(rows: pl.DataFrame) -> str:
    """The column that scales are drawn by."""
    return "multiple" if "multiple" in rows.columns else "scale"


@styled
def goal_detail(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Behaviour, coherence and product against scale for a few goals, a row of panels each.

    Args:
        rows: from ``in_detail``.
    """
    goals = tables.goals(rows)
    if not goals:
        return no_data(settings, NOTHING)
    figure, axes = panels(3 * len(goals), settings, height=2.7, share_y=True, columns=3)
    for i, panel in enumerate(axes):
        goal, criterion = goals[i // 3], ("behaviour", "coherence", "product")[i % 3]
        _lines(panel, rows, goal, criterion)
        panel.set_title(f"{words(goal)}: {criterion}")
    axes[0].set_ylim(-0.03, 1.03)
    axes[0].set_yticks([0, 0.25, 0.5, 0.75, 1])
    figure.supxlabel(scale_words.axis(_axis(rows) == "multiple"), fontsize=9)
    figure.supylabel("score", fontsize=9)
    legend(figure, _key(rows))
    return figure


def goal_detail_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    described = []
    for goal in tables.goals(rows):
        for method in tables.methods(rows):
            line = tables.curve(rows, goal, method, ["behaviour", "coherence"])
            if len(line):
                ends = [
                    f"{c} from {line[c][0]:.2f} to {line[c][-1]:.2f}"
                    for c in ("behaviour", "coherence")
                ]
                described.append(f"{words(goal)}, {method}: {', '.join(ends)}")
    return (
        "Line charts of behaviour, coherence and product against scale. From the smallest scale to "
        f"the largest: {'; '.join(described)}."
    )


@styled
def pareto(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Behaviour against coherence, a panel per goal; each method's line runs from the smallest
    scale to the largest.

    Args:
        rows: from ``along_scale``.
    """
    goals = tables.goals(rows)
    if not goals:
        return no_data(settings, NOTHING)
    figure, axes = panels(len(goals), settings, height=2.4)
    for goal, panel in zip(goals, axes, strict=True):
        _equal_products(panel)
        for method in tables.methods(rows):
            _path(panel, tables.curve(rows, goal, method, ["behaviour", "coherence"]), method)
        panel.set(xlim=(-0.03, 1.05), ylim=(-0.03, 1.05), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        panel.set_title(words(goal))
    figure.supxlabel("coherence", fontsize=9)
    figure.supylabel("behaviour", fontsize=9)
    legend(figure, _key(rows))
    return figure


def pareto_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    chosen = rows.filter(pl.col("selected")).drop_nulls(["behaviour", "coherence"])
    described = [
        f"{words(row['goal'])}, {row['method']}: {row['behaviour']:.2f} and {row['coherence']:.2f}"
        for row in chosen.to_dicts()
    ]
    return (
        "Charts of behaviour (upwards) against coherence (to the right), one per goal, a line per "
        "method from the smallest scale to the largest. Behaviour and coherence at the chosen "
        f"scales: {'; '.join(described) or 'none'}."
    )


def _lines(panel: Axes, rows: pl.DataFrame, goal: str, column: str) -> None:
    """One line per method with its interval as a band, and a ring where the scale was chosen."""
    axis, methods = _axis(rows), tables.methods(rows)
    opacity = band_opacity(len(methods))
    for method in methods:
        line = tables.curve(rows, goal, method, [column])
        if line.is_empty():
            continue
        colour, marker = look(method)
        if len(in_words := line.filter(pl.col("scale").is_null())):
            panel.axhline(in_words[column][0], color=colour, linewidth=1.3, linestyle=TOLD)
            continue
        banded = line.drop_nulls([f"{column}_low", f"{column}_high"])
        low, high = banded[f"{column}_low"], banded[f"{column}_high"]
        panel.fill_between(banded[axis], low, high, color=colour, alpha=opacity, linewidth=0)
        panel.plot(line[axis], line[column], color=colour, marker=marker)
        _ring(panel, line, axis, column, colour)


def _ring(panel: Axes, line: pl.DataFrame, x: str, y: str, colour: str) -> None:
    """A ring where the scale was chosen, a cross where too few completions have scores for it to
    be."""
    chosen, barred = line.filter(pl.col("selected")), line.filter(~pl.col("eligible"))
    panel.plot(chosen[x], chosen[y], "o", color=colour, **RING)
    if len(barred):
        panel.plot(barred[x], barred[y], **CROSS)


def _key(rows: pl.DataFrame) -> list[Line2D]:
    """Methods and signs of a legend."""
    chosen = legend_entry(linestyle="", marker="o", color=INK, label="chosen scale", **RING)
    barred = (
        [legend_entry(label="too few scores to be chosen", **CROSS)]
        if not rows["eligible"].all()
        else []
    )
    return [*map(method_handle, tables.methods(rows)), chosen, *barred]


def _path(panel: Axes, line: pl.DataFrame, method: str) -> None:
    """A method's way through behaviour and coherence, an arrow head on every step long enough to
    hold one."""
    colour, marker = look(method)
    x, y = line["coherence"].to_list(), line["behaviour"].to_list()
    panel.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1.2)
    for (x0, y0), (x1, y1) in pairwise(zip(x, y, strict=True)):
        if (x1 - x0) ** 2 + (y1 - y0) ** 2 > 0.12**2:
            head, tail = ((x0 * 0.4 + x1 * 0.6), (y0 * 0.4 + y1 * 0.6)), (x0, y0)
            panel.annotate("", xy=head, xytext=tail, arrowprops={"color": colour, **ARROW})
    _ring(panel, line, "coherence", "behaviour", colour)


def _equal_products(panel: Axes) -> None:
    """Faint curves along which the product of behaviour and coherence stays the same."""
    for product in (0.25, 0.5, 0.75):
        x = [product + (1 - product) * i / 40 for i in range(41)]
        panel.plot(
            x,
            [product / value for value in x],
            color="#C8C8C8",
            linewidth=0.8,
            linestyle=DASHES,
            zorder=0.5,
        )
        panel.text(1.02, product, f"{product:.2f}", fontsize=6.5, color=GREY, va="center")


FIGURES = (
    Figure(
        name="product_by_scale",
        tables=("steering/summary.parquet",),
        facts=scale_words.facts,
        rows=along_scale,
        draw=product_by_scale,
        alt=product_by_scale_alt,
        title="The product along the scale",
        caption="The scale is how much of the steering vector is added. Too little leaves the "
        "text as it was, too much breaks it, so the product of behaviour and coherence rises and "
        "falls. Bands are intervals over completions; a ring marks the chosen scale. A method "
        "that steers in words has no scale: a level line.",
        section="goals",
    ),
    Figure(
        name="goal_detail",
        tables=("steering/summary.parquet",),
        facts=scale_words.facts,
        rows=in_detail,
        draw=goal_detail,
        alt=goal_detail_alt,
        title="A few goals in detail",
        caption="Behaviour says how much a text does what was asked for, coherence how "
        "well-formed it is; both run from 0 to 1. Their product, on the right, is what methods "
        "are compared by.",
        section="goals",
    ),
    Figure(
        name="pareto",
        tables=("steering/summary.parquet",),
        facts=scale_words.facts,
        rows=along_scale,
        draw=pareto,
        alt=pareto_alt,
        title="Behaviour against coherence",
        caption="Each line runs along the scales, from no steering where none is negative, and "
        "its arrows point to larger ones. The further a line reaches to the upper right, the more "
        "behaviour it buys for the coherence it costs. Along a dashed curve the product is the "
        "same.",
        section="results",
    ),
)
