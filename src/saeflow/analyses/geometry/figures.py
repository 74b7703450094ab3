"""Figures of circles, lines, and what moving along them does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saeflow.analyses.geometry import moves
from saeflow.analyses.geometry.latent_figures import LATENT_FIGURES, ring
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import EQUALITY, legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SHOWN = 6
"""Panels of a figure, at most: those of the largest r2."""
HELD_OUT = "held out"
OTHERS = (VERMILLION, GREEN, ORANGE, PURPLE, SKY)
"""Of texts that a line is read off along."""


def of_circles(circles: pl.DataFrame, places: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Where words lie, of the circles that are clearest."""
    if circles.is_empty() or places.is_empty():
        return pl.DataFrame()
    best = circles.drop_nulls(["r2", "null_high"]).sort("r2", descending=True, maintain_order=True)
    kept = best.head(SHOWN).select("group", "hook", "r2", "null_high", "p")
    return kept.join(places, on=["group", "hook"], maintain_order="left_right")


@styled
def geometry_circles(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """The words of a group in the plane of their circle, a panel for each group and hook."""
    if rows.is_empty():
        return no_data(settings, "no group of words was read")
    shown = rows.partition_by("group", "hook", maintain_order=True)
    drawing, axes = panels(len(shown), settings, 2.7, share_x=False, share_y=False)
    for panel, own in zip(axes, shown, strict=True):
        ring(panel, own)
        first = own.row(0, named=True)
        layer = first["hook"].split(".")[1]
        panel.set_title(f"{words(first['group'])}, layer {layer}")
    return drawing


def geometry_circles_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no group of words was read."
    parts = [
        f"{row['group']} at {row['hook']} {row['r2']:.2f} (other orders up to "
        f"{row['null_high']:.2f})"
        for row in rows.unique(["group", "hook"], maintain_order=True).to_dicts()
    ]
    return f"Words in the plane of their circle; R² of {'; '.join(parts)}."


def of_lines(lines: pl.DataFrame, held_out: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Numbers of held-out texts, of each line at the hook where it is clearest."""
    if lines.is_empty() or held_out.is_empty():
        return pl.DataFrame()
    ridge = lines.filter(method="ridge").drop_nulls(["r2", "null_high"])
    clearest = ridge.sort("r2", descending=True, maintain_order=True)
    best = clearest.unique("line", keep="first", maintain_order=True).head(SHOWN)
    kept = best.select("line", "hook", "r2", "null_high", "p")
    return kept.join(held_out, on=["line", "hook"], maintain_order="left_right")


@styled
def geometry_lines(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Numbers that lines say of texts they were not fitted to, against the texts' own."""
    if rows.is_empty():
        return no_data(settings, "no line was fitted")
    shown = rows.partition_by("line", maintain_order=True)
    drawing, axes = panels(len(shown), settings, 2.6, share_x=False, share_y=False)
    others = rows.filter(pl.col("of") != HELD_OUT)["of"].unique(maintain_order=True).to_list()
    colours = {other: OTHERS[i % len(OTHERS)] for i, other in enumerate(others)}
    entries = [legend_entry(color=BLUE, marker="o", linestyle="", label="held out")]
    entries += [
        legend_entry(color=colour, marker="o", linestyle="", label=f"read off: {words(other)}")
        for other, colour in colours.items()
    ]
    for panel, own in zip(axes, shown, strict=True):
        low, high = _range(own)
        for other, part in own.group_by("of", maintain_order=True):
            colour = colours.get(str(other[0]), BLUE)
            value, predicted = part["value"].to_numpy(), part["predicted"].to_numpy()
            at_edge = np.clip(predicted, low, high)
            inside = at_edge == predicted
            panel.plot(
                value[inside], predicted[inside], ".", color=colour, markersize=3, alpha=0.35
            )
            for edge, marker in ((low, "v"), (high, "^")):
                beyond = ~inside & (at_edge == edge)
                panel.plot(value[beyond], at_edge[beyond], marker, color=colour, markersize=4)
            edges = np.quantile(value, np.linspace(0, 1, 9))
            place = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, 7)
            filled = [k for k in range(8) if (place == k).any()]
            means = [[numbers[place == k].mean() for k in filled] for numbers in (value, at_edge)]
            panel.plot(*means, "o-", color=colour, markeredgecolor="white")
        middle = float(np.mean(own["value"].to_numpy()))
        panel.axline((middle, middle), slope=1, **EQUALITY)
        first = own.row(0, named=True)
        panel.set_title(f"{words(first['line'])}, layer {first['hook'].split('.')[1]}")
        panel.set_xlabel(f"number (R² {first['r2']:.2f}; null up to {first['null_high']:.2f})")
        panel.set_ylabel("said by the line")
    legend(drawing, entries)
    return drawing


def _range(own: pl.DataFrame) -> tuple[float, float]:
    """What a panel shows of numbers said: held-out texts and all texts' own, and a margin.

    A text of another kind can be told any number: one such would leave no room for the rest.
    """
    held_out = own.filter(of=HELD_OUT)
    kept = np.concatenate([own["value"].to_numpy(), held_out["predicted"].to_numpy()])
    margin = 0.05 * float(np.ptp(kept))
    return float(kept.min()) - margin, float(kept.max()) + margin


def geometry_lines_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no line was fitted."
    parts = [
        f"{row['line']} {row['r2']:.2f} (null up to {row['null_high']:.2f})"
        for row in rows.unique("line", maintain_order=True).to_dicts()
    ]
    return f"Numbers of held-out texts by lines against their own; R² of {'; '.join(parts)}."


def of_causes(
    circles: pl.DataFrame, lines: pl.DataFrame, causes: pl.DataFrame, settings: Figures
) -> pl.DataFrame:
    """How well each circle and line is told, beside what moving along it does."""
    if causes.is_empty():
        return pl.DataFrame()
    ridge = lines if lines.is_empty() else lines.filter(method="ridge")
    decoded = [
        table.select("hook", "r2", "null_high", of=name).drop_nulls()
        for name, table in (("group", circles), ("line", ridge))
        if not table.is_empty()
    ]
    if not decoded:
        return pl.DataFrame()
    turned = causes.filter(edit="turn", measure="moved")
    shifted = causes.filter(edit="shift", measure="change")
    # the farthest move, forwards where there are two
    farthest = pl.col("step").sort_by(pl.col("step").abs(), "step").last().over("of", "hook")
    largest = shifted.filter(pl.col("step") == farthest)
    columns = ("of", "hook", "kind", "measure", "value", "low", "high")
    effects = pl.concat([turned, largest]).select(columns)
    return effects.join(pl.concat(decoded), on=["of", "hook"], maintain_order="left")


@styled
def geometry_causes(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Decoding and effect beside each other: a row for each circle and line at each hook."""
    if rows.is_empty():
        return no_data(settings, "no prompts were given in which the model is moved")
    shown = rows["measure"].unique(maintain_order=True).to_list()
    names = {"moved": "share of words taken for others", "change": "change of log-odds"}
    places = rows["measure", "of", "hook"].unique()["measure"].to_list()
    most = max(places.count(measure) for measure in shown)
    drawing, axes = panels(
        2 * len(shown), settings, 0.9 + 0.19 * most, share_x=False, share_y=False, columns=2
    )
    for decoding, effect, measure in zip(axes[::2], axes[1::2], shown, strict=True):
        own = rows.filter(measure=measure).sort("of", maintain_order=True)
        marks = own.unique(["of", "hook"], keep="first", maintain_order=True).with_row_index("y")
        decoding.plot(marks["r2"], marks["y"], "o", color=BLUE)
        decoding.plot(marks["null_high"], marks["y"], "|", color=GREY, markersize=9)
        placed = own.join(marks.select("of", "hook", "y"), on=["of", "hook"])
        for kind, part in placed.group_by("kind", maintain_order=True):
            random = kind[0] == "random"
            value = part["value"].to_numpy()
            ends = np.abs(part.select("low", "high").to_numpy().T - value)
            effect.errorbar(
                value,
                part["y"].to_numpy() + 0.25 * random,
                xerr=ends,
                fmt="o",
                color=GREY if random else BLUE,
                capsize=2,
            )
        labels = [
            f"{words(row['of'])}, layer {row['hook'].split('.')[1]}" for row in marks.to_dicts()
        ]
        decoding.set_yticks(range(len(labels)), labels)
        effect.set_yticks(range(len(labels)), [""] * len(labels))
        for panel in (decoding, effect):
            panel.set_ylim(len(labels) - 0.4, -0.6)
        decoding.set_xlabel("R² of circle or line")
        effect.set_xlabel(names[measure])
        effect.axvline(0, color=INK, linewidth=0.8)
    legend(
        drawing,
        [
            legend_entry(color=BLUE, marker="o", linestyle="", label="circle or line"),
            legend_entry(
                color=GREY, marker="|", markersize=9, linestyle="", label="its null, up to"
            ),
            legend_entry(color=GREY, marker="o", linestyle="", label="moved at random, as far"),
        ],
    )
    return drawing


def geometry_causes_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no prompts were given in which the model is moved."
    parts = [
        f"{row['of']} at {row['hook']}, {row['kind']}: {row['value']:.2f}"
        for row in rows.to_dicts()
    ]
    return f"What moving does: {'; '.join(parts)}."


FIGURES = (
    Figure(
        name="geometry_circles",
        tables=("geometry/circles.parquet", "geometry/places.parquet"),
        rows=of_circles,
        draw=geometry_circles,
        alt=geometry_circles_alt,
        title="Words in the plane of their circle",
        caption="Mean activations of words over texts, in the pair of principal components that "
        "explains the circle of their order best, scaled to equal spread. Grey lines join "
        "neighbours of the order. R² stands beside what other orders of the same words reach "
        "when their best pair is sought, too.",
        section="geometry",
        drawn=lambda study: bool(study.geometry and study.geometry.points.groups),
    ),
    Figure(
        name="geometry_lines",
        tables=("geometry/lines.parquet", "geometry/held_out.parquet"),
        rows=of_lines,
        draw=geometry_lines,
        alt=geometry_lines_alt,
        title="Numbers of texts that the line was not fitted to",
        caption="What ridge regression says of blocks of numbers that were held out whole, against "
        "the numbers themselves; dots are texts, joined marks means of eighths of them. The null "
        "exchanges the numbers of whole blocks.",
        section="geometry",
        drawn=lambda study: bool(study.geometry and study.geometry.points.lines),
    ),
    Figure(
        name="geometry_causes",
        tables=(
            "geometry/circles.parquet",
            "geometry/lines.parquet",
            "geometry/causes.parquet",
        ),
        rows=of_causes,
        draw=geometry_causes,
        alt=geometry_causes_alt,
        title="What can be told, and what the model goes by",
        caption="R² of circles and lines against what the model does when it is moved along them: "
        "the share of words after which it goes on as after the word that they were turned to, "
        "or the change of log-odds of the token of high numbers. Grey: random directions, as far.",
        section="geometry",
        drawn=lambda study: bool(study.geometry and moves(study.geometry)),
    ),
    *LATENT_FIGURES,
)
