"""Figures of the token sets that stand out among latents' logit weights, in the SAE that is
targeted, else the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saeflow.analyses.logit_lens import saes
from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import canvas, legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, GREY, INK, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NOT_ENRICHED = "no token set stands out"
SMALLEST_P = 1e-300
MOST_SETS = 60
CHANCE = "−log₁₀ p (the further to the right, the less likely by chance)"


def main_sae(study: Any) -> dict[str, list[str]]:
    """Drawn of one SAE."""
    looked_at = saes(study)
    return {"lens_sae": [study.target_sae] if study.target_sae in looked_at else looked_at[:1]}


def with_kinds(table: pl.DataFrame, sets: pl.DataFrame) -> pl.DataFrame:
    """A table by token set, with the kind of each."""
    if table.is_empty() or sets.is_empty():
        return table.clear()
    return table.with_columns(pl.col("set").cast(pl.String)).join(
        sets.select("set", "kind"), on="set", how="left"
    )


def with_strongest(scores: pl.DataFrame, enrichment: pl.DataFrame) -> pl.DataFrame:
    """Scores with a column that marks the pairs of latent and set that are enriched most for their
    set."""
    if scores.is_empty() or enrichment.is_empty():
        return scores.clear()
    leaders = enrichment.sort(pl.col("effect").abs(), "latent", descending=[True, False]).unique(
        "set", keep="first", maintain_order=True
    )
    marked = leaders.select("latent", pl.col("set").cast(pl.String), strongest=pl.lit(value=True))
    return scores.join(marked, on=["latent", "set"], how="left").with_columns(
        pl.col("strongest").fill_null(value=False)
    )


def shares(splits: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Shares of the tokens of a set, and of all others, by logit weight: a row per bin.

    Args:
        splits: latent, set, ks, low, high, inside and outside (counts by bin).
    """
    splits = splits.drop_nulls()
    if splits.is_empty():
        return pl.DataFrame()
    bins = len(splits["inside"][0])
    width = (pl.col("high") - pl.col("low")) / bins
    named = splits.with_row_index("panel").with_columns(
        bin=pl.int_ranges(bins),
        members=pl.col("inside").list.sum(),
        others=pl.col("outside").list.sum(),
    )
    bars = named.explode("inside", "outside", "bin").with_columns(
        left=pl.col("low") + pl.col("bin") * width,
        right=pl.col("low") + (pl.col("bin") + 1) * width,
        inside=pl.col("inside") / pl.col("members"),
        outside=pl.col("outside") / pl.col("others"),
    )
    return bars.select(
        "panel", "latent", "set", "ks", "members", "left", "right", "inside", "outside"
    )


@styled
def histograms(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Logit weights of the tokens of a set beside those of all others, a panel per latent and set.

    Args:
        rows: from ``shares``.
    """
    if rows.is_empty():
        return no_data(settings, NOT_ENRICHED)
    numbers = rows["panel"].unique(maintain_order=True).to_list()
    figure, axes = panels(len(numbers), settings, height=2.1, share_x=False, share_y=False)
    for number, panel in zip(numbers, axes, strict=True):
        own = rows.filter(pl.col("panel") == number)
        edges = np.append(own["left"].to_numpy(), own["right"][-1])
        for column, colour in (("outside", GREY), ("inside", VERMILLION)):
            panel.stairs(own[column] * 100, edges, fill=True, color=colour, alpha=0.35)
            panel.stairs(own[column] * 100, edges, color=colour, linewidth=1)
        panel.set_title(
            f"latent {own['latent'][0]}: {words(own['set'][0])} ({own['members'][0]})", fontsize=9
        )
        panel.grid(axis="x", visible=False)
        # where the set's tokens are not
        side, across = ("left", 0.02) if own["ks"][0] > 0 else ("right", 0.98)
        statistic = f"KS {own['ks'][0]:+.2f}"
        panel.text(
            across, 0.95, statistic, transform=panel.transAxes, ha=side, va="top", fontsize=8
        )
        panel.locator_params(nbins=5)
    figure.supxlabel("logit weight", fontsize=9)
    figure.supylabel("% of the tokens", fontsize=9)
    handles = [
        legend_entry(color=colour, linewidth=5, alpha=0.5, label=label)
        for label, colour in (("tokens of the set", VERMILLION), ("all other tokens", GREY))
    ]
    legend(figure, handles)
    return figure


def histograms_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_ENRICHED}."
    pairs = rows.group_by("panel", maintain_order=True).first()
    described = [
        f"latent {latent} by {words(name)}, KS {ks:+.2f}"
        for latent, name, ks in pairs.select("latent", "set", "ks").iter_rows()
    ]
    return f"Histograms of logit weights split by a token set: {'; '.join(described)}."


def discoveries(
    enrichment: pl.DataFrame, sets: pl.DataFrame, settings: Figures = DEFAULT
) -> pl.DataFrame:
    """Every latent and token set that is found enriched, sets in the order of their kinds.

    Args:
        enrichment: sae, latent, set, p, q_bh, effect.
        sets: set, kind.
    """
    enrichment = with_kinds(enrichment, sets)
    if enrichment.is_empty():
        return pl.DataFrame()
    strength = -pl.col("p").clip(SMALLEST_P).log10()
    rows = enrichment.drop_nulls(["p", "effect"]).with_columns(strength=strength)
    strongest = (
        rows.group_by("kind", "set")
        .agg(pl.col("strength").max())
        .sort("strength", "set", descending=[True, False])
    )
    kept = strongest.head(MOST_SETS).sort("kind", "set").with_row_index("place")
    chosen = rows.join(kept.select("set", "place"), on="set").sort("place", "latent", "sae")
    return chosen.select("place", "kind", "set", "sae", "latent", "strength", "effect", "q_bh")


@styled
def manhattan(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """How surprisingly each latent's logit weights tell a token set apart: a line of dots per set,
    sets of one kind beside each other.

    Args:
        rows: from ``discoveries``.
    """
    if rows.is_empty():
        return no_data(settings, NOT_ENRICHED)
    sets = rows.unique("place", maintain_order=True)
    figure = canvas(settings.width, 1.1 + 0.24 * len(sets), settings)
    panel = figure.subplots()
    for raised, (marker, colour, _) in DIRECTIONS.items():
        dots = rows.filter((pl.col("effect") > 0) == raised)
        # Beside the line of their set, so that both are seen where they are level.
        height = dots["place"] + (-0.13 if raised else 0.13)
        panel.scatter(dots["strength"], height, s=34, marker=marker, c=colour, **_DOTS)
    for place, latent, strength in _strongest(rows):
        panel.annotate(
            str(latent),
            (strength, place),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    panel.set_yticks(sets["place"].to_list(), [words(name) for name in sets["set"]])
    panel.tick_params(axis="y", length=0, labelcolor=INK)
    panel.set(ylim=(float(sets["place"][-1]) + 0.6, -0.6), xlabel=CHANCE)
    panel.margins(x=0.06)
    _name_kinds(panel, sets)
    legend(
        figure,
        [
            legend_entry(linestyle="", color=colour, marker=marker, markersize=6, label=label)
            for marker, colour, label in DIRECTIONS.values()
        ],
    )
    return figure


DIRECTIONS = {
    True: ("^", VERMILLION, "latent raises the set's tokens"),
    False: ("v", BLUE, "latent lowers them"),
}
_DOTS: dict[str, Any] = {"linewidths": 0, "alpha": 0.8}


def _strongest(rows: pl.DataFrame) -> list[tuple[int, int, float]]:
    """Of each set its place, the latent that stands out most for it, and how much."""
    leading = rows.sort("strength", descending=True).unique(
        "place", keep="first", maintain_order=True
    )
    return leading.select("place", "latent", "strength").rows()


def _name_kinds(panel: Axes, sets: pl.DataFrame) -> None:
    """A line between sets of different kinds, and the kinds' names at the right."""
    for (kind,), own in sets.group_by("kind", maintain_order=True):
        first = float(own["place"][0])
        if first > 0:
            panel.axhline(first - 0.5, color=GREY, linewidth=0.8)
        panel.annotate(
            str(kind),
            (1, first),
            (-2, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color="#555555",
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
    pairs = ", ".join(
        f"{words(name)} by latent {latent}"
        for name, latent in strongest.select("set", "latent").iter_rows()
    )
    return (
        f"Dots for {len(rows)} pairs of latent and token set that are enriched, over "
        f"{counted(rows['set'].n_unique(), 'set')}, by the logarithm of their p-value. The "
        f"strongest: {pairs}."
    )


def grid(
    scores: pl.DataFrame, enrichment: pl.DataFrame, sets: pl.DataFrame, settings: Figures = DEFAULT
) -> pl.DataFrame:
    """The effect of every set on the latents that stand out most for one of them, and of every such
    set.

    Args:
        scores: latent, set, auc.
        enrichment: latent, set, effect, of pairs that are enriched.
        sets: set, kind.
    """
    scores = with_strongest(with_kinds(scores, sets), enrichment)
    if scores.is_empty():
        return pl.DataFrame()
    effect = 2 * pl.col("auc") - 1
    rows = scores.drop_nulls("auc").with_columns(effect=effect)
    leaders = (
        rows.filter("strongest").sort(pl.col("effect").abs(), descending=True).head(MOST_SETS // 2)
    )
    leaders = leaders.sort("kind", "set")
    led = leaders.select("set").with_row_index("row")
    latents = (
        leaders.unique("latent", maintain_order=True).select("latent").with_row_index("column")
    )
    cells = rows.join(led, on="set").join(latents, on="latent").sort("row", "column")
    return cells.select("row", "column", "set", "latent", "effect")


@styled
def heat_map(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Effect of token sets on latents: blue where a latent lowers the set's tokens, red where it
    raises them.

    Args:
        rows: from ``grid``.
    """
    if rows.is_empty():
        return no_data(settings, NOT_ENRICHED)
    sets = rows.unique("row", maintain_order=True)
    latents = rows.unique("column", maintain_order=True).sort("column")
    values = np.full((len(sets), len(latents)), np.nan)
    values[_index(rows["row"], sets["row"]), _index(rows["column"], latents["column"])] = rows[
        "effect"
    ].to_numpy()
    figure = canvas(settings.width, 0.19 * len(sets) + 1.3, settings)
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


def _index(values: pl.Series, listed: pl.Series) -> Any:
    return np.searchsorted(listed.to_numpy(), values.to_numpy())


def heat_map_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_ENRICHED}."
    best = (
        rows.sort(pl.col("effect").abs(), descending=True)
        .unique("set", keep="first", maintain_order=True)
        .head(5)
    )
    pairs = ", ".join(
        f"{words(name)} and latent {latent} {effect:+.2f}"
        for name, latent, effect in best.select("set", "latent", "effect").iter_rows()
    )
    return (
        f"Heat map of the effect of {counted(rows['set'].n_unique(), 'token set')} on "
        f"{counted(rows['latent'].n_unique(), 'latent')}. The strongest: {pairs}."
    )


FIGURES = (
    Figure(
        name="lens_histograms",
        tables=("logit_lens/{lens_sae}/splits.parquet",),
        rows=shares,
        draw=histograms,
        alt=histograms_alt,
        title="Latents that tell a token set apart",
        caption="Logit weights of the tokens of one set, and of all other tokens, for the latents "
        "that tell them apart best; in brackets the size of the set. KS is the two-sample "
        "Kolmogorov-Smirnov statistic: +1 where all tokens of the set lie above all others, -1 "
        "where they lie below.",
        section="latents",
        names=main_sae,
    ),
    Figure(
        name="lens_manhattan",
        tables=("logit_lens/{lens_sae}/enrichment.parquet", "logit_lens/sets.parquet"),
        rows=discoveries,
        draw=manhattan,
        alt=manhattan_alt,
        title="Which token sets stand out",
        caption="A line of dots per token set, a dot for every latent whose logit weights tell "
        "the set apart at the study's false discovery rate: the further to the right, the less "
        "chance would do it. The number is that of the strongest latent; at the right stands the "
        "kind of the sets.",
        section="latents",
        names=main_sae,
    ),
    Figure(
        name="lens_heat_map",
        tables=(
            "logit_lens/{lens_sae}/scores.parquet",
            "logit_lens/{lens_sae}/enrichment.parquet",
            "logit_lens/sets.parquet",
        ),
        rows=grid,
        draw=heat_map,
        alt=heat_map_alt,
        title="Token sets and the latents that lead them",
        caption="For each token set the latent that stands out most, and what that latent does to "
        "all other sets: red where their tokens lie above the others, blue where they lie below.",
        section="latents",
        names=main_sae,
    ),
)
