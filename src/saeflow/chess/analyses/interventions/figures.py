"""What editing a concept's latents changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.chess.curves import curve, handle, name_ratings
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import GREY, INK, PURPLE, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NO_EDITS = "no intervention had enough positions that need its concept"
KINDS = {
    "edited": ("the concept's latents", VERMILLION, "D"),
    "random": ("random latents", GREY, "X"),
    "reconstruction": ("reconstruction only", PURPLE, "^"),
    "strength_1": ("strength 1", INK, "*"),
}
SETS = {
    "needs": "the concept is needed",
    "missed": "needed, and the model is wrong",
    "unneeded": "it holds, but is not needed",
    "absent": "it does not hold",
}


def reported_gains(interventions: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The gains on the games that had no part in choosing; cases by `SETS`."""
    if "split" not in interventions.columns:
        return interventions
    return interventions.filter(pl.col("split") == "report").sort("sae", "group", "rating")


@styled
def intervention_gains(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """The gain in accuracy along the ratings: a row per group and SAE, a column per set of
    positions.

    Args:
        rows: from ``reported_gains``.
    """
    if rows.is_empty():
        return no_data(settings, NO_EDITS)
    groups = list(rows.select("sae", "group").unique(maintain_order=True).iter_rows())
    figure, axes = panels(len(groups) * len(SETS), settings, height=2.0, columns=len(SETS))
    places = [(sae, group, cases) for sae, group in groups for cases in SETS]
    for (sae, group, cases), panel in zip(places, axes, strict=True):
        here = rows.filter(
            (pl.col("sae") == sae) & (pl.col("group") == group) & (pl.col("set") == cases)
        )
        panel.axhline(0, color=INK, linewidth=0.8)
        for kind, (_, colour, marker) in KINDS.items():
            curve(panel, here.filter(pl.col("kind") == kind), "gain", colour, marker)
        if (sae, group) == groups[0]:
            panel.set_title(SETS[cases])
        if cases == next(iter(SETS)):
            panel.set_ylabel(
                f"{words(group)}\n{sae}" if rows["sae"].n_unique() > 1 else words(group)
            )
    name_ratings(axes, rows)
    figure.supxlabel("rating that the model is told", fontsize=9)
    figure.supylabel("gain in accuracy", fontsize=9)
    legend(figure, [handle(*look) for look in KINDS.values()])
    return figure


def intervention_gains_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_EDITS}."
    edited = rows.filter(pl.col("kind") == "edited")
    means = edited.group_by("sae", "group", "set", maintain_order=True).agg(pl.col("gain").mean())
    summaries = [
        f"{words(group)} ({sae}), {SETS[cases]}: {gain:+.2f}"
        for sae, group, cases, gain in means.iter_rows()
    ]
    return (
        "Curves of the gain in accuracy when latents are edited. Means over ratings: "
        f"{'; '.join(summaries)}."
    )


FIGURES = (
    Figure(
        name="chess_interventions",
        tables=("interventions/{sae}/interventions.parquet",),
        rows=reported_gains,
        draw=intervention_gains,
        alt=intervention_gains_alt,
        title="What editing a concept's latents changes",
        caption="The gain in accuracy on held-out games with the edit that did best on other "
        "games, where the concept is needed, where the model told that rating is wrong then (any "
        "change can only gain there, so compare it with the controls), where it holds without "
        "need, and where it does not hold. Controls: the same edit of random latents that fire "
        "as often, strength 1, and the SAE's reconstruction without an edit.",
        section="interventions",
    ),
)
