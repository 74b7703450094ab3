"""Figures of task vectors: by layer, by number of latents, and latents on every task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saeflow.analyses.tasks import saes
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import band_opacity, legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LOOKS = {
    "mean": Look(BLUE, "o"),
    "difference": Look(SKY, "v"),
    "function": Look(GREEN, "s"),
    "placebo": Look(GREY, "x"),
    "cleaned": Look(VERMILLION, "o"),
    "gradient": Look(PURPLE, "^"),
    "gradient_positive": Look(PURPLE, "<"),
    "orthogonal": Look(ORANGE, "D"),
    "matching": Look(INK, ">"),
    "lasso": Look(GREEN, "P"),
    "sae": Look(SKY, "v"),
}
NAMES = {
    "mean": "mean with examples",
    "difference": "less the mean without",
    "function": "function vector",
    "placebo": "placebo: outputs exchanged",
    "cleaned": "cleaned",
    "gradient": "gradient pursuit",
    "gradient_positive": "gradient pursuit, positive",
    "orthogonal": "orthogonal matching pursuit",
    "matching": "matching pursuit",
    "lasso": "lasso",
    "sae": "largest codes of the SAE",
}
LEAST_SHARE = -0.5
"""Below it shares are drawn at the edge: an added vector can do any harm."""
LEVELS = {
    "zero_shot": ("no examples", "right", "bottom"),
    "few_shot": ("with examples", "right", "bottom"),
    "mean": ("mean, whole", "left", "top"),  # it may lie close to either
}


def of_layers(sweep: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Recovered shares of every vector behind every layer."""
    if sweep.is_empty():
        return pl.DataFrame()
    own = sweep.filter(template="own").drop_nulls(["layer", "recovered"])
    columns = ("task", "kind", "layer", "recovered", "recovered_low", "recovered_high", "chosen")
    return own.select(columns)


@styled
def tasks_layers(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """A panel per task, a line per vector."""
    if rows.is_empty():
        return no_data(settings, "no task is answered better with examples")
    shown = rows.partition_by("task", maintain_order=True)
    kinds = rows["kind"].unique(maintain_order=True).to_list()
    drawing, axes = panels(len(shown), settings, 2.4)
    for panel, own in zip(axes, shown, strict=True):
        for kind, part in own.group_by("kind", maintain_order=True):
            look, line = LOOKS[str(kind[0])], part.sort("layer")
            value, low, high = (
                line[name].clip(LEAST_SHARE, None).to_numpy()
                for name in ("recovered", "recovered_low", "recovered_high")
            )
            layers = line["layer"].to_numpy()
            panel.fill_between(
                layers, low, high, color=look.colour, alpha=band_opacity(len(kinds)), linewidth=0
            )
            panel.plot(layers, value, marker=look.marker, color=look.colour)
            best = line.filter("chosen")
            panel.plot(
                best["layer"].to_numpy(),
                best["recovered"].clip(LEAST_SHARE, None).to_numpy(),
                "o",
                markersize=9,
                markerfacecolor="none",
                color=look.colour,
            )
        panel.axhline(0, color=INK, linewidth=0.8)
        panel.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        panel.set_title(words(own["task"][0]))
        panel.set_xlabel("layer")
        panel.set_ylim(LEAST_SHARE - 0.05, 1.15)
    axes[0].set_ylabel("recovered share of the loss")
    legend(drawing, _entries(kinds))
    return drawing


def tasks_layers_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no task is answered better with examples."
    parts = [
        f"{row['task']}, {NAMES[row['kind']]}: {row['recovered']:.2f} behind layer {row['layer']}"
        for row in rows.filter("chosen").to_dicts()
    ]
    return f"Recovered shares by layer; of the layers chosen {'; '.join(parts)}."


def of_numbers(curves: pl.DataFrame, sweep: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Losses by number of latents, and those that need none."""
    if curves.is_empty() or sweep.is_empty():
        return pl.DataFrame()
    columns = ("sae", "task", "method", "latents", "loss", "loss_low", "loss_high", "chosen")
    own = curves.filter(pl.col("method").is_in([*LOOKS, "cleaned_placebo"])).select(columns)
    ends = sweep.filter(pl.col("kind").is_in(["zero_shot", "few_shot"]), template="own").select(
        "task",
        pl.col("kind").alias("method"),
        pl.lit(None, pl.Int32).alias("latents"),
        *("loss", "loss_low", "loss_high", "chosen"),
    )
    of_saes = own.select("sae", "task").unique(maintain_order=True)
    beside = of_saes.join(ends, on="task", maintain_order="left").select(columns)
    return pl.concat([own, beside]).drop_nulls("loss")


@styled
def tasks_numbers(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """A panel per SAE and task: loss against number of latents."""
    if rows.is_empty():
        return no_data(settings, "no vector was cleaned")
    shown = rows.partition_by("sae", "task", maintain_order=True)
    several = rows["sae"].n_unique() > 1
    drawing, axes = panels(len(shown), settings, 2.5, share_x=True, share_y=False)
    drawn: list[str] = []
    for panel, own in zip(axes, shown, strict=True):
        counted = own.drop_nulls("latents").filter(
            pl.col("latents") > 0, pl.col("method").is_in(list(LOOKS))
        )
        for method, part in counted.group_by("method", maintain_order=True):
            name = str(method[0])
            look, line = LOOKS[name], part.sort("latents", maintain_order=True)
            drawn += [name] if name not in drawn else []
            x, value = line["latents"].to_numpy(), line["loss"].to_numpy()
            if name == "cleaned":
                ends = line["loss_low"].to_numpy(), line["loss_high"].to_numpy()
                panel.fill_between(x, *ends, color=look.colour, alpha=0.13, linewidth=0)
            panel.plot(x, value, marker=look.marker, color=look.colour)
        chosen = own.filter("chosen", method="cleaned")
        panel.plot(
            chosen["latents"].to_numpy(),
            chosen["loss"].to_numpy(),
            "*",
            markersize=12,
            markeredgecolor="white",
            color=INK,
        )
        for level, (label, side, edge) in LEVELS.items():
            for row in own.filter(method=level).to_dicts():
                panel.axhline(row["loss"], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
                panel.annotate(
                    label, (side == "right", row["loss"]), (0, 2 if edge == "bottom" else -2),
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                    ha=side, va=edge, fontsize=7, color=INK,
                )  # fmt: skip
        panel.set_xscale("log", base=2)
        title = words(own["task"][0])
        panel.set_title(f"{title}, {words(own['sae'][0])}" if several else title)
        panel.set_xlabel("latents")
    axes[0].set_ylabel("loss, nats")
    chosen_entry = legend_entry(
        color=INK, marker="*", markersize=10, linestyle="", label="cleaned, chosen"
    )
    legend(drawing, [*_entries(drawn), chosen_entry])
    return drawing


def tasks_numbers_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no vector was cleaned."
    parts = [
        f"{row['task']} in {row['sae']} {row['latents']} latents at {row['loss']:.2f} nats"
        for row in rows.filter("chosen", method="cleaned").to_dicts()
    ]
    return f"Loss against number of latents by method; cleaned and chosen {'; '.join(parts)}."


def of_latents(specificity: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """What latents of cleaned vectors do alone to every task."""
    if specificity.is_empty():
        return pl.DataFrame()
    return specificity.filter(kind="execution").select("sae", "latent", "of", "task", "gain")


@styled
def tasks_specificity(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """A heat map of latents and tasks per SAE."""
    if rows.is_empty():
        return no_data(settings, "cleaning left no latent")
    shown = rows.partition_by("sae", maintain_order=True)
    most = max(own.select("latent", "of").n_unique() for own in shown)
    drawing, axes = panels(
        len(shown), settings, max(2.2, 0.2 * most + 1.2), share_x=False, share_y=False
    )
    for panel, own in zip(axes, shown, strict=True):
        latents = own.select("of", "latent").unique(maintain_order=True).rows()
        tasks = own["task"].unique(maintain_order=True).to_list()
        grid = np.full((len(latents), len(tasks)), np.nan)
        for row in own.to_dicts():
            place = latents.index((row["of"], row["latent"])), tasks.index(row["task"])
            grid[place] = row["gain"]
        largest = float(np.nanmax(np.abs(grid))) or 1.0
        image = panel.imshow(
            grid, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest"
        )
        panel.grid(visible=False)
        panel.set_yticks(
            range(len(latents)), [f"{words(of)}: {latent}" for of, latent in latents], fontsize=7.5
        )
        panel.set_xticks(
            range(len(tasks)), [words(task) for task in tasks], rotation=30, ha="right"
        )
        ends = [i for i in range(1, len(latents)) if latents[i][0] != latents[i - 1][0]]
        for end in ends:
            panel.axhline(end - 0.5, color=FAINT, linewidth=2)
        panel.set_title(words(own["sae"][0]))
        drawing.colorbar(image, ax=panel, label="loss that it takes away, nats")
    return drawing


def tasks_specificity_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: cleaning left no latent."
    own = rows.filter(pl.col("of") == pl.col("task"))
    parts = [f"{row['latent']} of {row['of']} {row['gain']:.2f}" for row in own.to_dicts()]
    return f"Nats that each latent alone takes away of its own task: {'; '.join(parts)}."


def _entries(names: list[str]) -> list[object]:
    return [
        legend_entry(color=LOOKS[name].colour, marker=LOOKS[name].marker, label=NAMES[name])
        for name in names
    ]


def _cleans(study: object) -> bool:
    own = getattr(study, "tasks", None)
    return bool(own and saes(study, own))  # type: ignore[arg-type]


FIGURES = (
    Figure(
        name="tasks_layers",
        tables=("tasks/sweep.parquet",),
        rows=of_layers,
        draw=tasks_layers,
        alt=tasks_layers_alt,
        title="What vectors of tasks recover, by layer",
        caption="The share of the loss between prompts without and with examples that is recovered "
        "where a vector is added at the separator of a prompt without examples. Pairs that nothing "
        "was made or chosen of; bands are intervals over pairs; rings mark the layer of the "
        "smallest loss on the pairs to choose by. Shares below -0.5 are drawn there.",
        section="tasks",
    ),
    Figure(
        name="tasks_numbers",
        tables=("tasks/{cleaned_sae}/{task}/curves.parquet", "tasks/sweep.parquet"),
        rows=of_numbers,
        draw=tasks_numbers,
        alt=tasks_numbers_alt,
        title="Loss against number of latents",
        caption="Sums of few decoder rows added at the separator: cleaned through the layers "
        "above, the path of penalties with the interval over pairs; pursuits of the same vector, "
        "and its largest codes, each as strong as is best. Dashed: without examples, with them, "
        "and the whole vector.",
        section="tasks",
        drawn=_cleans,
    ),
    Figure(
        name="tasks_specificity",
        tables=("tasks/{cleaned_sae}/specificity.parquet",),
        rows=of_latents,
        draw=tasks_specificity,
        alt=tasks_specificity_alt,
        title="Latents of cleaned vectors, each alone, on every task",
        caption="Nats of the loss without examples that one latent takes away when it is added as "
        "far as the cleaned vector of its task is long; rows are latents by the task they are of.",
        section="tasks",
        drawn=_cleans,
    ),
)
