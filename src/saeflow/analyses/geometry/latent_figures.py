"""Figures of latents that stand for words: where they lie, how they split, where they stand along
lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, FAINT, GREY, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from saeflow.analyses import Study

SHOWN = 6
"""Panels of a figure, at most."""
MANY = 14
"""Words in a circle, beyond which their names stand at two distances."""
BRANCHES = 24
"""Latents of one SAE in a tree, at most."""


def ring(panel: Axes, own: pl.DataFrame) -> None:
    """Words in the plane of their circle, neighbours of the order joined, and how round it is."""
    x, y = own["x"].to_numpy(), own["y"].to_numpy()
    panel.plot(np.append(x, x[0]), np.append(y, y[0]), color=FAINT, linewidth=1.2)
    panel.plot(x, y, "o", color=BLUE)
    radius = np.hypot(x, y).max()
    reach = 1.75 * radius
    around = _spread(np.arctan2(y, x))
    for i, (word, angle) in enumerate(zip(own["word"].to_list(), around, strict=True)):
        out = (1.25 + 0.2 * (i % 2) * (len(own) > MANY)) * radius
        left, up = out * np.cos(angle), out * np.sin(angle)
        panel.plot([x[i], left], [y[i], up], color=GREY, linewidth=0.5, zorder=1)
        panel.annotate(
            words(word),
            (left, up),
            ha="left" if left > 0.4 * abs(up) else "right" if left < -0.4 * abs(up) else "center",
            va="bottom" if up > abs(left) else "top" if up < -abs(left) else "center",
            fontsize=7,
            color=INK,
        )
    panel.update_datalim([(-reach, -reach), (reach, reach)])
    panel.margins(0)
    panel.set(xticks=[], yticks=[])
    panel.set_aspect("equal", adjustable="datalim")  # so that titles of two lines have room
    panel.grid(visible=False)
    first = own.row(0, named=True)
    panel.set_xlabel(
        f"R² {first['r2']:.2f}; other orders up to {first['null_high']:.2f}", fontsize=8
    )


def _spread(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles of names beside points at given angles: in the same order around, none closer to the
    next than most of an equal share."""
    order = np.argsort(angles)
    spread, least = angles[order], 0.85 * 2 * np.pi / len(angles)
    for _ in range(200):
        gaps = np.diff(spread, append=spread[0] + 2 * np.pi)
        push = np.maximum(least - gaps, 0) / 2
        spread = spread - push + np.roll(push, 1)
    names = np.empty_like(angles)
    names[order] = spread
    return names


def of_latent_circles(
    circles: pl.DataFrame, places: pl.DataFrame, settings: Figures
) -> pl.DataFrame:
    """Where words lie, of the circles that are clearest."""
    if circles.is_empty() or places.is_empty():
        return pl.DataFrame()
    measured = circles.drop_nulls(["r2", "null_high"])
    best = measured.sort("r2", descending=True, maintain_order=True).head(SHOWN)
    kept = best.select("group", "sae", "points", "r2", "null_high", "p")
    return kept.join(places, on=["group", "sae", "points"], maintain_order="left_right")


@styled
def geometry_latent_circles(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Words by decoder rows, activations, and what a group of latents rebuilds of them."""
    if rows.is_empty():
        return no_data(settings, "no group has enough latents or words for a circle")
    shown = rows.partition_by("group", "sae", "points", maintain_order=True)
    drawing, axes = panels(len(shown), settings, 2.8, share_x=False, share_y=False)
    for panel, own in zip(axes, shown, strict=True):
        ring(panel, own)
        first = own.row(0, named=True)
        panel.set_title(f"{words(first['group'])}, {words(first['sae'])}\n{first['points']}")
    return drawing


def geometry_latent_circles_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no group has enough latents or words for a circle."
    parts = [
        f"{row['group']} in {row['sae']} by {row['points']} {row['r2']:.2f} (other orders up to "
        f"{row['null_high']:.2f})"
        for row in rows.unique(["group", "sae", "points"], maintain_order=True).to_dicts()
    ]
    return f"Words in the plane of their circle; R² of {'; '.join(parts)}."


def of_splits(splits: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Latents of every group, SAE by SAE, with the parents of either kind."""
    if splits.is_empty():
        return pl.DataFrame()
    measured = splits.drop_nulls(["latent", "parent", "value"])
    groups = measured["group"].unique(maintain_order=True).head(SHOWN)
    return measured.filter(pl.col("group").is_in(groups.implode()))


def _shown(own: pl.DataFrame, names: Sequence[str]) -> dict[str, list[int]]:
    """Latents of every SAE that a tree shows, from the widest SAE down: those with the clearest
    parents, then these parents, then what else of the group there is room for."""
    shown: dict[str, list[int]] = {}
    kept = own.clear()
    for name in reversed(names):
        parents = kept.filter(narrow=name).sort("by")  # closest rows before what fires along
        members = own.filter(wide=name, by="decoder cosine").sort("value", descending=True)
        order = dict.fromkeys([*parents["parent"], *members["latent"]])
        shown[name] = list(order)[:BRANCHES]
        kept = own.filter(pl.col("wide") == name, pl.col("latent").is_in(shown[name]))
    return shown


def _heights(own: pl.DataFrame) -> tuple[list[str], dict[tuple[str, int], float]]:
    """The SAEs by width, and how high each latent stands: parents in order, children by them."""
    widths = {
        **dict(own.select("narrow", "narrow_width").iter_rows()),
        **dict(own.select("wide", "wide_width").iter_rows()),
    }
    names = sorted(widths, key=lambda name: (widths[name], name))
    shown = _shown(own, names)
    heights: dict[tuple[str, int], float] = {}
    for name in names:
        above = dict.fromkeys(shown[name], 0.5)
        for row in own.filter(by="decoder cosine", wide=name).to_dicts():
            if row["latent"] in above:
                parent = (row["narrow"], row["parent"])
                above[row["latent"]] = heights.get(parent, 0.5)
        order = sorted(above, key=lambda latent: (above[latent], latent))
        for i, latent in enumerate(order):
            heights[name, latent] = (i + 0.5) / len(order)
    return names, heights


@styled
def geometry_splitting(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """How latents of a group split from SAE to wider SAE, a panel for each group."""
    if rows.is_empty():
        return no_data(settings, "no group has latents in a wider SAE of the same hook")
    shown = rows.partition_by("group", maintain_order=True)
    drawing, axes = panels(len(shown), settings, 4.2, share_x=False, share_y=False, columns=1)
    for panel, own in zip(axes, shown, strict=True):
        names, heights = _heights(own)
        place = {name: i for i, name in enumerate(names)}
        by_cosine = {
            (row["wide"], row["latent"]): row["parent"]
            for row in own.filter(by="decoder cosine").to_dicts()
        }
        for row in own.to_dicts():
            child, parent = (row["wide"], row["latent"]), (row["narrow"], row["parent"])
            if child not in heights or parent not in heights:
                continue
            other = row["by"] != "decoder cosine"
            if other and by_cosine.get(child) == row["parent"]:
                continue
            x, y = (place[row["narrow"]], place[row["wide"]]), (heights[parent], heights[child])
            strength = min(1.0, max(0.15, row["value"]))
            panel.plot(
                x,
                y,
                color=ORANGE if other else BLUE,
                linestyle=(0, (2, 2)) if other else "-",
                linewidth=0.6 + 1.8 * strength,
                alpha=0.3 + 0.7 * strength,
            )
        inside = _labels(own)
        for (name, latent), height in heights.items():
            member = inside.get((name, latent))
            face = "white" if member is None else BLUE
            panel.plot(place[name], height, "o", color=face, markeredgecolor=BLUE, zorder=3)
            last = place[name] == len(names) - 1
            panel.annotate(
                f"{latent}" if member in (None, "") else f"{words(member or '')} ({latent})",
                (place[name], height),
                (6 if last else -6, 0),
                textcoords="offset points",
                ha="left" if last else "right",
                va="center",
                fontsize=7,
                color=GREY if member is None else INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
            )
        widths = dict(own.select("wide", "wide_width").iter_rows())
        widths |= dict(own.select("narrow", "narrow_width").iter_rows())
        ticks = [f"{words(name)}\n{widths[name]:,} latents" for name in names]
        panel.set_xticks(range(len(names)), ticks)
        title = words(own["group"][0])
        if (of_widest := own.filter(wide=names[-1])["latent"].n_unique()) > BRANCHES:
            title += f": {BRANCHES} of its {of_widest} latents in {words(names[-1])}"
        panel.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1), yticks=[], title=title)
        panel.grid(visible=False)
    legend(
        drawing,
        [
            legend_entry(color=BLUE, label="closest decoder row"),
            legend_entry(color=ORANGE, linestyle=(0, (2, 2)), label="fires with it most, another"),
            legend_entry(
                color="white",
                markeredgecolor=BLUE,
                marker="o",
                linestyle="",
                label="not of the group",
            ),
        ],
    )
    return drawing


def _labels(own: pl.DataFrame) -> dict[tuple[str, int], str]:
    """Members of a group and the words that they stand for; of a general one none."""
    labels = {
        (row["wide"], row["latent"]): row["word"] if row["kind"] == "specific" else ""
        for row in own.to_dicts()
    }
    for row in own.filter(parent_in_group=True).to_dicts():
        labels.setdefault((row["narrow"], row["parent"]), "")
    return labels


def geometry_splitting_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no group has latents in a wider SAE of the same hook."
    parts = [
        f"{group}: {own['latent'].n_unique()} latents of {wide} come from "
        f"{own['parent'].n_unique()} of {narrow}"
        for (group, narrow, wide), own in rows.filter(by="decoder cosine").group_by(
            ["group", "narrow", "wide"], maintain_order=True
        )
    ]
    return f"How latents split: {'; '.join(parts)}."


def of_periods(periods: pl.DataFrame, dated: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Numbers of latents and their places along lines."""
    if periods.is_empty() or dated.is_empty():
        return pl.DataFrame()
    key = ["line", "sae", "of"]
    measured = dated.drop_nulls(["rank", "null_high"])
    best = measured.sort("rank", descending=True, maintain_order=True).head(SHOWN)
    kept = best.select(*key, "rank", "null_high", "p")
    return kept.join(periods, on=key, maintain_order="left_right")


@styled
def geometry_periods(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Decoder rows along a line against the numbers that latents stand for."""
    if rows.is_empty():
        return no_data(settings, "no latents have numbers of their own")
    shown = rows.partition_by("line", "sae", "of", maintain_order=True)
    drawing, axes = panels(len(shown), settings, 2.6, share_x=False, share_y=False)
    for panel, own in zip(axes, shown, strict=True):
        opacity = min(0.6, max(0.08, 200 / len(own)))  # where dots lie upon each other
        panel.plot(own["value"].to_numpy(), own["place"].to_numpy(), ".", color=BLUE, alpha=opacity)
        panel.axhline(0, color=INK, linewidth=0.8)
        first = own.row(0, named=True)
        panel.set_title(f"{words(first['line'])}, {words(first['sae'])}\nby {first['of']}")
        panel.set_xlabel(
            f"number of the latent\nrank correlation {first['rank']:.2f}, null up to "
            f"{first['null_high']:.2f}",
            fontsize=8,
        )
        panel.set_ylabel("cosine with the line")
    return drawing


def geometry_periods_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no latents have numbers of their own."
    parts = [
        f"{row['line']} in {row['sae']} by {row['of']} {row['rank']:.2f} (null up to "
        f"{row['null_high']:.2f})"
        for row in rows.unique(["line", "sae", "of"], maintain_order=True).to_dicts()
    ]
    return f"Latents along lines by their numbers; rank correlation of {'; '.join(parts)}."


def _grouped(study: Study) -> bool:
    asked = study.geometry and study.geometry.latents
    return bool(asked and asked.groups)


LATENT_FIGURES = (
    Figure(
        name="geometry_latent_circles",
        tables=("geometry/latent_circles.parquet", "geometry/latent_places.parquet"),
        rows=of_latent_circles,
        draw=geometry_latent_circles,
        alt=geometry_latent_circles_alt,
        title="Words in an SAE",
        caption="The circle of words by decoder rows of the latents that stand for one of them "
        "each, by mean activations over texts, and by what the latents of the group alone rebuild "
        "of these. R² stands beside what other orders of the same words reach.",
        section="geometry_latents",
        drawn=_grouped,
    ),
    Figure(
        name="geometry_splitting",
        tables=("geometry/splits.parquet",),
        rows=of_splits,
        draw=geometry_splitting,
        alt=geometry_splitting_alt,
        title="How latents split over widths",
        caption="Latents of a group in SAEs of one hook, the narrowest on the left, each joined "
        "with the latent of the narrower SAE whose decoder row is closest to its own and, where "
        "that is another, with the one that fires with it most; the closer, the thicker. A latent "
        "with a word fires on that word alone.",
        section="geometry_latents",
        drawn=_grouped,
    ),
    Figure(
        name="geometry_periods",
        tables=("geometry/periods.parquet", "geometry/dated_latents.parquet"),
        rows=of_periods,
        draw=geometry_periods,
        alt=geometry_periods_alt,
        title="Latents along lines",
        caption="Where decoder rows stand along a line against the numbers of latents: of the word "
        "that they stand for, or the mean of texts on which they fire and which the line was not "
        "fitted to. The null fits the line to numbers exchanged between blocks.",
        section="geometry_latents",
        drawn=lambda study: bool(
            study.geometry and study.geometry.latents and study.geometry.points.lines
        ),
    ),
)
