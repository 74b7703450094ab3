"""Figures of the token sets that stand out among latents' logit weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saeflow.config.sections import Figures
from saeflow.figures.lens import NOT_ENRICHED
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import INK, SERIES

DEFAULT = Figures()
SMALLEST_P = 1e-300
MOST_SETS, NAMED = 60, 8


def discoveries(enrichment: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Every latent and token set that is found enriched, sets in the order of their kinds.

    Args:
        enrichment: sae, latent, set, kind, p, q_bh, effect.
    """
    if enrichment.is_empty():
        return pl.DataFrame()
    strength = -pl.col("p").clip(SMALLEST_P).log10()
    rows = enrichment.drop_nulls(["p", "effect"]).with_columns(strength=strength)
    sets = (
        rows.group_by("kind", "set")
        .agg(pl.col("strength").max())
        .sort("strength", "set", descending=[True, False])
    )
    kept = sets.head(MOST_SETS).sort("kind", "set").with_row_index("place").select("set", "place")
    chosen = rows.join(kept, on="set").sort("place", "latent", "sae")
    return chosen.select("place", "kind", "set", "sae", "latent", "strength", "effect", "q_bh")


@styled
def manhattan(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """How surprisingly each latent's logit weights tell a token set apart: a column of dots per
    set.

    Args:
        rows: from ``discoveries``.
    """
    if rows.is_empty():
        return no_data(settings, NOT_ENRICHED)
    figure, (panel,) = panels(1, settings, height=2.6, columns=1)
    kinds = rows["kind"].unique(maintain_order=True).to_list()
    spread = 0.7 / max(1.0, float(rows["latent"].to_numpy().max()))
    for number, kind in enumerate(kinds):
        own = rows.filter(pl.col("kind") == kind)
        x = own["place"] + own["latent"] * spread - 0.35
        for raised, marker in ((True, "^"), (False, "v")):
            which = (own["effect"] > 0) == raised
            panel.scatter(
                x.filter(which),
                own["strength"].filter(which),
                s=13,
                marker=marker,
                linewidths=0,
                alpha=0.75,
                c=SERIES[number % len(SERIES)],
                rasterized=True,
            )
    _name_strongest(panel, rows, spread)
    sets = rows.unique("place", maintain_order=True)
    panel.set_xticks(
        sets["place"].to_list(), [words(name) for name in sets["set"]], rotation=90, fontsize=7
    )
    panel.set_xlim(-0.6, float(sets["place"][-1]) + 0.6)
    panel.set(ylabel="−log₁₀ p", ylim=(0, None))
    panel.grid(axis="x", visible=False)
    shapes_of_dots = [
        Line2D([], [], linestyle="", color=INK, marker=marker, markersize=5, label=label)
        for marker, label in (("^", "raises the set's tokens"), ("v", "lowers them"))
    ]
    colours = [
        Line2D(
            [],
            [],
            linestyle="",
            color=SERIES[i % len(SERIES)],
            marker="o",
            markersize=5,
            label=kind,
        )
        for i, kind in enumerate(kinds)
    ]
    legend(figure, [*shapes_of_dots, *colours])
    return figure


def _name_strongest(panel: Axes, rows: pl.DataFrame, spread: float) -> None:
    """Write the number of the latent beside the strongest dots, one per set."""
    strongest = (
        rows.sort("strength", descending=True)
        .unique("place", keep="first", maintain_order=True)
        .head(NAMED)
    )
    for place, latent, strength in strongest.select("place", "latent", "strength").iter_rows():
        at = (place + latent * spread - 0.35, strength)
        panel.annotate(
            str(latent), at, (0, 4), textcoords="offset points", ha="center", fontsize=7, color=INK
        )


def manhattan_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_ENRICHED}."
    strongest = (
        rows.sort("strength", descending=True)
        .unique("set", keep="first", maintain_order=True)
        .head(5)
    )
    told = ", ".join(
        f"{words(name)} by latent {latent}"
        for name, latent in strongest.select("set", "latent").iter_rows()
    )
    return (
        f"Dots for {len(rows)} pairs of latent and token set that are enriched, over "
        f"{rows['set'].n_unique()} sets, by "
        f"the logarithm of their p-value. The strongest: {told}."
    )


def grid(scores: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The effect of every set on the latents that stand out most for one of them, and of every such
    set.

    Args:
        scores: latent, set, kind, auc, strongest (whether the pair is enriched and the strongest of
            its set).
    """
    if scores.is_empty():
        return pl.DataFrame()
    effect = 2 * pl.col("auc") - 1
    rows = scores.drop_nulls("auc").with_columns(effect=effect)
    leaders = (
        rows.filter("strongest").sort(pl.col("effect").abs(), descending=True).head(MOST_SETS // 2)
    )
    leaders = leaders.sort("kind", "set")
    sets = leaders.select("set").with_row_index("row")
    latents = (
        leaders.unique("latent", maintain_order=True).select("latent").with_row_index("column")
    )
    found = rows.join(sets, on="set").join(latents, on="latent").sort("row", "column")
    return found.select("row", "column", "set", "latent", "effect")


@styled
def heat_map(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Effect of token sets on latents: blue where a latent lowers the set's tokens, red where it
    raises them.

    Args:
        rows: from ``grid``.
    """
    if rows.is_empty():
        return no_data(settings, NOT_ENRICHED)
    sets, latents = (
        rows.unique("row", maintain_order=True),
        rows.unique("column", maintain_order=True).sort("column"),
    )
    values = np.full((len(sets), len(latents)), np.nan)
    values[_index(rows["row"], sets["row"]), _index(rows["column"], latents["column"])] = rows[
        "effect"
    ].to_numpy()
    size = (settings.width, 0.19 * len(sets) + 1.3)
    figure = Figure(figsize=size, dpi=settings.dpi, layout="constrained")
    panel = figure.subplots()
    picture = panel.imshow(
        values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest"
    )
    panel.set_yticks(range(len(sets)), [words(name) for name in sets["set"]], fontsize=7.5)
    panel.set_xticks(
        range(len(latents)),
        [str(latent) for latent in latents["latent"]],
        rotation=90,
        fontsize=7.5,
    )
    panel.set_xlabel("latent")
    panel.grid(visible=False)
    figure.colorbar(picture, ax=panel, label="effect (rank-biserial)", shrink=0.9, pad=0.01)
    return figure


def _index(values: pl.Series, known: pl.Series) -> Any:
    return np.searchsorted(known.to_numpy(), values.to_numpy())


def heat_map_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_ENRICHED}."
    best = (
        rows.sort(pl.col("effect").abs(), descending=True)
        .unique("set", keep="first", maintain_order=True)
        .head(5)
    )
    told = ", ".join(
        f"{words(name)} and latent {latent} {effect:+.2f}"
        for name, latent, effect in best.select("set", "latent", "effect").iter_rows()
    )
    return (
        f"Heat map of the effect of {rows['set'].n_unique()} token sets on "
        f"{rows['latent'].n_unique()} latents. "
        f"The strongest: {told}."
    )
