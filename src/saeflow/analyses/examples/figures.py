"""The figure of how often latents fire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import no_data, panels, styled, words
from saeflow.palette import BLUE, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NOTHING = "no firing of latents was counted"
BINS_PER_DECADE = 8


def densities(latents: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Counts of latents by the share of tokens on which they fire, in bins of its logarithm.

    Args:
        latents: sae, latent, density (0 where it never fires).

    Returns:
        sae, low, high (densities, the ends of a bin), latents (how many fire so often), and on
        every row of an SAE: median (over those that fire), never (how many do not), all.
    """
    measured = latents if latents.is_empty() else latents.drop_nulls("density")
    if measured.is_empty():
        return pl.DataFrame()
    firing = measured.filter(pl.col("density") > 0)
    lowest = float(firing["density"].min() or 0.1)  # type: ignore[arg-type]
    first = int(np.floor(np.log10(lowest)))
    edges = np.logspace(first, 0, BINS_PER_DECADE * -first + 1) if first else np.array([0.1, 1.0])
    parts = []
    for (sae,), own in measured.group_by("sae", maintain_order=True):
        fires = own.filter(pl.col("density") > 0)["density"]
        counts, _ = np.histogram(fires.to_numpy(), bins=edges)
        part = pl.DataFrame({"low": edges[:-1], "high": edges[1:], "latents": counts})
        parts.append(
            part.select(
                pl.lit(sae, pl.String).alias("sae"),
                "low",
                "high",
                "latents",
                median=pl.lit(fires.median(), pl.Float64),
                never=pl.lit(len(own) - len(fires), pl.Int64),
                all=pl.lit(len(own), pl.Int64),
            )
        )
    return pl.concat(parts)


@styled
def latent_density(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A histogram per SAE of how often its latents fire, on a logarithmic axis.

    Args:
        rows: from ``densities``.
    """
    if rows.is_empty():
        return no_data(settings, NOTHING)
    names = rows["sae"].unique(maintain_order=True).to_list()
    figure, axes = panels(len(names), settings, height=2.2)
    for name, panel in zip(names, axes, strict=True):
        own = rows.filter(pl.col("sae") == name)
        edges = np.append(own["low"].to_numpy(), own["high"][-1])
        panel.stairs(own["latents"], edges, fill=True, color=BLUE)
        median, never, every = own.select("median", "never", "all").row(0)
        if median is not None:
            panel.axvline(median, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        summary = f"{never:,} of {every:,} never fire"
        panel.set_title(summary if len(names) == 1 else f"{words(name)}: {summary}", fontsize=9)
        panel.grid(axis="x", visible=False)
    axes[0].set_xscale("log")  # shared by all panels
    axes[0].xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    figure.supxlabel("share of tokens on which a latent fires", fontsize=9)
    figure.supylabel("latents", fontsize=9)
    return figure


def latent_density_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    described = []
    for sae, median, never, every in (
        rows.unique("sae", maintain_order=True).select("sae", "median", "never", "all").iter_rows()
    ):
        middle = "none fires" if median is None else f"the median fires on {median:.2%} of tokens"
        described.append(f"{sae}: of {every:,} latents {never:,} never fire, {middle}")
    return f"Histograms of how often latents fire. {'; '.join(described)}."


FIGURES = (
    Figure(
        name="latent_density",
        tables=("examples/{sae}/latents.parquet",),
        rows=densities,
        draw=latent_density,
        alt=latent_density_alt,
        title="How often latents fire",
        caption="A latent that fires on most tokens tells little, one that never fires nothing. "
        "The axis is logarithmic, and the dashed line is the median of the latents that fire at "
        "all.",
        section="saes",
    ),
)
