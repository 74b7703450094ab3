"""Figures of directions in SAEs: error by number of latents, and what SAEs keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.analyses.decomposition import OF_DIRECTION, saes
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import (
    EQUALITY,
    legend,
    legend_entry,
    no_data,
    panels,
    strokes,
    styled,
    words,
)
from saeflow.palette import BLUE, BROWN, FAINT, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

METHODS = {
    "orthogonal": ("orthogonal matching pursuit", BLUE),
    "gradient": ("gradient pursuit", GREEN),
    "gradient_positive": ("gradient pursuit, positive", ORANGE),
    "matching": ("matching pursuit", SKY),
    "lasso": ("lasso", PURPLE),
    "difference_refit": ("latents that differ most, refitted", VERMILLION),
    "itda": ("as many activations as latents", BROWN),
    "encoder": ("encoder", INK),
}
"""Ways to decompose that are drawn, in words, with their colours."""
NULLS = {"random": ("random directions", GREY), "shuffled": ("shuffled labels", "#C9B8A0")}
MARKS = (
    ("cosine", "o", BLUE),
    ("repeated_cosine", "|", GREY),
    ("best_cosine", "D", VERMILLION),
    ("null_cosine", "|", VERMILLION),
)
"""Columns of what SAEs keep, as they are drawn."""
MEANINGS = {
    "cosine": "rebuilt difference of held-out texts",
    "repeated_cosine": "their difference itself",
    "best_cosine": "closest decoder row",
    "null_cosine": "closest of as many random rows",
}
EDITED = (
    ("whole", "the direction itself", VERMILLION),
    ("sum", "sum of latents for it", BLUE),
    ("random", "sums for random directions", GREY),
)
"""Kinds of edits that are drawn, in words, with their colours."""
MOST_PANELS = 12
HIGHEST = 1.25
"""Above it an error says that the sum is further off than nothing."""


def of_directions(curves: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """The curves of the first directions in every SAE, and what these are held against."""
    if curves.is_empty():
        return pl.DataFrame()
    own = curves.filter(kind="direction").select("sae", "direction").unique(maintain_order=True)
    drawn = own.head(MOST_PANELS)
    nulls = curves.filter(pl.col("method") == "orthogonal", pl.col("kind") != "direction")
    of_none = nulls.filter(kind="random").drop("direction").join(drawn, on="sae")
    of_each = [curves.filter(kind="direction"), nulls.filter(kind="shuffled")]
    kept = [table.join(drawn, on=["sae", "direction"]) for table in of_each]
    return pl.concat([kept[0], of_none.select(curves.columns), kept[1]])


@styled
def decomposition_curves(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Error against the number of latents, a panel for each SAE and direction."""
    if rows.is_empty():
        return no_data(settings, "no direction was decomposed")
    places = rows.select("sae", "direction").unique(maintain_order=True).rows()
    several = len({sae for sae, _ in places}) > 1
    drawing, axes = panels(len(places), settings, 2.3)
    for panel, (sae, direction) in zip(axes, places, strict=True):
        _curves(panel, rows.filter(sae=sae, direction=direction))
        panel.set_title(f"{words(direction)}\n{words(sae)}" if several else words(direction))
        panel.set_xlabel("latents")
        panel.set_ylabel("squared error, relative")
    there = set(rows["method"]) & set(METHODS)
    entries = [
        legend_entry(color=colour, label=text)
        for name, (text, colour) in METHODS.items()
        if name in there
    ]
    for kind, (text, colour) in NULLS.items():
        if kind in set(rows["kind"]):
            entries.append(legend_entry(color=colour, linewidth=5, alpha=0.5, label=text))
    legend(drawing, entries)
    return drawing


def _curves(panel: Axes, rows: pl.DataFrame) -> None:
    for kind, (_, colour) in NULLS.items():
        band = rows.filter(kind=kind).sort("k")
        if len(band):
            panel.fill_between(
                band["k"].to_numpy(),
                band["error_low"].to_numpy(),
                band["error_high"].to_numpy(),
                color=colour,
                alpha=0.35,
                linewidth=0,
            )
    for name, (_, colour) in METHODS.items():
        curve = rows.filter(kind="direction", method=name).sort("k")
        if len(curve):
            error = curve["error"].clip(upper_bound=HIGHEST).to_numpy()
            panel.plot(curve["k"].to_numpy(), error, color=colour)
    panel.set_xscale("log", base=2)
    panel.set_ylim(0, HIGHEST)


def decomposition_curves_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no direction was decomposed, so there is no curve of errors."
    curves = rows.filter(kind="direction", method="orthogonal").drop_nulls("error").sort("k")
    last = curves.group_by("sae", "direction").last()
    parts = [
        f"{row['direction']} in {row['sae']}: {row['error']:.2f} left with {row['k']} latents"
        for row in last.sort("sae", "direction").to_dicts()
    ]
    return f"Errors by number of latents. By orthogonal matching pursuit {'; '.join(parts)}."


def of_contrasts(fidelity: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """What every SAE keeps of every contrast."""
    return fidelity


@styled
def decomposition_fidelity(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Cosine of a direction with what SAEs rebuild of it, a panel for each direction."""
    if rows.is_empty():
        return no_data(settings, "no direction has texts of its own")
    names = rows["direction"].unique(maintain_order=True).to_list()
    trained = rows["saes"].unique(maintain_order=True).to_list()
    drawing, axes = panels(len(names), settings, 0.9 + 0.28 * len(trained))
    for panel, name in zip(axes, names, strict=True):
        own = rows.filter(direction=name)
        places = [trained.index(sae) for sae in own["saes"]]
        ends = own.select("cosine_low", "cosine_high").cast(pl.Float64).to_numpy()
        panel.plot(ends.T, [places, places], color=BLUE)
        for column, mark, colour in MARKS:
            values = own[column].cast(pl.Float64).abs().to_numpy()
            panel.plot(values, places, mark, color=colour, markersize=9 if mark == "|" else 4)
        panel.set_yticks(range(len(trained)), map(words, trained))
        panel.set_ylim(len(trained) - 0.5, -0.5)
        panel.axvline(1, **EQUALITY)
        panel.grid(axis="y", color=FAINT)
        panel.set_title(words(name))
        panel.set_xlabel("cosine with the direction")
    legend(
        drawing,
        [
            legend_entry(color=colour, marker=mark, linestyle="", label=MEANINGS[column])
            for column, mark, colour in MARKS
        ],
    )
    return drawing


def decomposition_fidelity_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no direction has texts of its own, of which SAEs could rebuild any."
    parts = [
        f"{row['direction']} in {row['saes']} {row['cosine']:.2f}, closest decoder row "
        f"{abs(row['best_cosine']):.2f}"
        for row in rows.drop_nulls(["cosine", "best_cosine"]).to_dicts()
    ]
    return f"Cosines of directions with what SAEs rebuild of them: {'; '.join(parts)}."


def of_trainings(curves: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """The curves of directions that several trainings were asked about."""
    if curves.is_empty():
        return pl.DataFrame()
    return curves.filter(pl.col("saes").n_unique().over("direction") > 1)


@styled
def decomposition_saes(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Error against the number of latents, a line for each training, a panel for each direction."""
    if rows.is_empty():
        return no_data(settings, "one SAE was asked about directions")
    names = rows["direction"].unique(maintain_order=True).to_list()
    trained = rows["saes"].unique(maintain_order=True).to_list()
    looks = dict(zip(trained, strokes(len(trained)), strict=True))
    drawing, axes = panels(len(names), settings, 2.6)
    for panel, name in zip(axes, names, strict=True):
        for sae, look in looks.items():
            own = rows.filter(direction=name, saes=sae).sort("k")
            k, error = own["k"].to_numpy(), own["error"].to_numpy()
            panel.plot(k, error, **look._asdict())
            band = own.drop_nulls("error_low")
            low, high = (band[end].to_numpy() for end in ("error_low", "error_high"))
            panel.fill_between(band["k"].to_numpy(), low, high, color=look.color, alpha=0.15)
        panel.set_xscale("log", base=2)
        panel.set_ylim(0, 1.05)
        panel.set_title(words(name))
        panel.set_xlabel("latents")
        panel.set_ylabel("squared error, relative")
    entries = (legend_entry(**look._asdict(), label=words(sae)) for sae, look in looks.items())
    legend(drawing, entries)
    return drawing


def decomposition_saes_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: one SAE was asked about directions."
    last = rows.sort("k").group_by("direction", "saes", maintain_order=True).last()
    parts = [
        f"{row['direction']} in {row['saes']}: {row['error']:.2f} left with {row['k']} latents"
        for row in last.sort("direction", "saes").to_dicts()
    ]
    return f"Errors by number of latents, of each training: {'; '.join(parts)}."


def of_sums(edits: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """What sums of latents do to the log-odds of the behaviour, by class of prompts."""
    if edits.is_empty():
        return pl.DataFrame()
    columns = ["sae", "model", "direction", "label", "edit", "kind", "latents"]
    kept = edits.filter(measure="log_odds").drop_nulls(["value", "low", "high"])
    return kept.select(*columns, "value", "low", "high")


@styled
def decomposition_edits(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Log-odds against the latents in a sum, a panel for each SAE, direction, class and edit."""
    if rows.is_empty():
        return no_data(settings, "no sum of latents stood in for a direction")
    done = rows.filter(pl.col("edit") != "none")
    keys = ["sae", "model", "direction", "label", "edit"]
    places = done.select(keys).unique(maintain_order=True).head(MOST_PANELS).rows()
    what = {"ablate": "taken out", "add": "added"}
    titles = [
        f"{words(direction)} {what[edit]}: {words(label)}\n{words(model)}, {words(sae)}"
        for sae, model, direction, label, edit in places
    ]
    drawing, axes = panels(len(places), settings, 2.3, share_x=False, titles=titles)
    for panel, title, (sae, model, direction, label, edit) in zip(
        axes, titles, places, strict=True
    ):
        of_place = rows.filter(sae=sae, model=model, direction=direction, label=label)
        _edited(panel, of_place, edit)
        panel.set_title(title)
        panel.set_xlabel("latents in the sum")
        panel.set_ylabel("log-odds")
    entries = [legend_entry(color=colour, label=text) for _, text, colour in EDITED]
    legend(drawing, [*entries, legend_entry(color=INK, linestyle=":", label="unedited")])
    return drawing


def _edited(panel: Axes, rows: pl.DataFrame, edit: str) -> None:
    for kind, _, colour in EDITED:
        own = rows.filter(edit=edit, kind=kind).sort("latents", nulls_last=True)
        value, low, high = (own[name].to_numpy() for name in ("value", "low", "high"))
        if kind == "whole" and len(own):
            panel.axhline(value[0], color=colour)
            panel.axhspan(low[0], high[0], color=colour, alpha=0.15)
        elif len(own):
            panel.plot(own["latents"].to_numpy(), value, "o-", color=colour)
            panel.fill_between(own["latents"].to_numpy(), low, high, color=colour, alpha=0.15)
    for unedited in rows.filter(edit="none")["value"]:
        panel.axhline(unedited, color=INK, linestyle=":")
    panel.set_xscale("log", base=2)


def decomposition_edits_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no sum of latents stood in for a direction."
    most = rows.filter(kind="sum").sort("latents")
    keys = ["sae", "model", "direction", "label", "edit"]
    last = most.group_by(keys, maintain_order=True).last()
    whole = rows.filter(kind="whole").select(*keys, whole="value")
    parts = [
        f"{row['direction']} of {row['model']} in {row['sae']}, {row['edit']}, {row['label']}: "
        f"{row['value']:.1f} with {row['latents']} latents, {row['whole']:.1f} with the whole"
        for row in last.join(whole, on=keys, maintain_order="left").drop_nulls("whole").to_dicts()
    ]
    return f"Log-odds of the behaviour under edits by sums of latents: {'; '.join(parts)}."


FIGURES = (
    Figure(
        name="decomposition_curves",
        tables=("decomposition/{decomposed_sae}/curves.parquet",),
        rows=of_directions,
        draw=decomposition_curves,
        alt=decomposition_curves_alt,
        title="What few latents leave of a direction",
        caption="Squared distance of the sum of so many decoder rows from the direction, divided "
        "by the direction's squared norm. Bands: most of the random directions, and of those from "
        "the same texts with shuffled labels, by orthogonal matching pursuit. A curve within a "
        "band says that the SAE knows the direction no better than one that means nothing.",
        section="decomposition",
    ),
    Figure(
        name="decomposition_fidelity",
        tables=("decomposition/fidelity.parquet",),
        rows=of_contrasts,
        draw=decomposition_fidelity,
        alt=decomposition_fidelity_alt,
        title="What SAEs keep of a direction",
        caption="Cosine of the direction with the difference of held-out texts after the SAE has "
        "rebuilt their activations, with its interval over seeds of the SAE, or of one SAE over "
        "bootstraps of these texts. The grey mark is the difference before that: what repeats at "
        "all. Red: the decoder row that is closest to the direction, and where the closest of as "
        "many random rows is expected.",
        section="decomposition",
        drawn=lambda study: bool(
            study.decomposition.directions.contrasts or study.decomposition.directions.measured
        ),
    ),
    Figure(
        name="decomposition_saes",
        tables=("decomposition/curves.parquet",),
        rows=of_trainings,
        draw=decomposition_saes,
        alt=decomposition_saes_alt,
        title="What few latents of each SAE leave of a direction",
        caption="As above, by orthogonal matching pursuit, for every SAE; those that differ in "
        "their seed alone are one line, with its interval over seeds.",
        section="decomposition",
        drawn=lambda study: len(saes(study)) > 1,
    ),
    Figure(
        name="decomposition_edits",
        tables=(OF_DIRECTION,),
        rows=of_sums,
        draw=decomposition_edits,
        alt=decomposition_edits_alt,
        title="What few latents do in place of a direction",
        caption="Log-odds of the behaviour on test prompts when the sum of so many latents that "
        "comes closest to the direction is taken out in its place, or added as long as the "
        "direction is; beside it the direction itself, and such sums for random directions.",
        section="decomposition",
        drawn=lambda study: study.decomposition.edits is not None,
    ),
)
