"""Figures of the logit lens: the shapes of logit weights, the token sets that stand out, what the
model really does."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saeflow.config.sections import Figures
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import BLUE, GREY, INK, VERMILLION

DEFAULT = Figures()
NOTHING = "the logit lens was not applied"
NOT_ENRICHED = "no token set stands out"
CLASSES = {
    "none": (".", 28),
    "partition": ("s", 20),
    "suppression": ("v", 26),
    "prediction": ("^", 26),
}
"""Marker and size of each class."""


def shapes(latents: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Skewness, kurtosis (3 for a normal distribution), deviation and class of every latent.

    Args:
        latents: sae, latent, skewness, kurtosis (excess), std, class.
    """
    if latents.is_empty():
        return pl.DataFrame()
    chosen = latents.select(
        "sae", "latent", "layer", "skewness", pl.col("kurtosis") + 3, "std", "class"
    )
    return chosen.drop_nulls().filter(pl.col("std") > 0)


@styled
def moments(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Kurtosis against skewness of logit weights, a dot per latent, coloured by their deviation, a
    panel per SAE.

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
                dots["skewness"],
                dots["kurtosis"],
                c=dots["std"],
                marker=marker,
                s=size,
                linewidths=0,
                **colours,
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
        Line2D(
            [],
            [],
            linestyle="",
            color=INK,
            marker=marker,
            markersize=5,
            label=f"{kind} ({counts.get(kind, 0)})",
        )
        for kind, (marker, _) in CLASSES.items()
    ]
    legend(figure, handles)
    return figure


def moments_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    counts = ", ".join(
        f"{kind} {count}" for kind, count in rows.group_by("class").len().sort("class").iter_rows()
    )
    return (
        f"Scatter chart of kurtosis against skewness of the logit weights of {len(rows)} latents, "
        "coloured by their "
        f"standard deviation. Classes: {counts}. Median kurtosis "
        f"{np.median(rows['kurtosis'].to_numpy()):.2f}."
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
    found = named.explode("inside", "outside", "bin").with_columns(
        left=pl.col("low") + pl.col("bin") * width,
        right=pl.col("low") + (pl.col("bin") + 1) * width,
        inside=pl.col("inside") / pl.col("members"),
        outside=pl.col("outside") / pl.col("others"),
    )
    return found.select(
        "panel", "latent", "set", "ks", "members", "left", "right", "inside", "outside"
    )


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
        panel.set_title(
            f"latent {own['latent'][0]}: {words(own['set'][0])} ({own['members'][0]})", fontsize=9
        )
        panel.grid(axis="x", visible=False)
        side, across = (
            ("left", 0.02) if own["ks"][0] > 0 else ("right", 0.98)
        )  # where the set's tokens are not
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
    return (
        pl.concat(parts)
        .sort("statistic", "layer", "sae")
        .select("statistic", "layer", "sae", *_QUANTILES)
    )


@styled
def layers(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """Spread of the lens's statistics over latents, a box per SAE: half of the latents lie in it,
    90 % in its whiskers.

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
        labels = [
            f"{words(sae)}\nlayer {layer}" for sae, layer in own.select("sae", "layer").iter_rows()
        ]
        panel.bxp(boxes, showfliers=False, patch_artist=True, **_BOXES)
        panel.set_xticks(
            range(1, len(boxes) + 1), labels, fontsize=7.5, rotation=90 if len(boxes) > 6 else 0
        )
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
    told = ", ".join(
        f"{sae} {median:.3g}" for sae, median in own.select("sae", "median").iter_rows()
    )
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
    """Measured change of log-probabilities when a latent is added, against its logit weights, a
    panel per latent.

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
            panel.scatter(
                dots["weight"],
                -dots["ablation"],
                s=14,
                marker="x",
                c=colour,
                linewidths=0.9,
                alpha=0.8,
            )
        panel.axhline(0, color=GREY, linewidth=0.8, zorder=0.8)
        r = own["r_addition"][0]
        name = own["set"][0]
        panel.set_title(
            f"latent {latent}: {words(name)}" if name else f"latent {latent}", fontsize=8.5
        )
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
    told = ", ".join(
        f"latent {latent} {r:.2f}" for latent, r in each.select("latent", "r_addition").iter_rows()
    )
    return (
        "Scatter charts of measured change of tokens' log-probabilities against their logit "
        "weights. Correlation over "
        f"the vocabulary when the latent is added: {told or 'unknown'}."
    )
