"""Figures of the logit lens: the shapes of logit weights, the token sets that stand out, what the model really does."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saeflow.config.sections import Figures
from saeflow.figures.style import BLUE, GREY, INK, SERIES, VERMILLION, legend, no_data, panels, styled, words

DEFAULT = Figures()
NOTHING = "the logit lens was not applied"
NOT_ENRICHED = "no token set stands out"
CLASSES = {"none": (".", 28), "partition": ("s", 20), "suppression": ("v", 26), "prediction": ("^", 26)}
"""Marker and size of each class."""
SMALLEST_P = 1e-300
MOST_SETS, NAMED = 60, 8


def shapes(latents: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Skewness, kurtosis (3 for a normal distribution), deviation and class of every latent.

    Args:
        latents: sae, latent, skewness, kurtosis (excess), std, class.
    """
    if latents.is_empty():
        return pl.DataFrame()
    chosen = latents.select("sae", "latent", "layer", "skewness", pl.col("kurtosis") + 3, "std", "class")
    return chosen.drop_nulls().filter(pl.col("std") > 0)


@styled
def moments(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Kurtosis against skewness of logit weights, a dot per latent, coloured by their deviation, a panel per SAE.

    Args:
        rows: from ``shapes``.
    """
    if rows.is_empty():
        return no_data(settings, NOTHING)
    names = rows["sae"].unique(maintain_order=True).to_list()
    figure, axes = panels(len(names), settings, height=2.9)
    low, high = (float(rows["std"].quantile(share) or 0) for share in (0.01, 0.99))
    colours: dict[str, Any] = {"cmap": "viridis", "vmin": low, "vmax": high, "rasterized": True}
    for name, panel in zip(names, axes, strict=True):
        own = rows.filter(pl.col("sae") == name)
        for kind, (marker, size) in CLASSES.items():
            dots = own.filter(pl.col("class") == kind)
            panel.scatter(
                dots["skewness"], dots["kurtosis"], c=dots["std"], marker=marker, s=size, linewidths=0, **colours
            )
        panel.axhline(3, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.8)
        panel.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.8)
        panel.set_yscale("log")
        panel.set(xlabel="skewness", ylabel="kurtosis (normal: 3)")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value < 10 else "")
        panel.tick_params(axis="y", which="minor", labelsize=7)
        panel.set_title(words(name) if len(names) > 1 else "")
    scale = ScalarMappable(Normalize(low, high), "viridis")
    figure.colorbar(scale, ax=axes, label="standard deviation", shrink=0.85)
    counts = dict(rows.group_by("class").len().iter_rows())
    handles = [
        Line2D([], [], linestyle="", color=INK, marker=marker, markersize=5, label=f"{kind} ({counts.get(kind, 0)})")
        for kind, (marker, _) in CLASSES.items()
    ]
    legend(figure, handles)
    return figure


def moments_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    counts = ", ".join(f"{kind} {count}" for kind, count in rows.group_by("class").len().sort("class").iter_rows())
    return (
        f"Scatter chart of kurtosis against skewness of the logit weights of {len(rows)} latents, coloured by their "
        f"standard deviation. Classes: {counts}. Median kurtosis {np.median(rows['kurtosis'].to_numpy()):.2f}."
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
        bin=pl.int_ranges(bins), members=pl.col("inside").list.sum(), others=pl.col("outside").list.sum()
    )
    found = named.explode("inside", "outside", "bin").with_columns(
        left=pl.col("low") + pl.col("bin") * width,
        right=pl.col("low") + (pl.col("bin") + 1) * width,
        inside=pl.col("inside") / pl.col("members"),
        outside=pl.col("outside") / pl.col("others"),
    )
    return found.select("panel", "latent", "set", "ks", "members", "left", "right", "inside", "outside")


@styled
def histograms(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
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
        panel.set_title(f"latent {own['latent'][0]}: {words(own['set'][0])} ({own['members'][0]})", fontsize=9)
        panel.grid(axis="x", visible=False)
        side, across = ("left", 0.02) if own["ks"][0] > 0 else ("right", 0.98)  # where the set's tokens are not
        told = f"KS {own['ks'][0]:+.2f}"
        panel.text(across, 0.95, told, transform=panel.transAxes, ha=side, va="top", fontsize=8)
        panel.locator_params(nbins=5)
    figure.supxlabel("logit weight", fontsize=9)
    figure.supylabel("% of the tokens", fontsize=9)
    handles = [
        Line2D([], [], color=colour, linewidth=5, alpha=0.5, label=label)
        for label, colour in (("tokens of the set", VERMILLION), ("all other tokens", GREY))
    ]
    legend(figure, handles)
    return figure


def histograms_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_ENRICHED}."
    pairs = rows.group_by("panel", maintain_order=True).first()
    told = [
        f"latent {latent} by {words(name)}, KS {ks:+.2f}"
        for latent, name, ks in pairs.select("latent", "set", "ks").iter_rows()
    ]
    return f"Histograms of logit weights split by a token set: {'; '.join(told)}."


def discoveries(enrichment: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Every latent and token set that is found enriched, sets in the order of their kinds.

    Args:
        enrichment: sae, latent, set, kind, p, q_bh, effect.
    """
    if enrichment.is_empty():
        return pl.DataFrame()
    strength = -pl.col("p").clip(SMALLEST_P).log10()
    rows = enrichment.drop_nulls(["p", "effect"]).with_columns(strength=strength)
    sets = rows.group_by("kind", "set").agg(pl.col("strength").max()).sort("strength", "set", descending=[True, False])
    kept = sets.head(MOST_SETS).sort("kind", "set").with_row_index("place").select("set", "place")
    chosen = rows.join(kept, on="set").sort("place", "latent", "sae")
    return chosen.select("place", "kind", "set", "sae", "latent", "strength", "effect", "q_bh")


@styled
def manhattan(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """How surprisingly each latent's logit weights tell a token set apart: a column of dots per set.

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
    panel.set_xticks(sets["place"].to_list(), [words(name) for name in sets["set"]], rotation=90, fontsize=7)
    panel.set_xlim(-0.6, float(sets["place"][-1]) + 0.6)
    panel.set(ylabel="−log₁₀ p", ylim=(0, None))
    panel.grid(axis="x", visible=False)
    shapes_of_dots = [
        Line2D([], [], linestyle="", color=INK, marker=marker, markersize=5, label=label)
        for marker, label in (("^", "raises the set's tokens"), ("v", "lowers them"))
    ]
    colours = [
        Line2D([], [], linestyle="", color=SERIES[i % len(SERIES)], marker="o", markersize=5, label=kind)
        for i, kind in enumerate(kinds)
    ]
    legend(figure, [*shapes_of_dots, *colours])
    return figure


def _name_strongest(panel: Axes, rows: pl.DataFrame, spread: float) -> None:
    """Write the number of the latent beside the strongest dots, one per set."""
    strongest = rows.sort("strength", descending=True).unique("place", keep="first", maintain_order=True).head(NAMED)
    for place, latent, strength in strongest.select("place", "latent", "strength").iter_rows():
        at = (place + latent * spread - 0.35, strength)
        panel.annotate(str(latent), at, (0, 4), textcoords="offset points", ha="center", fontsize=7, color=INK)


def manhattan_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_ENRICHED}."
    strongest = rows.sort("strength", descending=True).unique("set", keep="first", maintain_order=True).head(5)
    told = ", ".join(
        f"{words(name)} by latent {latent}" for name, latent in strongest.select("set", "latent").iter_rows()
    )
    return (
        f"Dots for {len(rows)} pairs of latent and token set that are enriched, over {rows['set'].n_unique()} sets, by "
        f"the logarithm of their p-value. The strongest: {told}."
    )


def grid(scores: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The effect of every set on the latents that stand out most for one of them, and of every such set.

    Args:
        scores: latent, set, kind, auc, strongest (whether the pair is enriched and the strongest of its set).
    """
    if scores.is_empty():
        return pl.DataFrame()
    effect = 2 * pl.col("auc") - 1
    rows = scores.drop_nulls("auc").with_columns(effect=effect)
    leaders = rows.filter("strongest").sort(pl.col("effect").abs(), descending=True).head(MOST_SETS // 2)
    leaders = leaders.sort("kind", "set")
    sets = leaders.select("set").with_row_index("row")
    latents = leaders.unique("latent", maintain_order=True).select("latent").with_row_index("column")
    found = rows.join(sets, on="set").join(latents, on="latent").sort("row", "column")
    return found.select("row", "column", "set", "latent", "effect")


@styled
def heat_map(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Effect of token sets on latents: blue where a latent lowers the set's tokens, red where it raises them.

    Args:
        rows: from ``grid``.
    """
    if rows.is_empty():
        return no_data(settings, NOT_ENRICHED)
    sets, latents = rows.unique("row", maintain_order=True), rows.unique("column", maintain_order=True).sort("column")
    values = np.full((len(sets), len(latents)), np.nan)
    values[_index(rows["row"], sets["row"]), _index(rows["column"], latents["column"])] = rows["effect"].to_numpy()
    size = (settings.width, 0.19 * len(sets) + 1.3)
    figure = Figure(figsize=size, dpi=settings.dpi, layout="constrained")
    panel = figure.subplots()
    picture = panel.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    panel.set_yticks(range(len(sets)), [words(name) for name in sets["set"]], fontsize=7.5)
    panel.set_xticks(range(len(latents)), [str(latent) for latent in latents["latent"]], rotation=90, fontsize=7.5)
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
    best = rows.sort(pl.col("effect").abs(), descending=True).unique("set", keep="first", maintain_order=True).head(5)
    told = ", ".join(
        f"{words(name)} and latent {latent} {effect:+.2f}"
        for name, latent, effect in best.select("set", "latent", "effect").iter_rows()
    )
    return (
        f"Heat map of the effect of {rows['set'].n_unique()} token sets on {rows['latent'].n_unique()} latents. "
        f"The strongest: {told}."
    )


STATISTICS = {
    "std": "standard deviation",
    "skewness": "skewness",
    "kurtosis": "kurtosis (normal: 3)",
    "log10_density": "log₁₀ firing density",
}
_QUANTILES = {"p5": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "p95": 0.95}


def by_layer(latents: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Quantiles of each statistic over the latents of each SAE, SAEs in the order of their layers.

    Args:
        latents: sae, layer, and the columns of `STATISTICS`, kurtosis as excess.
    """
    if latents.is_empty():
        return pl.DataFrame()
    parts = []
    for name in STATISTICS:
        value = (pl.col(name) + 3 if name == "kurtosis" else pl.col(name)).cast(pl.Float64)
        quantiles = {label: value.quantile(share, "linear") for label, share in _QUANTILES.items()}
        part = latents.drop_nulls(name).group_by("layer", "sae").agg(**quantiles)
        parts.append(part.with_columns(statistic=pl.lit(name)))
    return pl.concat(parts).sort("statistic", "layer", "sae").select("statistic", "layer", "sae", *_QUANTILES)


@styled
def layers(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Spread of the lens's statistics over latents, a box per SAE: half of the latents lie in it, 90 % in its whiskers.

    Args:
        rows: from ``by_layer``.
    """
    rows = rows.drop_nulls()
    if rows.is_empty():
        return no_data(settings, NOTHING)
    shown = [name for name in STATISTICS if name in rows["statistic"]]
    figure, axes = panels(len(shown), settings, height=2.4, share_y=False, columns=2)
    for name, panel in zip(shown, axes, strict=True):
        own = rows.filter(pl.col("statistic") == name)
        boxes = [
            {"whislo": p5, "q1": q1, "med": median, "q3": q3, "whishi": p95}
            for p5, q1, median, q3, p95 in own.select(*_QUANTILES).iter_rows()
        ]
        labels = [f"{words(sae)}\nlayer {layer}" for sae, layer in own.select("sae", "layer").iter_rows()]
        panel.bxp(boxes, showfliers=False, patch_artist=True, **_BOXES)
        panel.set_xticks(range(1, len(boxes) + 1), labels, fontsize=7.5, rotation=90 if len(boxes) > 6 else 0)
        panel.set_title(STATISTICS[name])
        panel.grid(axis="x", visible=False)
    return figure


_BOXES: dict[str, Any] = {
    "boxprops": {"facecolor": "#BFD9EA", "edgecolor": BLUE},
    "medianprops": {"color": VERMILLION, "linewidth": 1.5},
    "whiskerprops": {"color": BLUE},
    "capprops": {"color": BLUE},
}


def layers_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    rows = rows.drop_nulls()
    if rows.is_empty():
        return f"No data: {NOTHING}."
    own = rows.filter(pl.col("statistic") == rows["statistic"][0])
    told = ", ".join(f"{sae} {median:.3g}" for sae, median in own.select("sae", "median").iter_rows())
    return (
        f"Box charts of {', '.join(STATISTICS.values())} over the latents of {own.height} SAEs. "
        f"Median {STATISTICS[str(rows['statistic'][0])]}: {told}."
    )


SIDES = {
    "random": ("drawn at random", GREY),
    "top": ("highest by the lens", VERMILLION),
    "bottom": ("lowest by the lens", BLUE),
}


@styled
def causal(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Measured change of log-probabilities when a latent is added, against its logit weights, a panel per latent.

    Args:
        rows: latent, set, side, weight, predicted, addition, ablation, r_addition, r_ablation.
    """
    rows = rows if rows.is_empty() else rows.drop_nulls(["weight", "addition"])
    if rows.is_empty():
        return no_data(settings, "no latent was checked")
    latents = rows["latent"].unique(maintain_order=True).to_list()
    figure, axes = panels(len(latents), settings, height=2.0, share_x=False, share_y=False)
    for latent, panel in zip(latents, axes, strict=True):
        own = rows.filter(pl.col("latent") == latent)
        for side, (_, colour) in SIDES.items():
            dots = own.filter(pl.col("side") == side)
            panel.scatter(dots["weight"], dots["addition"], s=14, c=colour, linewidths=0, alpha=0.8)
            panel.scatter(dots["weight"], -dots["ablation"], s=14, marker="x", c=colour, linewidths=0.9, alpha=0.8)
        panel.axhline(0, color=GREY, linewidth=0.8, zorder=0.8)
        r = own["r_addition"][0]
        panel.set_title(f"latent {latent}: {words(own['set'][0])}", fontsize=8.5)
        if r is not None:
            panel.text(0.03, 0.95, f"r = {r:.2f}", transform=panel.transAxes, va="top", fontsize=8)
        panel.locator_params(nbins=5)
    figure.supxlabel("logit weight", fontsize=9)
    figure.supylabel("change of log-probability, nats", fontsize=9)
    how = [
        Line2D([], [], linestyle="", color=INK, marker=marker, markersize=4.5, label=label)
        for marker, label in (("o", "latent added"), ("x", "taken away, sign turned"))
    ]
    which = [
        Line2D([], [], linestyle="", color=colour, marker="o", markersize=5, label=label)
        for label, colour in SIDES.values()
    ]
    legend(figure, [*how, *which])
    return figure


def causal_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    rows = rows if rows.is_empty() else rows.drop_nulls(["weight", "addition"])
    if rows.is_empty():
        return "No data: no latent was checked."
    each = rows.unique("latent", maintain_order=True).drop_nulls("r_addition")
    told = ", ".join(f"latent {latent} {r:.2f}" for latent, r in each.select("latent", "r_addition").iter_rows())
    return (
        "Scatter charts of measured change of tokens' log-probabilities against their logit weights. Correlation over "
        f"the vocabulary when the latent is added: {told or 'unknown'}."
    )
