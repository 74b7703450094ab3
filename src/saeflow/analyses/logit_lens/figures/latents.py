"""Figures of the shapes of latents' logit weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saeflow.analyses.logit_lens import saes
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, GREY, INK, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NOTHING = "the logit lens was not applied"
CLASSES = {
    "none": (".", 28),
    "partition": ("s", 20),
    "suppression": ("v", 26),
    "prediction": ("^", 26),
}
"""Marker and size of each class."""


def every_sae(study: Any) -> dict[str, list[str]]:
    """Drawn of all SAEs whose decoder rows the lens looks at."""
    return {"lens_sae": saes(study)}


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
def moments(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Kurtosis against skewness of logit weights, a dot per latent, coloured by their deviation, a
    panel per SAE.

    Args:
        rows: from ``shapes``.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

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
        legend_entry(
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
        f"coloured by their standard deviation. Classes: {counts}. Median kurtosis "
        f"{np.median(rows['kurtosis'].to_numpy()):.2f}."
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
    return (
        pl.concat(parts)
        .sort("statistic", "layer", "sae")
        .select("statistic", "layer", "sae", *_QUANTILES)
    )


@styled
def layers(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
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
    medians = ", ".join(
        f"{sae} {median:.3g}" for sae, median in own.select("sae", "median").iter_rows()
    )
    return (
        f"Box charts of {', '.join(STATISTICS.values())} over the latents of {own.height} SAEs. "
        f"Median {STATISTICS[str(rows['statistic'][0])]}: {medians}."
    )


FIGURES = (
    Figure(
        name="lens_moments",
        tables=("logit_lens/{lens_sae}/latents.parquet",),
        rows=shapes,
        draw=moments,
        alt=moments_alt,
        title="What latents do to the logits",
        caption="Each dot is one latent: how its decoder row, seen through the unembedding, "
        "spreads over the vocabulary. Heavy tails to the right promote a few tokens (prediction), "
        "to the left suppress a few; a wide spread with light tails splits the vocabulary in two "
        "(partition). A class is given only beyond what random directions through the same "
        "unembedding show.",
        section="latents",
        names=every_sae,
    ),
    Figure(
        name="lens_layers",
        tables=("logit_lens/{lens_sae}/latents.parquet",),
        rows=by_layer,
        draw=layers,
        alt=layers_alt,
        title="Logit weights by layer",
        caption="How the statistics of logit weights are spread over the latents of each SAE. "
        "Half of the latents lie in a box, nine in ten between the whiskers.",
        section="latents",
        names=every_sae,
        drawn=lambda study: len(saes(study)) > 1,
    ),
)
