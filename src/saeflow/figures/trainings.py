"""Figures of what was trained: the model's loss, the SAE's curves, the planted features it
recovers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import polars as pl
from polars import selectors

from saeflow.config.locations import fetched
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import (
    TOLD_APART,
    canvas,
    legend,
    legend_entry,
    no_data,
    panels,
    strokes,
    styled,
    words,
)
from saeflow.palette import BLUE, INK, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.lines import Line2D

DEFAULT = Figures()
NOT_TRAINED = "nothing was trained here"


def with_entropy(
    training: pl.DataFrame, metrics: pl.DataFrame, settings: Figures = DEFAULT
) -> pl.DataFrame:
    """The training curve of a model, with the entropy of its corpus where that is known."""
    curve = training.drop("model", strict=False)
    if curve.is_empty() or "entropy" not in metrics.columns:
        return curve
    return curve.with_columns(entropy=pl.lit(metrics["entropy"][0]))


@styled
def model_training(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Loss of the language model while it trains, with the entropy of the corpus where that is
    known.

    Args:
        rows: from ``with_entropy``: tokens, loss; entropy, in nats per token, the same on every
            row.
    """
    if rows.is_empty():
        return no_data(settings, NOT_TRAINED)
    figure, (panel,) = panels(1, settings, height=2.6, columns=1)
    line = rows.drop_nulls("loss").sort("tokens")
    panel.plot(line["tokens"] / 1e6, line["loss"], color=BLUE, label="loss")
    if (entropy := _entropy(rows)) is not None:
        label = f"entropy of the corpus, {entropy:.3f}: no model can do better"
        panel.axhline(entropy, color=VERMILLION, linestyle=(0, (5, 3)), label=label)
    panel.set(xlabel="million tokens", ylabel="loss, nats per token")
    panel.legend()
    return figure


def model_training_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_TRAINED}."
    line, entropy = rows.drop_nulls("loss").sort("tokens"), _entropy(rows)
    bound = "" if entropy is None else f" The entropy of the corpus is {entropy:.3f}."
    ends = f"from {line['loss'][0]:.3f} to {line['loss'][-1]:.3f}"
    return f"Line chart of the loss while the model trains, {ends} nats per token.{bound}"


def sae_curves(training: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Training curves of SAEs, with the explained variance for the share that is left
    unexplained."""
    return (
        training
        if training.is_empty()
        else training.with_columns(explained_variance=1 - pl.col("error"))
    )


@styled
def sae_training(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Explained variance and L0 while SAEs train, a line per SAE; of very many, the legend names
    the first, the middle and the last, and the others are shaded between them.

    Args:
        rows: from ``sae_curves``: sae, tokens, explained_variance, l0.
    """
    if rows.is_empty():
        return no_data(settings, NOT_TRAINED)
    figure, (left, right) = panels(2, settings, height=2.6, share_y=False)
    names = rows["sae"].unique(maintain_order=True).to_list()
    looks = strokes(len(names))
    for name, look in zip(names, looks, strict=True):
        line = rows.filter(pl.col("sae") == name).sort("tokens")
        for panel, column in ((left, "explained_variance"), (right, "l0")):
            kept = line.drop_nulls(column)
            panel.plot(
                kept["tokens"] / 1e6,
                kept[column],
                color=look.color,
                linestyle=look.linestyle,
                label=name,
            )
    left.set(title="explained variance", xlabel="million activations", ylim=(None, 1.0))
    right.set(title="L0: active latents", xlabel="million activations", ylim=(0, None))
    if len(names) > 1:
        shown = (
            range(len(names)) if len(names) <= TOLD_APART else (0, len(names) // 2, len(names) - 1)
        )
        handles = [
            legend_entry(color=looks[i].color, linestyle=looks[i].linestyle, label=names[i])
            for i in shown
        ]
        legend(figure, handles)
    return figure


def sae_training_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOT_TRAINED}."
    lines = []
    for name in rows["sae"].unique(maintain_order=True):
        line = (
            rows.filter(pl.col("sae") == name)
            .drop_nulls(["explained_variance", "l0"])
            .sort("tokens")
        )
        last = line.select("explained_variance", "l0").tail(1)
        lines += [f"{name}: explained variance {v:.3f}, L0 {l0:.1f}" for v, l0 in last.iter_rows()]
    ends = "; ".join(lines)
    return f"Line charts of explained variance and L0 while SAEs train. At the end: {ends}."


def recovered(recovery: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Planted features without their lists of latents; where there are several SAEs, one is named
    with its SAE."""
    recovery = recovery.select(~selectors.nested())  # a CSV holds no lists
    if recovery.is_empty() or recovery["sae"].n_unique() == 1:
        return recovery
    return recovery.with_columns(feature=pl.format("{} ({})", "feature", "sae"))


@styled
def sae_recovery(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """How well the SAE finds each planted feature: largest cosine and largest F1 of a latent,
    topics and syntax apart.

    Args:
        rows: from ``recovered``: label, feature, cosine, f1; one row per planted feature.
    """
    labels = _labels(rows)
    if not labels:
        return no_data(settings, "no planted feature is known")
    most = max(rows["label"].value_counts()["count"])
    figure = canvas(settings.width, 1.0 + 0.21 * most, settings)
    axes = figure.subplots(1, len(labels), squeeze=False)[0]
    for label, panel in zip(labels, axes, strict=True):
        _features(
            panel, rows.filter(pl.col("label") == label).sort("f1", "feature", nulls_last=True)
        )
        panel.set_title(words(label))
    f1 = _dot("F1 of the best detector", VERMILLION, "D")
    legend(figure, [f1, _dot("cosine of the closest decoder row", BLUE, "o")])
    return figure


def sae_recovery_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    lines = []
    for label in _labels(rows):
        own = rows.filter(pl.col("label") == label)
        cosine, f1 = own.select(pl.mean("cosine", "f1")).row(0)
        lines.append(f"{label} ({len(own)}): mean cosine {cosine:.2f}, mean F1 {f1:.2f}")
    if not lines:
        return "No data: no planted feature is known."
    return (
        "Dot charts of the largest cosine and the largest F1 of a latent, for each planted "
        f"feature. {'; '.join(lines)}."
    )


def _features(panel: Axes, rows: pl.DataFrame) -> None:
    """Two dots per feature joined by a line, the best on top."""
    y = range(len(rows))
    for at, row in zip(y, rows.to_dicts(), strict=True):
        values = [row[name] for name in ("cosine", "f1") if row[name] is not None]
        panel.plot(values, [at] * len(values), color="#C8C8C8", linewidth=1.2, zorder=1.5)
    panel.plot(rows["cosine"], y, "o", color=BLUE, markersize=5)
    panel.plot(rows["f1"], y, "D", color=VERMILLION, markersize=4.2)
    panel.set_yticks(y, [words(feature) for feature in rows["feature"]])
    panel.tick_params(axis="y", length=0, labelcolor=INK)
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(rows) - 0.3))


def _dot(label: str, colour: str, marker: str) -> Line2D:
    return legend_entry(linestyle="", color=colour, marker=marker, markersize=5, label=label)


def _labels(rows: pl.DataFrame) -> list[str]:
    present = set(rows["label"]) if "label" in rows.columns else set()
    return [label for label in ("topic", "syntax") if label in present] + sorted(
        present - {"topic", "syntax"}
    )


def _entropy(rows: pl.DataFrame) -> float | None:
    return rows["entropy"][0] if "entropy" in rows.columns else None


def _model_is_trained(study: Any) -> bool:
    folder = f"models/{study.model.name}"
    return study.model.train is not None and not fetched(study, folder, os.path.exists)


def _trained_saes(study: Any) -> dict[str, list[str]]:
    trained = [
        name
        for name, sae in study.saes.items()
        if sae.train and not fetched(study, f"saes/{name}/cfg.json", os.path.exists)
    ]
    return {"sae": trained}


def _with_planted_features(study: Any) -> dict[str, list[str]]:
    plants = study.corpus.kind == "tales"
    return {"sae": study.saes_of("sae", "transcoder") if plants else []}


SAE_TRAINING = Figure(
    name="sae_training",
    tables=("saes/{sae}/training.parquet",),
    rows=sae_curves,
    draw=sae_training,
    alt=sae_training_alt,
    title="How the SAE trained",
    caption="Explained variance: the share of the variance of activations that the SAE "
    "reproduces; 1 is perfect. L0: how many latents it uses at a time to do so.",
    section="saes",
    names=_trained_saes,
)

FIGURES = (
    SAE_TRAINING,
    Figure(
        name="sae_recovery",
        tables=("saes/{sae}/recovery.parquet",),
        rows=recovered,
        draw=sae_recovery,
        alt=sae_recovery_alt,
        title="Does the SAE find what was planted",
        caption="The corpus tells for every token its topic and its place in the syntax. For each "
        "such feature: the F1 of the latent that detects it best, and the cosine of the decoder "
        "row that is closest to the direction of the feature in the activations.",
        section="saes",
        names=_with_planted_features,
    ),
    Figure(
        name="model_training",
        tables=(
            "models/{model}/training.parquet",
            "models/{model}.metrics.json",
        ),
        rows=with_entropy,
        draw=model_training,
        alt=model_training_alt,
        title="How the language model trained",
        caption="Loss per token while the model trains. Where the corpus is written by a grammar "
        "its entropy is known: the loss of a predictor that knows the grammar, which nothing can "
        "beat.",
        section="model",
        drawn=_model_is_trained,
    ),
)
