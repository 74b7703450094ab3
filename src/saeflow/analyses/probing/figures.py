"""The figures of probing: areas by k, by regime, of the quiver, and on shifted sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from saeflow.analyses.probing import WITH, WITHOUT
from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import (
    canvas,
    legend,
    legend_entry,
    no_data,
    panels,
    strokes,
    styled,
    words,
)
from saeflow.palette import BLUE, GREY, INK, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NOTHING = "no set was probed"
KINDS = {
    "latents": ("latents", BLUE, "-"),
    "random_latents": ("random latents of equal density", GREY, "-"),
    "random_projections": ("random projections", GREY, (0, (2, 2))),
}
"""In the figure by k: what a line is, and how it is drawn."""
DENSE = ("logistic regression on activations", VERMILLION)
REGIMES = {
    "scarcity": "training rows",
    "imbalance": "share of the second class",
    "noise": "share of flipped labels",
}


def series(row: dict[str, Any]) -> str:
    """A method in words."""
    name = str(row["method"]).replace("_", " ")
    if row["kind"] in ("activations", "surface"):
        return f"{name} on {row['kind']}"
    size = f" k = {row['k']}" if row["k"] else ""
    return f"{name}{size} on {str(row['kind']).replace('_', ' ')} of {row['of']}"


def _baseline(summary: pl.DataFrame) -> pl.DataFrame:
    return summary.filter(kind="activations", method="logistic_ridge")


def by_k(summary: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Mean areas over sets by k: sae, kind, k, auc; k 0 is the dense probe."""
    if summary.is_empty():
        return pl.DataFrame()
    full = summary.filter(regime="full", test_set="").drop_nulls("auc")
    saes = full.filter(kind="latents")["of"].unique(maintain_order=True)
    sparse = full.filter(pl.col("method").is_in(["sparse", "projections"]))
    means = sparse.group_by("kind", "of", "k", maintain_order=True).agg(pl.col("auc").mean())
    dense = _baseline(full)["auc"].mean()
    tables = []
    for sae in saes:
        own = means.filter((pl.col("of") == sae) | (pl.col("kind") == "random_projections"))
        own = own.unique(["kind", "k"], keep="first", maintain_order=True).sort("kind", "k")
        line = pl.DataFrame({"kind": ["dense"], "k": [0], "auc": [dense]})
        own = pl.concat([own.select("kind", pl.col("k").cast(pl.Int64), "auc"), line])
        tables.append(own.select(pl.lit(sae).alias("sae"), "kind", "k", "auc"))
    return pl.concat(tables) if tables else pl.DataFrame()


@styled
def probes_by_k(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A panel per SAE: the area by the number of latents, with dense and random lines."""
    if rows.is_empty():
        return no_data(settings, NOTHING)
    saes = rows["sae"].unique(maintain_order=True).to_list()
    figure, axes = panels(len(saes), settings, 2.4)
    for sae, panel in zip(saes, axes, strict=True):
        own = rows.filter(sae=sae)
        for kind, (_, colour, dash) in KINDS.items():
            line = own.filter(kind=kind).sort("k")
            panel.plot(line["k"], line["auc"], color=colour, linestyle=dash, marker="o")
        panel.axhline(own.filter(kind="dense")["auc"][0], color=DENSE[1], linewidth=1.2)
        panel.set_xscale("log", base=2)
        panel.set_title(words(sae))
        panel.set_xlabel("latents, or projections")
        panel.set_ylabel("mean area over sets")
    entries = [
        legend_entry(color=colour, linestyle=dash, label=label)
        for label, colour, dash in KINDS.values()
    ]
    legend(figure, [legend_entry(color=DENSE[1], label=DENSE[0]), *entries])
    return figure


def probes_by_k_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    parts = []
    for sae in rows["sae"].unique(maintain_order=True):
        own = rows.filter(sae=sae)
        latents = own.filter(kind="latents").sort("k")
        dense = own.filter(kind="dense")["auc"][0]
        ends = [f"{latents['auc'][at]:.2f} at {latents['k'][at]}" for at in (0, -1)]
        parts.append(f"{sae}: from {ends[0]} to {ends[1]} latents, activations {dense:.2f}")
    return f"Lines of the mean area over sets by number of latents. {'; '.join(parts)}."


def by_regime(summary: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Mean areas over sets: regime, level, series, auc, sets."""
    if summary.is_empty():
        return pl.DataFrame()
    rows = summary.filter(pl.col("regime").is_in(list(REGIMES)), test_set="").drop_nulls("auc")
    named = rows.with_columns(
        series=pl.struct("kind", "of", "method", "k").map_elements(series, return_dtype=pl.String)
    )
    keys = ["regime", "level", "series"]
    means = named.group_by(keys, maintain_order=True).agg(
        pl.col("auc").mean(), sets=pl.col("set").n_unique().cast(pl.Int64)
    )
    return means.sort("regime", "series", "level")


@styled
def probes_by_regime(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A panel per regime, a line per method."""
    if rows.is_empty():
        return no_data(settings, NOTHING)
    regimes = [name for name in REGIMES if name in rows["regime"]]
    figure, axes = panels(len(regimes), settings, 2.6, share_x=False)
    names = rows["series"].unique(maintain_order=True).to_list()
    looks: dict[str, dict[str, Any]] = {
        name: {"color": stroke.color, "linestyle": stroke.linestyle}
        for name, stroke in zip(names, strokes(len(names)), strict=True)
    }
    for regime, panel in zip(regimes, axes, strict=True):
        for name in names:
            line = rows.filter(regime=regime, series=name).sort("level")
            panel.plot(line["level"], line["auc"], marker=".", **looks[name])
        if regime == "scarcity":
            panel.set_xscale("log", base=2)
        panel.set_title(words(regime))
        panel.set_xlabel(REGIMES[regime])
    axes[0].set_ylabel("mean area over sets")
    legend(figure, [legend_entry(label=name, **looks[name]) for name in names])
    return figure


def probes_by_regime_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    parts = []
    for regime in (name for name in REGIMES if name in rows["regime"]):
        own = rows.filter(regime=regime)
        hardest = own.filter(
            pl.col("level") == (own["level"].min() if regime == "scarcity" else own["level"].max())
        )
        best = hardest.sort("auc", descending=True).row(0, named=True)
        parts.append(
            f"{regime}: best at {best['level']:g} is {best['series']} with {best['auc']:.2f}"
        )
    return f"Small multiples of the mean area over sets by regime. {'; '.join(parts)}."


def arrows(quiver: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Per set the mean area over seeds of what validation chooses: set, without, with, latents."""
    if quiver.is_empty():
        return pl.DataFrame()
    full = quiver.filter(regime="full").drop_nulls("auc")
    means = full.group_by("set", "arrows", maintain_order=True).agg(
        pl.col("auc").mean(), latents=(pl.col("kind") == "latents").mean()
    )
    left, right = means.filter(arrows=WITHOUT), means.filter(arrows=WITH)
    joined = left.select("set", without="auc").join(
        right.select("set", "latents", both="auc"), on="set"
    )
    return joined.sort("without", "set")


@styled
def probe_quiver(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """An arrow per set, from the choice among activations to that with latents."""
    if rows.is_empty():
        return no_data(settings, NOTHING)
    figure = canvas(settings.width, 1.2 + 0.22 * len(rows), settings)
    panel = figure.subplots()
    for place, row in enumerate(rows.to_dicts()):
        up = row["both"] >= row["without"]
        panel.annotate(
            "",
            (row["both"], place),
            (row["without"], place),
            arrowprops={"arrowstyle": "->", "color": BLUE if up else VERMILLION, "linewidth": 1.4},
        )
        panel.plot(row["without"], place, "o", color=INK, markersize=3.5)
    low = min(rows["without"].min(), rows["both"].min())  # type: ignore[type-var]
    panel.set(yticks=range(len(rows)), yticklabels=[words(name) for name in rows["set"]])
    panel.set_xlim(float(low) - 0.02, 1.01)  # type: ignore[arg-type]
    panel.set_xlabel("area on test rows")
    better = legend_entry(color=BLUE, label="better with latents to choose from")
    legend(figure, [better, legend_entry(color=VERMILLION, label="worse")])
    return figure


def probe_quiver_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    change = (rows["both"] - rows["without"]).to_numpy()
    return (
        f"Arrows for {counted(len(rows), 'set')}. With latents to choose from the area changes by "
        f"{change.mean():+.3f} on average, upwards in {(change > 0).sum()} sets."
    )


def shifts(summary: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Areas on a set's own test rows and on a shifted set: set, test_set, series, own, shifted."""
    if summary.is_empty():
        return pl.DataFrame()
    kinds = pl.col("kind").is_in(["activations", "latents"])
    full = summary.filter(kinds, regime="full").drop_nulls("auc")
    keys = ["set", "kind", "of", "method", "k"]
    own = full.filter(test_set="").select(*keys, own="auc")
    far = full.filter(pl.col("test_set") != "").join(own, on=keys)
    named = far.with_columns(
        series=pl.struct("kind", "of", "method", "k").map_elements(series, return_dtype=pl.String)
    )
    return named.select("set", "test_set", "kind", "series", "own", shifted="auc")


@styled
def probe_shift(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A panel per shifted set, a point per method: its own test rows against the shifted ones."""
    if rows.is_empty():
        return no_data(settings, "no set has a shifted test set")
    places = rows.select("set", "test_set").unique(maintain_order=True).rows()
    figure, axes = panels(len(places), settings, 2.3)
    for (name, test_set), panel in zip(places, axes, strict=True):
        part = rows.filter(set=name, test_set=test_set)
        for kind, colour in (("activations", VERMILLION), ("latents", BLUE)):
            points = part.filter(kind=kind)
            panel.plot(points["own"], points["shifted"], "o", color=colour, alpha=0.8)
        panel.axline((0.75, 0.75), slope=1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        panel.set_title(words(f"{name}: {test_set}"))
        panel.set_xlabel("area on its own test rows")
        panel.set_ylabel("area on the shifted set")
    dots: dict[str, Any] = {"linestyle": "", "marker": "o"}
    kinds = {"on activations": VERMILLION, "on latents": BLUE}
    legend(figure, [legend_entry(color=colour, label=k, **dots) for k, colour in kinds.items()])
    return figure


def probe_shift_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no set has a shifted test set."
    means = rows.group_by("kind", maintain_order=True).agg(
        pl.col("own").mean(), pl.col("shifted").mean()
    )
    parts = [f"{r['kind']} from {r['own']:.2f} to {r['shifted']:.2f}" for r in means.to_dicts()]
    return f"Scatter of areas on shifted sets against own test rows. Means: {'; '.join(parts)}."


FIGURES = (
    Figure(
        name="probes_by_k",
        tables=("probing/summary.parquet",),
        rows=by_k,
        draw=probes_by_k,
        alt=probes_by_k_alt,
        title="How many latents tell as much as the activation",
        caption="The area under the ROC curve on test rows, the mean over sets. Latents are ranked "
        "inside the training folds. A line of latents that is no higher than that of random "
        "latents says that any directions would do; the horizontal line sees the whole activation.",
        section="probing",
    ),
    Figure(
        name="probes_by_regime",
        tables=("probing/summary.parquet",),
        rows=by_regime,
        draw=probes_by_regime,
        alt=probes_by_regime_alt,
        title="Few rows, unequal classes, wrong labels",
        caption="Training rows change, tests do not. Of scarcity, means are over the sets that are "
        "large enough.",
        section="probing",
    ),
    Figure(
        name="probe_quiver",
        tables=("probing/quiver.parquet",),
        rows=arrows,
        draw=probe_quiver,
        alt=probe_quiver_alt,
        title="Whether latents in the quiver help",
        caption="For each set and seed validation chooses a method. An arrow leads from the mean "
        "area of the choice among probes on activations to that of the choice among all probes.",
        section="probing",
    ),
    Figure(
        name="probe_shift",
        tables=("probing/summary.parquet",),
        rows=shifts,
        draw=probe_shift,
        alt=probe_shift_alt,
        title="Shifted test sets",
        caption="Every point is a method, fitted to all training rows of the set. Below the line "
        "it tells less of the shifted set.",
        section="probing",
    ),
)
