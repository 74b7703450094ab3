"""The figure of what the model does when a latent is added or taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.analyses.logit_lens.figures.sets import main_sae
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, GREY, INK, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
SIDES = {
    "random": ("drawn at random", GREY),
    "top": ("highest by the lens", VERMILLION),
    "bottom": ("lowest by the lens", BLUE),
}


def checked(
    changes: pl.DataFrame, latents: pl.DataFrame, settings: Figures = DEFAULT
) -> pl.DataFrame:
    """Measured changes, with what is known of their latent: its token set, and its correlations
    over the vocabulary."""
    changes, latents = (table.drop("sae", strict=False) for table in (changes, latents))
    if changes.is_empty() or latents.is_empty():
        return pl.DataFrame()
    return changes.join(latents, on="latent", how="left")


@styled
def causal(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Measured change of log-probabilities when a latent is added, against its logit weights, a
    panel per latent.

    Args:
        rows: from ``checked``: latent, set, side, weight, predicted, addition, ablation,
            r_addition, r_ablation.
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
        legend_entry(linestyle="", color=INK, marker=marker, markersize=4.5, label=label)
        for marker, label in (("o", "latent added"), ("x", "taken away, sign turned"))
    ]
    which = [
        legend_entry(linestyle="", color=colour, marker="o", markersize=5, label=label)
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
    correlations = ", ".join(
        f"latent {latent} {r:.2f}" for latent, r in each.select("latent", "r_addition").iter_rows()
    )
    return (
        "Scatter charts of measured change of tokens' log-probabilities against their logit "
        "weights. Correlation over the vocabulary when the latent is added: "
        f"{correlations or 'unknown'}."
    )


FIGURES = (
    Figure(
        name="lens_causal",
        tables=(
            "logit_lens/{lens_sae}/causal.parquet",
            "logit_lens/{lens_sae}/causal_latents.parquet",
        ),
        rows=checked,
        draw=causal,
        alt=causal_alt,
        title="Does the model do what the lens says",
        caption="The lens sees only what goes straight from a latent to the logits. Here the "
        "latent is added to the running model, or taken away where it fires, and the change of "
        "the next token's log-probability is measured. r is the correlation with the logit "
        "weights over the whole vocabulary.",
        section="latents",
        names=main_sae,
    ),
)
