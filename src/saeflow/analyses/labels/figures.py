"""The figure of scores of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled
from saeflow.palette import BLUE, GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WHAT = {
    "detection": "detection, area",
    "fuzzing": "fuzzing, area",
    "simulation": "simulation, correlation",
    "generation": "generation, area",
    "dreams": "dreams told, area",
    "intruder": "intruders told, share",
}
NO_LABEL = "(no label)"


def of_scores(summary: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """Means over latents by SAE, score and source."""
    if summary.is_empty():
        return pl.DataFrame()
    summary = summary.drop_nulls(["value", "random"])
    order = {score: place for place, score in enumerate(WHAT)}
    rank = pl.col("score").replace_strict(order, default=len(order), return_dtype=pl.Int32)
    return summary.sort(rank, maintain_order=True)


@styled
def label_scores(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """A panel per score: the mean of each SAE's and source's labels, beside random ones."""
    if rows.is_empty():
        return no_data(settings, "no label was scored")
    scores = rows["score"].unique(maintain_order=True).to_list()
    drawing, axes = panels(len(scores), settings, 2.1)
    several = rows["sae"].n_unique() > 1
    for panel, score in zip(axes, scores, strict=True):
        own = rows.filter(score=score)
        places = np.arange(len(own))
        value, low, high = (own[f"value{end}"].to_numpy() for end in ("", "_low", "_high"))
        panel.hlines(places, low, high, color=BLUE)
        panel.plot(value, places, "o", color=BLUE)
        panel.plot(own["random"].to_numpy(), places, "|", color=GREY, markersize=12)
        names = [
            f"{row['source'] or NO_LABEL}, {row['sae']}" if several else row["source"] or NO_LABEL
            for row in own.to_dicts()
        ]
        panel.set_yticks(places, names)
        panel.set_ylim(len(own) - 0.5, -0.5)
        panel.set_xlim(-1 if score == "simulation" else 0, 1)
        panel.set_xlabel(WHAT.get(score, score))
    legend(
        drawing,
        [
            legend_entry(color=BLUE, marker="o", label="mean over latents"),
            legend_entry(color=GREY, marker="|", linestyle="", label="a random latent's label"),
        ],
    )
    return drawing


def label_scores_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: no label was scored."
    parts = [
        f"{row['score']} of {row['source'] or NO_LABEL} in {row['sae']} {row['value']:.2f} "
        f"(random {row['random']:.2f})"
        for row in rows.head(12).to_dicts()
    ]
    return f"Means of scores over latents: {'; '.join(parts)}."


FIGURES = (
    Figure(
        name="label_scores",
        tables=("labels/{labelled_sae}/summary.parquet",),
        rows=of_scores,
        draw=label_scores,
        alt=label_scores_alt,
        title="How far labels are to be believed",
        caption="Mean over latents with its interval, latents the units. Grey: the same passages "
        "by the label of a random latent, or what chance gives. A source whose interval reaches "
        "the grey mark says nothing of its latents.",
        section="labels",
        drawn=lambda study: bool(study.labels and study.labels.scores.kinds),
    ),
)
