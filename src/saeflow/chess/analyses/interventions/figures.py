"""What editing a concept's latents changes."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import polars as pl

from saeflow.chess.curves import curve, handle, name_ratings
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import BLUE, GREEN, GREY, INK, PURPLE, SKY, TEAL, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NO_EDITS = "no intervention had enough positions that need its concept"
KINDS = {
    "edited": ("the concept's latents", VERMILLION, "D"),
    "random": ("random latents", GREY, "X"),
    "reconstruction": ("reconstruction only", PURPLE, "^"),
    "strength_1": ("strength 1", INK, "*"),
    "probe": ("along its probe", BLUE, "o"),
    "probe_of_another": ("along another's probe", SKY, "v"),
    "difference_of_means": ("along its difference of means", GREEN, "s"),
    "difference_of_means_of_another": ("along another's difference", TEAL, "P"),
}
AS_IT_IS = "as_it_is"
SOLVED = {AS_IT_IS: ("no edit", INK, "*"), **KINDS}
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


def kinds_of(rows: pl.DataFrame) -> list[str]:
    """The kinds of edits that some rows are of, in the order of `KINDS`."""
    there = set(rows["kind"])
    return [kind for kind in KINDS if kind in there]


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
            panel.set_title(fill(SETS[cases], 20))
        if cases == next(iter(SETS)):
            panel.set_ylabel(
                f"{words(group)}\n{sae}" if rows["sae"].n_unique() > 1 else words(group)
            )
    name_ratings(axes, rows)
    figure.supxlabel("rating that the model is told", fontsize=9)
    figure.supylabel("gain in accuracy", fontsize=9)
    legend(figure, [handle(*KINDS[kind]) for kind in kinds_of(rows)])
    return figure


def intervention_gains_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_EDITS}."
    edited = rows.filter(pl.col("kind") == "edited").drop_nulls("gain")
    means = edited.group_by("sae", "group", "set", maintain_order=True).agg(pl.col("gain").mean())
    summaries = [
        f"{words(group)} ({sae}), {SETS[cases]}: {gain:+.2f}"
        for sae, group, cases, gain in means.iter_rows()
    ]
    return (
        "Curves of the gain in accuracy when latents are edited. Means over ratings: "
        f"{'; '.join(summaries)}."
    )


def solved_from(
    interventions: pl.DataFrame, transitions: pl.DataFrame, settings: Figures = DEFAULT
) -> pl.DataFrame:
    """The share of positions that are solved from each rating on, or from a lower one: sae, group,
    kind (`AS_IT_IS` without an edit), rating, solved."""
    if transitions.is_empty():
        return transitions
    keys = ["sae", "group"]
    reported = reported_gains(interventions).select(*keys, "rating").unique()
    cases = pl.concat(
        [
            transitions.filter(kind="edited").select(
                *keys, pl.lit(AS_IT_IS).alias("kind"), pl.col("before").alias("first")
            ),
            transitions.select(*keys, "kind", pl.col("after").alias("first")),
        ]
    )
    solved = (pl.col("first") <= pl.col("rating")).fill_null(value=False)
    return (
        cases.join(reported, on=keys)
        .group_by(*keys, "kind", "rating")
        .agg(solved.mean().alias("solved"))
        .sort(*keys, "kind", "rating")
    )


@styled
def edited_transitions(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """The share of positions that are solved from a rating on: a panel per group and SAE.

    Args:
        rows: from ``solved_from``.
    """
    if rows.is_empty():
        return no_data(settings, NO_EDITS)
    groups = list(rows.select("sae", "group").unique(maintain_order=True).iter_rows())
    figure, axes = panels(len(groups), settings, height=2.2, columns=min(4, len(groups)))
    there = set(rows["kind"])
    for (sae, group), panel in zip(groups, axes, strict=True):
        here = rows.filter((pl.col("sae") == sae) & (pl.col("group") == group))
        for kind, (_, colour, marker) in SOLVED.items():
            line = here.filter(pl.col("kind") == kind)
            panel.plot(line["rating"], line["solved"], color=colour, marker=marker, markersize=4)
        panel.set_title(f"{words(group)}\n{sae}" if rows["sae"].n_unique() > 1 else words(group))
        panel.set_ylim(-0.03, 1.03)
    name_ratings(axes, rows)
    figure.supxlabel("rating that the model is told, from which on it solves", fontsize=9)
    figure.supylabel("share solved", fontsize=9)
    legend(figure, [handle(*look) for kind, look in SOLVED.items() if kind in there])
    return figure


def edited_transitions_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_EDITS}."
    weakest = rows.filter(pl.col("rating") == pl.col("rating").min().over("sae", "group"))
    summaries = []
    for (sae, group), here in weakest.group_by("sae", "group", maintain_order=True):
        shares = dict(here.select("kind", "solved").iter_rows())
        parts = [f"{label} {shares[kind]:.2f}" for kind, (label, _, _) in SOLVED.items()
                if kind in shares]  # fmt: skip
        summaries.append(f"{words(str(group))} ({sae}): {', '.join(parts)}")
    return (
        "Curves of the share of positions that are solved from a rating on. From the weakest on: "
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
        "as often, strength 1, and the SAE's reconstruction without an edit; of edits along a "
        "direction that was fitted for the concept, the directions of other concepts.",
        section="interventions",
    ),
    Figure(
        name="chess_edited_transitions",
        tables=(
            "interventions/{sae}/interventions.parquet",
            "interventions/{sae}/transitions.parquet",
        ),
        rows=solved_from,
        draw=edited_transitions,
        alt=edited_transitions_alt,
        title="From which rating on the right move is found, before and under edits",
        caption="Held-out positions that need a concept: the share in which the model finds the "
        "right move at a rating and at every higher one that was tried, as it is and while each "
        "rating's own edit is made. A curve that lies higher at the left finds moves from weaker "
        "ratings on.",
        section="interventions",
    ),
)
