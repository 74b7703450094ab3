"""Figures of directions: candidates, what edits do, what addition costs, transfer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
KINDS = {
    "direction": ("the direction", VERMILLION),
    "random": ("random directions", GREY),
    "shuffled": ("of shuffled labels", BLUE),
    "candidate": ("other candidates", SKY),
}
LABELS = (ORANGE, PURPLE, GREEN)
EDITS = {"none": "unedited", "ablate": "ablated", "add": "added"}
KEYS = ("model", "direction")


def _panels_of(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows by model and direction, with the title of each."""
    for (model, direction), own in rows.group_by(KEYS, maintain_order=True):
        yield f"{words(str(direction))}, {words(str(model))}", own


def _labels(rows: pl.DataFrame) -> list[str]:
    """The classes, each with the same colour in every figure."""
    return sorted(rows["label"].drop_nulls().unique())


def searched(candidates: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The candidates of directions that have several: model, direction, position, layer, ablated,
    divergence, chosen, within_rule."""
    if candidates.is_empty():
        return pl.DataFrame()
    several = candidates.filter(pl.len().over(KEYS) > 1)
    shown = ("position", "layer", "ablated", "added", "divergence", "auc", "chosen", "within_rule")
    return several.select(*KEYS, *shown)


@styled
def candidate_map(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A heat map of position × layer per direction: log-odds under ablation; the chosen one is
    marked."""
    if rows.is_empty():
        return no_data(settings, "no direction has candidates")
    shown = list(_panels_of(rows))
    figure, axes = panels(len(shown), settings, 2.2, share_x=False, share_y=False)
    for panel, (title, own) in zip(axes, shown, strict=True):
        _map(figure, panel, own)
        panel.set_title(title)
    return figure


def _map(figure: Drawing, panel: Axes, own: pl.DataFrame) -> None:
    positions = own["position"].unique(maintain_order=True).to_list()
    layers = own["layer"].unique(maintain_order=True).to_list()
    grid = np.full((len(positions), len(layers)), np.nan)
    for row in own.iter_rows(named=True):
        place = positions.index(row["position"]), layers.index(row["layer"])
        grid[place] = np.nan if row["ablated"] is None else row["ablated"]
    image = panel.imshow(grid, aspect="auto", cmap="cividis", interpolation="nearest")
    chosen = own.filter("chosen").row(0, named=True)
    panel.plot(
        layers.index(chosen["layer"]),
        positions.index(chosen["position"]),
        marker="*" if chosen["within_rule"] else "x",
        color=VERMILLION,
        markersize=11,
        markeredgecolor="white",
    )
    panel.grid(visible=False)
    panel.set_yticks(range(len(positions)), positions)
    step = max(1, len(layers) // 8)
    panel.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    panel.set_xlabel("layer")
    figure.colorbar(image, ax=panel, label="log-odds, ablated")


def candidate_map_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no direction of the study has candidates."
    chosen = rows.filter("chosen")
    choices = ", ".join(
        f"{row['direction']} of {row['model']} {row['position']} after layer {row['layer']}"
        for row in chosen.iter_rows(named=True)
    )
    return (
        f"Heat maps of the log-odds that each candidate leaves when ablated; chosen are {choices}."
    )


def rates(edits: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """How often answers show the behaviour: model, direction, edit, kind, scale, label, value, low,
    high, n."""
    if edits.is_empty():
        return pl.DataFrame()
    shown = edits.filter(measure="phrases").drop("measure").drop_nulls(["scale", "value"])
    return shown.select(*KEYS, pl.exclude(KEYS))


@styled
def rate_bars(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Rates with intervals per edit and class, the controls beside the direction."""
    if rows.is_empty():
        return no_data(settings, "no edit was measured")
    shown, labels = list(_panels_of(rows)), _labels(rows)
    figure, axes = panels(
        len(shown), settings, 2.6, share_x=False, titles=[title for title, _ in shown]
    )
    for panel, (title, own) in zip(axes, shown, strict=True):
        tried = own.select("edit", "kind", "scale").unique(maintain_order=True).rows()
        names = [_edit_name(*each) for each in tried]
        for number, label in enumerate(labels):
            of_label = own.filter(label=label)
            for place, (edit, kind, scale) in enumerate(tried):
                for row in of_label.filter(edit=edit, kind=kind, scale=scale).iter_rows(named=True):
                    x = place + 0.22 * (number - (len(labels) - 1) / 2)
                    panel.plot([x, x], [row["low"], row["high"]], color=LABELS[number % 3])
                    panel.plot(x, row["value"], "o", color=LABELS[number % 3])
        panel.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7.5)
        panel.set_ylim(-0.03, 1.03)
        panel.set_ylabel("share that shows it")
        panel.set_title(title)
    legend(
        figure,
        [
            legend_entry(color=LABELS[n % 3], marker="o", label=words(label))
            for n, label in enumerate(labels)
        ],
    )
    return figure


def _edit_name(edit: str, kind: str, scale: float) -> str:
    if edit == "none":
        return "unedited"
    beside = "" if kind == "direction" else f", {kind}"
    return f"ablated{beside}" if edit == "ablate" else f"{scale:+g} gap{beside}"


def rate_bars_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no edit of the study was measured."
    own = rows.filter(kind="direction")
    by_edit = "; ".join(
        f"{row['direction']} of {row['model']}, {EDITS[row['edit']]}, {row['label']}: "
        f"{row['value']:.2f}"
        for row in own.filter(pl.col("edit") != "add").iter_rows(named=True)
    )
    return f"Shares of answers that show the behaviour, with intervals. {by_edit}."


def additions(edits: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Log-odds and divergence along the grid of scales: model, direction, kind, scale, label,
    measure, value, low, high."""
    if edits.is_empty():
        return pl.DataFrame()
    along = edits.filter(
        pl.col("edit").is_in(["none", "add"]), pl.col("measure").is_in(["log_odds", "kl_token"])
    )
    along = along.drop_nulls(["scale", "value"])
    return along.sort(*KEYS, "measure", "kind", "label", "scale", maintain_order=True).select(
        *KEYS, "kind", "label", "measure", "scale", "value", "low", "high"
    )


@styled
def addition_curves(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Log-odds of each class against the scale; below, what the same scale costs."""
    if rows.is_empty():
        return no_data(settings, "nothing was added")
    shown = list(_panels_of(rows))
    figure, axes = panels(2 * len(shown), settings, 2.2, share_y=False, columns=2)
    labels = _labels(rows)
    for number, (title, own) in enumerate(shown):
        odds, cost = axes[2 * number : 2 * number + 2]
        direction = own.filter(kind="direction")
        for place, label in enumerate(labels):
            curve = direction.filter(measure="log_odds", label=label)
            _curve(odds, curve, LABELS[place % 3], words(label))
        _curve(cost, direction.filter(measure="kl_token"), INK, "the direction")
        for kind, (_, colour) in list(KINDS.items())[1:]:
            for row in own.filter(kind=kind, measure="kl_token").iter_rows(named=True):
                cost.plot(row["scale"], row["value"], "D", color=colour)
        odds.axhline(0, color=GREY, linewidth=0.8)
        odds.set_title(title)
        odds.set_ylabel("log-odds of the behaviour")
        cost.set_ylabel("KL, nats per token")
        for panel in (odds, cost):
            panel.set_xlabel("scale, in gaps")
    entries = [
        legend_entry(color=LABELS[n % 3], label=words(label)) for n, label in enumerate(labels)
    ]
    entries.append(legend_entry(color=INK, label="the direction"))
    controls = list(KINDS.values())[1:]
    entries += [
        legend_entry(color=colour, marker="D", linestyle="", label=name)
        for name, colour in controls
    ]
    legend(figure, entries)
    return figure


def _curve(panel: Axes, curve: pl.DataFrame, colour: str, label: str) -> None:
    panel.plot(curve["scale"], curve["value"], color=colour, marker="o", label=label)
    panel.fill_between(curve["scale"], curve["low"], curve["high"], color=colour, alpha=0.18)


def addition_curves_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no direction of the study was added."
    odds = rows.filter(kind="direction", measure="log_odds")
    values = odds["value"].to_numpy()
    ends = f"{values.min():.1f} to {values.max():.1f}"
    return (
        f"Curves of log-odds against the scale, from {ends}, beside the divergence that it costs."
    )


def transfers(transfer: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """What directions of each model do in each: direction, source, model, edit, label, value, low,
    high; log-odds."""
    if transfer.is_empty():
        return pl.DataFrame()
    shown = transfer.filter(pl.col("edit") != "none", measure="log_odds")
    usual = transfer.filter(edit="none", measure="log_odds").select(
        "model", "source", "direction", "label", unedited="value"
    )
    joined = shown.join(usual, on=["model", "source", "direction", "label"])
    columns = ("value", "low", "high", "unedited")
    return joined.select("direction", "source", "model", "edit", "label", *columns).drop_nulls()


@styled
def transfer_matrix(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A matrix source × model of the change of log-odds, per direction, edit and class."""
    if rows.is_empty():
        return no_data(settings, "the study edits one model")
    cells = [
        (f"{words(direction)}, {EDITS[edit]}: {words(label)}", own)
        for (direction, edit, label), own in rows.group_by(
            ["direction", "edit", "label"], maintain_order=True
        )
    ]
    names = rows["model"].unique(maintain_order=True).to_list()
    figure, axes = panels(len(cells), settings, 2.0, titles=[title for title, _ in cells])
    largest = max(float(np.abs((rows["value"] - rows["unedited"]).to_numpy()).max()), 1e-9)
    for panel, (title, own) in zip(axes, cells, strict=True):
        grid = np.full((len(names), len(names)), np.nan)
        for row in own.iter_rows(named=True):
            change = row["value"] - row["unedited"]
            place = names.index(row["source"]), names.index(row["model"])
            grid[place] = change
            colour = "white" if abs(change) > 0.6 * largest else INK  # cells are dark at both ends
            text = panel.text(place[1], place[0], f"{change:+.1f}", ha="center", va="center")
            text.set(fontsize=8, color=colour)
        panel.imshow(grid, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        panel.grid(visible=False)
        panel.set_xticks(range(len(names)), map(words, names), rotation=30, ha="right")
        panel.set_yticks(range(len(names)), map(words, names))
        panel.set_title(title)
    figure.supxlabel("model that is edited", fontsize="medium")
    figure.supylabel("direction of", fontsize="medium")
    return figure


def transfer_matrix_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: the study edits one model, so there is no transfer."
    by_source = "; ".join(
        f"{row['direction']} of {row['source']} in {row['model']}, {EDITS[row['edit']]}, "
        f"{row['label']}: {row['value'] - row['unedited']:+.1f}"
        for row in rows.iter_rows(named=True)
    )
    return f"Matrices of the change of log-odds. {by_source}."


def _several(study: Any) -> bool:
    return len(study.directions.models or study.all_models) > 1


OF_DIRECTION = "directions/{directed_model}/{direction}"
FIGURES = (
    Figure(
        name="direction_candidates",
        tables=(f"{OF_DIRECTION}/candidates.parquet",),
        rows=searched,
        draw=candidate_map,
        alt=candidate_map_alt,
        title="Which candidates take the behaviour away",
        caption="Mean log-odds of the behaviour on validation prompts when a candidate is ablated, "
        "by position and layer. A star marks the one that the rule takes; a cross, the one that is "
        "taken where none meets the rule.",
        section="directions",
    ),
    Figure(
        name="direction_rates",
        tables=(f"{OF_DIRECTION}/edits.parquet",),
        rows=rates,
        draw=rate_bars,
        alt=rate_bars_alt,
        title="How often answers show the behaviour",
        caption="Share of answers to test prompts that say one of the phrases, with intervals over "
        "groups of prompts, for the direction and its controls.",
        section="directions",
    ),
    Figure(
        name="direction_addition",
        tables=(f"{OF_DIRECTION}/edits.parquet",),
        rows=additions,
        draw=addition_curves,
        alt=addition_curves_alt,
        title="What addition brings, and what it costs",
        caption="Log-odds of the behaviour against how much of the direction is added, in gaps "
        "between the classes, and the divergence per token from the unedited model on prompts "
        "without the behaviour. Points are controls.",
        section="directions",
    ),
    Figure(
        name="direction_transfer",
        tables=("directions/{directed_model}/transfer.parquet",),
        rows=transfers,
        draw=transfer_matrix,
        alt=transfer_matrix_alt,
        title="Directions of one model in another",
        caption="Change of the log-odds of the behaviour on test prompts when the direction of one "
        "model (rows) is ablated in, or added to, another (columns).",
        section="directions",
        drawn=_several,
    ),
)
