"""What latents know and what the model does, along the ratings it is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saeflow.chess.curves import curve, handle, name_ratings
from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NO_SKILL = "no group of concepts was studied along the ratings"
CURVES = {
    "awareness": ("awareness", BLUE, "o"),
    "control_awareness": ("awareness of random latents", GREY, "X"),
    "willingness": ("willingness", VERMILLION, "D"),
    "accuracy": ("accuracy", GREEN, "v"),
}


def along_ratings(skill: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The rows of groups that could be studied, in order."""
    return (
        skill.drop_nulls("rating").sort("sae", "group", "rating")
        if "rating" in skill.columns
        else skill
    )


@styled
def skill_curves(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """What latents know and what the model does, along the ratings it is told; a panel per group
    and SAE.

    Args:
        rows: from ``along_ratings``.
    """
    if rows.is_empty():
        return no_data(settings, NO_SKILL)
    groups = list(rows.select("sae", "group").unique(maintain_order=True).iter_rows())
    figure, axes = panels(len(groups), settings, height=2.4)
    for (sae, group), panel in zip(groups, axes, strict=True):
        here = rows.filter((pl.col("sae") == sae) & (pl.col("group") == group))
        for name, (_, colour, marker) in CURVES.items():
            curve(panel, here, name, colour, marker)
        panel.set_title(f"{words(group)}\n{sae}" if rows["sae"].n_unique() > 1 else words(group))
    axes[0].set_ylim(-0.02, 1.02)
    name_ratings(axes, rows)
    figure.supxlabel("rating that the model is told", fontsize=9)
    legend(figure, [handle(*look) for look in CURVES.values()])
    return figure


def skill_curves_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_SKILL}."
    summaries = []
    for sae, group in rows.select("sae", "group").unique(maintain_order=True).iter_rows():
        here = rows.filter((pl.col("sae") == sae) & (pl.col("group") == group))
        weakest, strongest = here.row(0, named=True), here.row(-1, named=True)
        changes = [
            f"{words(name)} {weakest[name]:.2f} to {strongest[name]:.2f}"
            for name in ("awareness", "willingness", "accuracy")
            if weakest[name] is not None and strongest[name] is not None
        ]
        summaries.append(f"{words(group)} ({sae}): {', '.join(changes)}")
    return (
        "Curves along the rating that the model is told, from the weakest to the strongest. "
        f"{'; '.join(summaries)}."
    )


def known_changes(awareness: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The concepts whose awareness and willingness are known at both ends of the ratings."""
    columns = ["awareness_change", "willingness_change"]
    return awareness.drop_nulls(columns) if columns[0] in awareness.columns else awareness


@styled
def awareness_scatter(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Per concept: how much its awareness and its willingness change from the weakest to the
    strongest rating.

    Args:
        rows: from ``known_changes``.
    """
    if rows.is_empty():
        return no_data(settings, NO_SKILL)
    saes = rows["sae"].unique(maintain_order=True).to_list()
    groups = rows["group"].unique(maintain_order=True).to_list()
    figure, axes = panels(len(saes), settings, height=3.0)
    looks = list(zip((BLUE, VERMILLION, GREEN, ORANGE, PURPLE), "oDvs^", strict=True))
    for sae, panel in zip(saes, axes, strict=True):
        panel.axhline(0, color=INK, linewidth=0.8)
        panel.axvline(0, color=INK, linewidth=0.8)
        for place, group in enumerate(groups):
            here = rows.filter((pl.col("sae") == sae) & (pl.col("group") == group))
            colour, marker = looks[place % len(looks)]
            _crosses(panel, here, colour, marker)
        panel.set_title(f"SAE {sae}")
    _show_dots(axes, rows)
    figure.supxlabel("change of awareness (AUC), weakest to strongest rating", fontsize=9)
    figure.supylabel("change of willingness (probability)", fontsize=9)
    legend(
        figure,
        [handle(words(group), *looks[place % len(looks)]) for place, group in enumerate(groups)],
    )
    return figure


def _crosses(panel: Axes, rows: pl.DataFrame, colour: str, marker: str) -> None:
    if rows.is_empty():
        return
    x, y = rows["awareness_change"].to_numpy(), rows["willingness_change"].to_numpy()
    ends = {
        name: rows[name].to_numpy().astype(float)
        for name in rows.columns
        if name.endswith(("_low", "_high"))
    }
    across = np.abs(np.stack([x - ends["awareness_change_low"], ends["awareness_change_high"] - x]))
    up = np.abs(np.stack([y - ends["willingness_change_low"], ends["willingness_change_high"] - y]))
    panel.errorbar(
        x, y, xerr=across, yerr=up, linestyle="", color=colour, alpha=0.25, linewidth=0.7
    )
    panel.plot(x, y, linestyle="", marker=marker, color=colour, alpha=0.8)


def _show_dots(axes: Iterable[Axes], rows: pl.DataFrame) -> None:
    """Give the panels the room that dots need; intervals of few games are many times as long."""
    across, up = (
        1.25 * max(float(rows[name].abs().max()), 1e-3)  # type: ignore[arg-type]
        for name in ("awareness_change", "willingness_change")
    )
    for panel in axes:
        panel.set(xlim=(-across, across), ylim=(-up, up))


def awareness_scatter_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_SKILL}."
    means = rows.group_by("sae", "group", maintain_order=True).agg(
        pl.len(), pl.col("awareness_change", "willingness_change").mean()
    )
    summaries = [
        f"{words(group)} ({sae}, {counted(count, 'concept')}): awareness {aware:+.2f}, willingness "
        f"{willing:+.2f}"
        for sae, group, count, aware, willing in means.iter_rows()
    ]
    return (
        "Scatter of changes from the weakest to the strongest rating. Means: "
        f"{'; '.join(summaries)}."
    )


FIGURES = (
    Figure(
        name="chess_skill",
        tables=("skill/{sae}/skill.parquet",),
        rows=along_ratings,
        draw=skill_curves,
        alt=skill_curves_alt,
        title="Knowing and doing, by rating",
        caption="The same positions at every rating that the model is told. Awareness: how well "
        "the concept's latent tells its positions from others, with random latents beside it. "
        "Willingness: the probability of the moves that answer the concept. Accuracy: how often "
        "the right move is chosen where it is one of these.",
        section="skill",
    ),
    Figure(
        name="chess_awareness",
        tables=("skill/{sae}/awareness.parquet",),
        rows=known_changes,
        draw=awareness_scatter,
        alt=awareness_scatter_alt,
        title="Does skill change knowing or doing",
        caption="Each dot is a concept: to the right, its latent tells it better when the model "
        "is told the strongest rating than when it is told the weakest; upwards, the model "
        "answers it with more probability. Intervals that are too long for the panel end at its "
        "edge.",
        section="skill",
    ),
)
