"""Figures of the shapes of latents' logit weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saeflow.analyses.logit_lens import saes
from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, GREEN, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.ticker import FixedLocator

DEFAULT = Figures()
NOTHING = "the logit lens was not applied"
CLASSES = {
    "none": ("o", 9, "#9A9A9A"),
    "partition": ("s", 34, GREEN),
    "suppression": ("v", 34, BLUE),
    "prediction": ("^", 34, VERMILLION),
}
"""Marker, size and colour of each class."""
PLAIN_DRAWN = 2000
"""Of an SAE's latents of no class, so many are drawn at most; the table has all."""


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
    """Kurtosis of logit weights against their skewness and against their deviation, which tell the
    classes apart: a dot per latent, two panels per SAE.

    Args:
        rows: from ``shapes``.
    """
    if rows.is_empty():
        return no_data(settings, NOTHING)
    names = rows["sae"].unique(maintain_order=True).to_list()
    columns = 2 if len(names) < 3 else 4
    figure, axes = panels(2 * len(names), settings, height=2.9, share_x=False, columns=columns)
    for place, (column, label) in enumerate(SHAPES.items()):
        for name, panel in zip(names, axes[place::2], strict=True):
            _dots(panel, rows.filter(pl.col("sae") == name), column)
            panel.set(xlabel=label, ylabel="" if place else "kurtosis (normal: 3)")
            if len(names) > 1 and not place:
                panel.set_title(words(name))
    axes[0].set_yscale("log")  # shared by all panels
    for panel in axes:
        panel.yaxis.set_major_locator(_ticks(rows["kurtosis"]))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.minorticks_off()
    counts = dict(rows.group_by("class").len().iter_rows())
    plain = rows.filter(pl.col("class") == "none")
    drawn = sum(len(_thinned(own)) for _, own in plain.group_by("sae"))
    left = "" if drawn == len(plain) else f", {drawn:,} drawn"
    legend(
        figure,
        [
            legend_entry(
                linestyle="",
                color=colour,
                marker=marker,
                markersize=5,
                label=f"{kind} ({counts.get(kind, 0):,}{left if kind == 'none' else ''})",
            )
            for kind, (marker, _, colour) in CLASSES.items()
        ],
    )
    return figure


SHAPES = {"skewness": "skewness", "std": "standard deviation"}


def _dots(panel: Axes, own: pl.DataFrame, column: str) -> None:
    """The latents of one SAE: those of a class above the many of none."""
    for kind, (marker, size, colour) in CLASSES.items():
        dots = own.filter(pl.col("class") == kind)
        dots = _thinned(dots) if kind == "none" else dots
        panel.scatter(
            dots[column],
            dots["kurtosis"],
            c=colour,
            marker=marker,
            s=size,
            linewidths=0,
            alpha=0.5 if kind == "none" else 0.95,
        )
    panel.axhline(3, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.8)
    if column == "skewness":
        panel.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.8)


def _thinned(plain: pl.DataFrame) -> pl.DataFrame:
    """Every so many rows, at most `PLAIN_DRAWN`."""
    return plain.gather_every(max(1, -(-len(plain) // PLAIN_DRAWN)))


def _ticks(kurtosis: pl.Series) -> FixedLocator:
    """Round numbers that are about as far from each other on a logarithmic axis."""
    from matplotlib.ticker import FixedLocator

    low, high = float(kurtosis.min() or 1), float(kurtosis.max() or 1)  # type: ignore[arg-type]
    steps = [1.5, 2, 3, 4, 5, 7, 10, 20, 30, 50]
    steps += [10**power for power in range(2, 9)] if high > 100 else [100]
    return FixedLocator([step for step in steps if low * 0.95 <= step <= high * 1.05] or [3])


def moments_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    counts = ", ".join(
        f"{kind} {count}" for kind, count in rows.group_by("class").len().sort("class").iter_rows()
    )
    return (
        f"Scatter charts of kurtosis against skewness, and against standard deviation, of the "
        f"logit weights of {counted(len(rows), 'latent')}. Classes: {counts}. Median kurtosis "
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
        f"Box charts of {', '.join(STATISTICS.values())} over the latents of "
        f"{counted(own.height, 'SAE')}. "
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
        "spreads over the vocabulary. Kurtosis is large where a few tokens stand out: those that "
        "the latent promotes (skewness above 0: prediction) or suppresses (below 0: suppression). "
        "It is small where the vocabulary is split in two, which with a large deviation is a "
        "partition. Most latents are of no class: one is given only beyond what random directions "
        "through the same unembedding show.",
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
