"""Figures of crosscoders: which latents are shared by the sources, and which belong to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import no_data, panels, styled
from saeflow.palette import FAINT, GREY, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NONE = "no crosscoder has a latent that fires"
EXCLUSIVE = 0.9
"""A latent with a larger share of its norm in one source looks exclusive to it."""
_BINS = 40
_WIDEST = 2.0  # of the ratios that are drawn; beyond it a dot stands at the edge


def in_sources(sources: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Latents that fire, a row per source, with a name for each source.

    Args:
        sources: tables of crosscoders one below the other, with the column sae.
    """
    if sources.is_empty():
        return sources
    label = (
        pl.when(pl.col("hook").n_unique().over("sae") == 1)
        .then(pl.col("model"))
        .when(pl.col("model").n_unique().over("sae") == 1)
        .then(pl.col("hook"))
        .otherwise(pl.format("{} {}", "model", "hook"))
    )
    return sources.with_columns(name=label).filter(pl.col("density") > 0)


@styled
def crosscoder_sources(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """For each crosscoder the shares of its latents' norms, and how exclusive those are that look
    so.

    Args:
        rows: from ``in_sources``: sae, latent, source, name, relative_norm, owner, nu_error,
            nu_reconstruction.
    """
    if rows.is_empty():
        return no_data(settings, NONE)
    saes = rows["sae"].unique(maintain_order=True).to_list()
    figure, axes = panels(
        2 * len(saes), settings, height=2.6, share_x=False, share_y=False, columns=2
    )
    for index, sae in enumerate(saes):
        own = rows.filter(pl.col("sae") == sae)
        _norms(axes[2 * index], own, sae)
        _ratios(axes[2 * index + 1], _exclusive(own))
    return figure


def crosscoder_sources_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NONE}."
    clauses = []
    for sae in rows["sae"].unique(maintain_order=True):
        own = rows.filter(pl.col("sae") == sae)
        latents = own["latent"].n_unique()
        clauses.append(f"{sae}: of {counted(latents, 'latent')} that fire, {_counts(own)}")
    return (
        "Histograms of the share that each source has in the norms of a latent, and of those that "
        f"look exclusive how much of each the other sources hold. {'; '.join(clauses)}."
    )


def _counts(own: pl.DataFrame) -> str:
    names = own.select("source", "name").unique().sort("source")["name"]
    alone = own.filter(pl.col("relative_norm") > EXCLUSIVE)
    return ", ".join(
        f"{len(alone.filter(pl.col('name') == name))} look exclusive to {name}" for name in names
    )


def _norms(panel: Axes, own: pl.DataFrame, sae: str) -> None:
    edges = np.linspace(0, 1, _BINS + 1)
    for index, ((_, name), part) in enumerate(
        own.sort("source").group_by(["source", "name"], maintain_order=True)
    ):
        counts, _ = np.histogram(part["relative_norm"].drop_nulls(), edges)
        panel.stairs(
            counts, edges, color=SERIES[index % len(SERIES)], label=str(name), linewidth=1.4
        )
    panel.set(
        title=sae, xlabel="share of the latent's decoder norms", ylabel="latents", xlim=(0, 1)
    )
    panel.legend()


def _exclusive(own: pl.DataFrame) -> pl.DataFrame:
    """Rows of the other sources, for latents whose owner has nearly all of their norm."""
    owners = own.filter(pl.col("relative_norm") > EXCLUSIVE).select("latent", of="name")
    return (
        own.filter(~pl.col("owner"))
        .join(owners, on="latent")
        .drop_nulls(["nu_error", "nu_reconstruction"])
    )


def _ratios(panel: Axes, others: pl.DataFrame) -> None:
    panel.axvline(0, color=FAINT, linewidth=1, zorder=0)
    panel.axhline(0, color=FAINT, linewidth=1, zorder=0)
    for index, ((name,), part) in enumerate(
        others.sort("of").group_by(["of"], maintain_order=True)
    ):
        x, y = (part[column].clip(-0.2, _WIDEST) for column in ("nu_reconstruction", "nu_error"))
        panel.plot(
            x,
            y,
            ".",
            color=SERIES[index % len(SERIES)],
            label=f"of {name}",
            markersize=5,
            alpha=0.7,
        )
    if others.is_empty():
        panel.text(
            0.5, 0.5, "none looks exclusive", transform=panel.transAxes, ha="center", color=GREY
        )
    else:
        panel.legend()
    panel.set(
        title="latents that look exclusive",
        xlim=(-0.25, _WIDEST + 0.05),
        ylim=(-0.25, _WIDEST + 0.05),
    )
    panel.set(xlabel="held by the others' reconstruction (ν)", ylabel="held by their error (ν)")


FIGURES = (
    Figure(
        name="crosscoder_sources",
        tables=("saes/{sae}/sources.parquet",),
        rows=in_sources,
        draw=crosscoder_sources,
        alt=crosscoder_sources_alt,
        title="What the sources of a crosscoder share",
        caption="A latent of a crosscoder has a decoder row for every source. Left: each source's "
        "share of the rows' norms, in units of the spread of its activations; latents in the "
        "middle are shared, those at the right belong to one source. Right: latents of which "
        f"one source has more than {EXCLUSIVE:.0%}, and how much of each the other "
        "sources hold all the same: in what the crosscoder leaves unexplained there (up), and "
        "in what other latents rebuild (right), relative to the owner. A latent truly of one "
        "source lies at the lower left.",
        section="saes",
        names=lambda study: {"sae": study.saes_of("crosscoder")},
    ),
)
