"""Figures of chess: what latents know of squares, what goes with skill, what interventions
change."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saeflow.config.sections import Figures
from saeflow.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    legend,
    no_data,
    panels,
    styled,
    words,
)

DEFAULT = Figures()
FILES = "abcdefgh"
MOST_BOARDS = 8
BOARD: dict[str, Any] = {
    "cmap": "cividis",
    "vmin": 0.5,
    "vmax": 1.0,
    "origin": "lower",
    "interpolation": "nearest",
}
NO_SQUARES = "no concept of a square was associated with a latent"
NO_SKILL = "no group of concepts was studied along the ratings"
NO_EDITS = "no intervention had enough positions that need its concept"
CURVES = {
    "awareness": ("awareness", BLUE, "o"),
    "control_awareness": ("awareness of random latents", GREY, "X"),
    "willingness": ("willingness", VERMILLION, "D"),
    "accuracy": ("accuracy", GREEN, "v"),
}
KINDS = {
    "edited": ("the concept's latents", VERMILLION, "D"),
    "random": ("random latents", GREY, "X"),
    "reconstruction": ("reconstruction only", PURPLE, "^"),
    "strength_1": ("strength 1", INK, "*"),
}
SETS = {
    "needs": "the concept is needed",
    "unneeded": "it holds, but is not needed",
    "absent": "it does not hold",
}


def best_by_square(associations: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Of every concept of a square the latent that was chosen first and fires with it.

    Returns:
        sae, family (pieces by their kind), square, concept, latent, auc, q.
    """
    if "square" not in associations.columns:
        return pl.DataFrame()
    first = associations.filter(
        (pl.col("square") >= 0) & (pl.col("direction") == 1) & (pl.col("rank") == 0)
    )
    kind = pl.when(pl.col("family") == "piece").then(pl.col("concept").str.replace(r"_on_..$", ""))
    named = first.with_columns(family=kind.otherwise(pl.col("family")))
    return named.select("sae", "family", "square", "concept", "latent", "auc", "q").sort(
        "sae", "family", "square"
    )


@styled
def board_auc(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
    """A board per family of concepts: on every square how well the best latent tells its concept on
    held-out games.

    Args:
        rows: from ``best_by_square``.
    """
    boards = _boards(rows)
    if not boards:
        return no_data(settings, NO_SQUARES)
    figure, axes = panels(
        len(boards), settings, height=2.5, share_x=False, share_y=False, columns=min(4, len(boards))
    )
    for (sae, family), panel in zip(boards, axes, strict=True):
        of_board = rows.filter((pl.col("sae") == sae) & (pl.col("family") == family))
        several = rows["sae"].n_unique() > 1
        picture = _board(panel, of_board, f"{words(family)}\n{sae}" if several else words(family))
    figure.colorbar(picture, ax=axes, label="AUC on held-out games", shrink=0.8, pad=0.01)
    return figure


def _boards(rows: pl.DataFrame) -> list[tuple[str, str]]:
    """The boards to draw: families in their order, those of whole-board threats before pieces."""
    if rows.is_empty():
        return []
    found = rows.select("sae", "family").unique(maintain_order=True)
    order = found.with_columns(piece=pl.col("family").str.contains("^(my|their)_")).sort(
        "piece", maintain_order=True
    )
    return [(sae, family) for sae, family, _ in order.iter_rows()][:MOST_BOARDS]


def _board(panel: Axes, rows: pl.DataFrame, title: str) -> Any:
    grid = np.full((8, 8), np.nan)
    rank, file = np.divmod(rows["square"].to_numpy(), 8)
    grid[rank, file] = rows["auc"].to_numpy()
    panel.set_facecolor(FAINT)
    picture = panel.imshow(grid, **BOARD)
    for row, column in zip(rank, file, strict=True):
        value = grid[row, column]
        colour = "white" if value < 0.78 else INK
        panel.text(
            column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, color=colour
        )
    panel.set_xticks(range(8), list(FILES))
    panel.set_yticks(range(8), [str(one) for one in range(1, 9)])
    panel.tick_params(length=0)
    panel.grid(visible=False)
    for edge in np.arange(-0.5, 8):
        panel.axhline(edge, color="white", linewidth=0.6)
        panel.axvline(edge, color="white", linewidth=0.6)
    panel.set_title(title)
    return picture


def board_auc_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    boards = _boards(rows)
    if not boards:
        return f"No data: {NO_SQUARES}."
    told = []
    for sae, family in boards:
        areas = (
            rows.filter((pl.col("sae") == sae) & (pl.col("family") == family))["auc"]
            .fill_nan(None)
            .drop_nulls()
        )
        if areas.is_empty():
            continue
        middle, best = float(np.median(areas)), float(areas.to_numpy().max())
        told.append(
            f"{words(family)} ({sae}): median {middle:.2f}, best {best:.2f}, {len(areas)} squares"
        )
    return f"Chess boards coloured by the AUC of the best latent per square. {'; '.join(told)}."


def along_ratings(skill: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The rows of groups that could be studied, in order."""
    return (
        skill.drop_nulls("rating").sort("sae", "group", "rating")
        if "rating" in skill.columns
        else skill
    )


@styled
def skill_curves(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
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
            _curve(panel, here, name, colour, marker)
        panel.set_title(f"{words(group)}\n{sae}" if rows["sae"].n_unique() > 1 else words(group))
    axes[0].set_ylim(-0.02, 1.02)
    figure.supxlabel("rating bin that the model is told", fontsize=9)
    legend(figure, [_handle(*look) for look in CURVES.values()])
    return figure


def _curve(panel: Axes, rows: pl.DataFrame, name: str, colour: str, marker: str) -> None:
    known = rows.drop_nulls(name)
    panel.plot(known["rating"], known[name], color=colour, marker=marker)
    banded = known.drop_nulls([f"{name}_low", f"{name}_high"])
    panel.fill_between(
        banded["rating"],
        banded[f"{name}_low"],
        banded[f"{name}_high"],
        color=colour,
        alpha=0.13,
        linewidth=0,
    )


def _handle(label: str, colour: str, marker: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markersize=5, label=label)


def skill_curves_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_SKILL}."
    told = []
    for sae, group in rows.select("sae", "group").unique(maintain_order=True).iter_rows():
        here = rows.filter((pl.col("sae") == sae) & (pl.col("group") == group))
        weakest, strongest = here.row(0, named=True), here.row(-1, named=True)
        changes = [
            f"{words(name)} {weakest[name]:.2f} to {strongest[name]:.2f}"
            for name in ("awareness", "willingness", "accuracy")
            if weakest[name] is not None and strongest[name] is not None
        ]
        told.append(f"{words(group)} ({sae}): {', '.join(changes)}")
    return (
        "Curves along the rating that the model is told, from the weakest to the strongest. "
        f"{'; '.join(told)}."
    )


def known_changes(awareness: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The concepts whose awareness and willingness are known at both ends of the ratings."""
    columns = ["awareness_change", "willingness_change"]
    return awareness.drop_nulls(columns) if columns[0] in awareness.columns else awareness


@styled
def awareness_scatter(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
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
    figure.supxlabel("change of awareness (AUC), weakest to strongest rating", fontsize=9)
    figure.supylabel("change of willingness (probability)", fontsize=9)
    legend(
        figure,
        [_handle(words(group), *looks[place % len(looks)]) for place, group in enumerate(groups)],
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


def awareness_scatter_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_SKILL}."
    means = rows.group_by("sae", "group", maintain_order=True).agg(
        pl.len(), pl.col("awareness_change", "willingness_change").mean()
    )
    told = [
        f"{words(group)} ({sae}, {count} concepts): awareness {aware:+.2f}, willingness "
        f"{willing:+.2f}"
        for sae, group, count, aware, willing in means.iter_rows()
    ]
    return f"Scatter of changes from the weakest to the strongest rating. Means: {'; '.join(told)}."


def reported_gains(interventions: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The gains on the games that had no part in choosing."""
    if "split" not in interventions.columns:
        return interventions
    return interventions.filter(pl.col("split") == "report").sort("sae", "group", "rating")


@styled
def intervention_gains(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Figure:
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
            _curve(panel, here.filter(pl.col("kind") == kind), "gain", colour, marker)
        if (sae, group) == groups[0]:
            panel.set_title(SETS[cases])
        if cases == next(iter(SETS)):
            panel.set_ylabel(
                f"{words(group)}\n{sae}" if rows["sae"].n_unique() > 1 else words(group)
            )
    figure.supxlabel("rating bin that the model is told", fontsize=9)
    figure.supylabel("gain in accuracy", fontsize=9)
    legend(figure, [_handle(*look) for look in KINDS.values()])
    return figure


def intervention_gains_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NO_EDITS}."
    edited = rows.filter(pl.col("kind") == "edited")
    means = edited.group_by("sae", "group", "set", maintain_order=True).agg(pl.col("gain").mean())
    told = [
        f"{words(group)} ({sae}), {SETS[cases]}: {gain:+.2f}"
        for sae, group, cases, gain in means.iter_rows()
    ]
    return (
        "Curves of the gain in accuracy when latents are edited. Means over ratings: "
        f"{'; '.join(told)}."
    )
