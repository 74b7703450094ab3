"""Figures of compared models: predictions, weights, classes of latents, what they cause."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled, words
from saeflow.palette import BLUE, BROWN, GREY, INK, ORANGE, PURPLE, SERIES, SKY, TEAL, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
CLASSES = {
    "shared": GREY,
    "leaning": SKY,
    "base_only": BLUE,
    "tuned_only": VERMILLION,
    "shrunk": ORANGE,
    "decoupled": PURPLE,
    "elsewhere": BROWN,
    "difference": TEAL,
    "dead": INK,
}
"""Classes of latents with their colours."""
BINS = np.linspace(0, 1, 31)
LEVELS = {
    "latents": ("all latents", INK),
    "error": ("error of the crosscoder", BROWN),
    "mean_difference": ("mean difference", TEAL),
}
"""What curves of latents are held against."""
KEYS = ["sae", "model"]
SCATTERED = 8
"""Latents of each SAE that are drawn model against model."""


def _panels_of(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Rows by SAE and model, with the title of each."""
    parts = rows.group_by(KEYS, maintain_order=True)
    return [(f"{words(str(model))}, {words(str(sae))}", own) for (sae, model), own in parts]


def of_norms(latents: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Latents by the share of the compared model in their norms: sae, model, class, low, high,
    count."""
    if latents.is_empty():
        return pl.DataFrame()
    alive = latents.filter(pl.col("class") != "dead").drop_nulls("relative_norm")
    rows: list[tuple[object, ...]] = []
    for key, own in alive.group_by([*KEYS, "class"], maintain_order=True):
        counts, _ = np.histogram(own["relative_norm"].to_numpy(), BINS)
        rows += [(*key, *bin_) for bin_ in zip(BINS[:-1], BINS[1:], counts.tolist(), strict=True)]
    columns = [*KEYS, "class", "low", "high", "count"]
    return pl.DataFrame(rows, schema=columns, orient="row")


@styled
def diffing_norms(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A histogram of relative norms, classes stacked."""
    if rows.is_empty():
        return no_data(settings, "no latent fires")
    shown = _panels_of(rows)
    titles = [title for title, _ in shown]
    drawing, axes = panels(len(shown), settings, 2.3, share_y=False, titles=titles)
    for panel, (title, own) in zip(axes, shown, strict=True):
        below = np.zeros(len(BINS) - 1)
        for name, colour in CLASSES.items():
            counts = own.filter(pl.col("class") == name)["count"].to_numpy()
            if len(counts):
                panel.bar(BINS[:-1], counts, np.diff(BINS), below, align="edge", color=colour)
                below = below + counts
        panel.set_title(title)
        panel.set_yscale("symlog", linthresh=10)
        panel.set_ylabel("latents")
    drawing.supxlabel("share of the compared model in a latent's norms", fontsize=9)
    there = set(rows["class"])
    legend(
        drawing,
        [
            legend_entry(color=colour, linewidth=6, label=words(name))
            for name, colour in CLASSES.items()
            if name in there
        ],
    )
    return drawing


def diffing_norms_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no latent of a crosscoder fires on the text."
    counts = rows.group_by("class", maintain_order=True).agg(pl.col("count").sum())
    by_class = ", ".join(f"{row['count']} {words(row['class'])}" for row in counts.to_dicts())
    return f"Histograms of the compared model's share of latents' norms, by class: {by_class}."


def of_causes(causal: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """What is recovered by sets of latents and by what they are held against: sae, model, kind,
    name, number, recovered, recovered_low, recovered_high."""
    if causal.is_empty():
        return pl.DataFrame()
    kinds = ["class", "largest", "random", *LEVELS]
    on_text = causal.filter(pl.col("of").is_null())
    shown = on_text.filter(pl.col("kind").is_in(kinds)).drop_nulls("recovered")
    columns = ["kind", "name", "number", "recovered", "recovered_low", "recovered_high"]
    return shown.select(*KEYS, *columns).sort(
        *KEYS, "kind", "name", "number", maintain_order=True, nulls_last=True
    )


@styled
def diffing_causes(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Recovered divergence: a curve by number of latents, and a bar per class."""
    if rows.is_empty():
        return no_data(settings, "nothing was put in")
    shown = _panels_of(rows)
    drawing, axes = panels(2 * len(shown), settings, 2.5, False, False, columns=2)
    for number, (title, own) in enumerate(shown):
        curve, bars = axes[2 * number : 2 * number + 2]
        _curve(curve, own.filter(kind="largest"), VERMILLION)
        _curve(curve, own.filter(pl.col("name").is_null(), kind="random"), GREY)
        for kind, (_, colour) in LEVELS.items():
            for value in own.filter(kind=kind)["recovered"]:
                curve.axhline(value, color=colour, linestyle=(0, (4, 3)), linewidth=1)
        curve.set_xscale("log", base=2)
        curve.set_xlabel("latents that contribute most")
        curve.set_ylabel("share of the KL recovered")
        curve.set_title(title)
        _bars(bars, own)
    entries = [
        legend_entry(color=VERMILLION, label="latents"),
        legend_entry(color=GREY, label="random directions, as long and as often"),
    ]
    entries += [
        legend_entry(color=colour, linestyle=(0, (4, 3)), label=name)
        for name, colour in LEVELS.values()
    ]
    legend(drawing, entries)
    return drawing


def _curve(panel: Axes, rows: pl.DataFrame, colour: str) -> None:
    at = rows["number"].to_numpy()
    panel.plot(at, rows["recovered"].to_numpy(), color=colour, marker="o")
    ends = rows["recovered_low"].to_numpy(), rows["recovered_high"].to_numpy()
    panel.fill_between(at, *ends, color=colour, alpha=0.18, linewidth=0)


def _bars(panel: Axes, own: pl.DataFrame) -> None:
    names = own.filter(kind="class")["name"].to_list()
    for place, name in enumerate(names):
        for kind, shift, colour in (("class", 0.12, CLASSES[name]), ("random", -0.12, GREY)):
            for row in own.filter(kind=kind, name=name).iter_rows(named=True):
                ends = [row["recovered_low"], row["recovered_high"]]
                panel.plot(ends, [place + shift] * 2, color=colour)
                panel.plot(row["recovered"], place + shift, "o", color=colour)
    numbers = dict(own.filter(kind="class").select("name", "number").iter_rows())
    panel.set_yticks(range(len(names)), [f"{words(name)} ({numbers[name]})" for name in names])
    panel.set_ylim(-0.6, len(names) - 0.4)
    panel.axvline(0, color=GREY, linewidth=0.8)
    panel.set_xlabel("share of the KL recovered")


def diffing_causes_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no contribution of a latent was put into a model."
    by_set = "; ".join(
        f"{row['number']} {words(row['name'])} of {row['sae']}: {row['recovered']:.2f}"
        for row in rows.filter(kind="class").iter_rows(named=True)
    )
    return f"Shares of the divergence that latents recover, with intervals. By class {by_set}."


def of_prompts(causal: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """What is recovered where answers begin: sae, model, of, kind, number, recovered,
    recovered_low, recovered_high."""
    if causal.is_empty():
        return pl.DataFrame()
    own = causal.filter(pl.col("of").is_not_null(), pl.col("name").is_null())
    # positions are in the order of the text, and answers begin behind the last
    here = own.filter(pl.col("position") == pl.col("position").last().over(KEYS))
    shown = here.filter(pl.col("kind").is_in(["largest", "random"])).drop_nulls("recovered")
    columns = ["of", "kind", "number", "recovered", "recovered_low", "recovered_high"]
    return shown.select(*KEYS, *columns)


@styled
def diffing_prompts(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A panel per SAE: what is recovered by number of latents, a curve per class of prompts."""
    if rows.is_empty():
        return no_data(settings, "nothing was put in on prompts")
    shown, classes = _panels_of(rows), rows["of"].unique(maintain_order=True).to_list()
    titles = [title for title, _ in shown]
    drawing, axes = panels(len(shown), settings, 2.3, share_y=False, titles=titles)
    colours = dict(zip(classes, cycle(SERIES), strict=False))
    for panel, (title, own) in zip(axes, shown, strict=True):
        for label in classes:
            of = own.filter(of=label)
            _curve(panel, of.filter(kind="largest"), colours[label])
            random = of.filter(kind="random")
            panel.plot(random["number"], random["recovered"], ":", color=colours[label])
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_title(title)
        panel.set_ylabel("share of the KL recovered")
    drawing.supxlabel("latents that contribute most", fontsize=9)
    entries = [legend_entry(color=colours[label], label=words(label)) for label in classes]
    random_entry = legend_entry(color=INK, linestyle=":", label="random directions")
    legend(drawing, [*entries, random_entry])
    return drawing


def diffing_prompts_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no contribution of a latent was put into a model on prompts."
    most = rows.filter(pl.col("number") == pl.col("number").max().over(KEYS), kind="largest")
    by_class = "; ".join(
        f"{row['number']} of {row['sae']} on {row['of']}: {row['recovered']:.2f}"
        for row in most.to_dicts()
    )
    return f"Shares of the divergence that latents recover where answers begin: {by_class}."


def of_scatter(scatter: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """What the first `SCATTERED` latents of each SAE would be in either model: sae, model, latent,
    activation_base, activation_tuned."""
    if scatter.is_empty():
        return pl.DataFrame()
    first = scatter.select(*KEYS, "latent").unique(maintain_order=True)
    first = first.group_by(KEYS, maintain_order=True).head(SCATTERED)
    columns = [*KEYS, "latent", "activation_base", "activation_tuned"]
    return first.join(scatter, on=[*KEYS, "latent"], maintain_order="left").select(columns)


@styled
def diffing_scatter(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A panel per latent, a point per token."""
    if rows.is_empty():
        return no_data(settings, "no latent of a crosscoder fires")
    parts = list(rows.group_by([*KEYS, "latent"], maintain_order=True))
    drawing, axes = panels(len(parts), settings, 1.9, False, False, columns=4)
    for panel, ((sae, _, latent), own) in zip(axes, parts, strict=True):
        base, tuned = (own[f"activation_{side}"].to_numpy() for side in ("base", "tuned"))
        most = max(base.max(), tuned.max(), np.finfo(float).tiny)
        panel.plot([0, most], [0, most], color=GREY, linewidth=0.8)
        panel.plot(base, tuned, "o", color=VERMILLION, markersize=2.5, alpha=0.5)
        panel.set_title(f"{words(str(sae))}, {latent}")
        panel.set_xlabel("in the base")
        panel.set_ylabel("in the compared model")
    return drawing


def diffing_scatter_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no latent of a crosscoder fires on the text."
    above = pl.col("activation_tuned") > pl.col("activation_base")
    shares = rows.group_by([*KEYS, "latent"], maintain_order=True).agg(above.mean().alias("share"))
    by_latent = "; ".join(
        f"{row['latent']} of {row['sae']} on {100 * row['share']:.0f} %"
        for row in shares.to_dicts()
    )
    return (
        "Scatter plots of latents, the base's activations against the compared model's. The share "
        f"of tokens where the latter are larger: {by_latent}."
    )


def of_weights(weights: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """How far parameters of layers moved: model, module, layer, relative."""
    if weights.is_empty():
        return pl.DataFrame()
    own = weights.filter(pl.col("numbers") > 1).drop_nulls(["layer", "relative"])
    return own.select("model", "module", "layer", "relative")


@styled
def diffing_weights(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A heat map of modules and layers per model."""
    if rows.is_empty():
        return no_data(settings, "no layer has parameters of one shape in both models")
    models = rows["model"].unique(maintain_order=True).to_list()
    modules = rows["module"].unique(maintain_order=True).to_list()
    drawing, axes = panels(len(models), settings, max(2.2, 0.22 * len(modules)))
    for panel, model in zip(axes, models, strict=True):
        own = rows.filter(model=model)
        grid = np.full((len(modules), int(own["layer"].max() or 0) + 1), np.nan)  # type: ignore[arg-type]
        for row in own.iter_rows(named=True):
            grid[modules.index(row["module"]), row["layer"]] = row["relative"]
        image = panel.imshow(grid, aspect="auto", cmap="cividis", interpolation="nearest")
        panel.grid(visible=False)
        panel.set_yticks(range(len(modules)), [_short(name) for name in modules], fontsize=7.5)
        panel.set_xlabel("layer")
        panel.set_title(words(model))
        drawing.colorbar(image, ax=panel, label="norm of the difference, relative")
    return drawing


def _short(module: str) -> str:
    """The last parts of a parameter's name, which tell it from others of a layer."""
    return ".".join(module.removesuffix(".weight").split(".")[-2:])


def diffing_weights_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no layer has parameters of one shape in both models."
    most = rows.sort("relative", descending=True).row(0, named=True)
    return (
        f"Heat maps of how far parameters moved; most in layer {most['layer']} of {most['model']}, "
        f"{_short(most['module'])}: {most['relative']:.3f} of its norm."
    )


FIGURES = (
    Figure(
        name="diffing_weights",
        tables=("diffing/models/{compared_model}/weights.parquet",),
        rows=of_weights,
        draw=diffing_weights,
        alt=diffing_weights_alt,
        title="Where the weights moved",
        caption="The norm of the difference of each parameter from that of the base model, "
        "relative to the base's, by layer.",
        section="diffing",
    ),
    Figure(
        name="diffing_norms",
        tables=("diffing/saes/{diffed_sae}/latents.parquet",),
        rows=of_norms,
        draw=diffing_norms,
        alt=diffing_norms_alt,
        title="To which model latents belong",
        caption="The compared model's share of each latent's decoder norms: one half is shared, 1 "
        "is of that model alone by its norm. Colours are classes, which also ask whether the "
        "other model holds the latent all the same. Dead latents are left out.",
        section="diffing",
        drawn=lambda study: bool(_crosscoders(study)),
    ),
    Figure(
        name="diffing_causes",
        tables=("diffing/saes/{diffed_sae}/causal.parquet",),
        rows=of_causes,
        draw=diffing_causes,
        alt=diffing_causes_alt,
        title="How much of the change goes through which latents",
        caption="The compared model goes on from the base's residual stream, to which "
        "contributions of latents are added; 0 is nothing added, 1 the model's own predictions. "
        "Left, the latents that contribute most to the difference; right, all of a class, with "
        "their number. Intervals are over blocks of text.",
        section="diffing",
        drawn=lambda study: bool(_crosscoders(study)),
    ),
    Figure(
        name="diffing_prompts",
        tables=("diffing/saes/{diffed_sae}/causal.parquet",),
        rows=of_prompts,
        draw=diffing_prompts,
        alt=diffing_prompts_alt,
        title="How much of the change in answers goes through few latents",
        caption="The same where answers begin, at the last token of a prompt, by class of prompts: "
        "1 is the compared model's own prediction. Dotted, as many random directions of the same "
        "lengths, of each class in its colour. Intervals are over groups of prompts.",
        section="diffing",
        drawn=lambda study: bool(_crosscoders(study) and study.diffing.causal.prompts),
    ),
    Figure(
        name="diffing_scatter",
        tables=("diffing/saes/{diffed_sae}/scatter.parquet",),
        rows=of_scatter,
        draw=diffing_scatter,
        alt=diffing_scatter_alt,
        title="What latents are in either model",
        caption="The latents that contribute most to the difference, on tokens where they fire: "
        "what each would be if both models were the base, and if both were the compared one. On "
        "the line both hold it alike; along an axis one of them alone does.",
        section="diffing",
        drawn=lambda study: any(
            study.saes[name].kind == "crosscoder" for name in _crosscoders(study)
        ),
    ),
)


def _crosscoders(study: object) -> list[str]:
    from saeflow.analyses.diffing import crosscoders

    return crosscoders(study, study.diffing)  # type: ignore[attr-defined,arg-type]
