"""All labels of an SAE beside each other, with their scores, and what the scores come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from saeflow.analyses.labels.scoring import SCORES
from saeflow.analyses.labels.settings import LabelScores
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import Resampling, columns
from saeflow.tables import Schema

OF_LABELS = ("detection", "fuzzing", "simulation", "generation", "dreams")
"""Scores of single labels."""
PARTS = {"": "value", "_low": "low", "_high": "high", "_random": "random"}
TABLE: Schema = {
    "sae": pl.String,
    "latent": pl.Int32,
    "source": pl.String,
    "text": pl.String,
    "doubtful": pl.Boolean,
    **{f"{score}{part}": pl.Float64 for score in OF_LABELS for part in PARTS},
    "provenance": pl.String,
}
_MEANS = ("value", "over_random", "over_tokens")
SUMMARY: Schema = {
    "sae": pl.String,
    "source": pl.String,
    "score": pl.String,
    "latents": pl.Int32,
    "random": pl.Float64,
    **{f"{mean}{end}": pl.Float64 for mean in _MEANS for end in ("", "_low", "_high")},
    "believed": pl.Float64,
    "missing": pl.Int32,
}
"""Means over latents. ``believed``: the share of them whose score is beyond that of a random
latent's label, interval and all."""


def label_table(
    sae: str, labels: Sequence[pl.DataFrame], scores: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Labels of all sources, latent by latent, in the order of the sources.

    Args:
        sae: whose latents they are of.
        labels: one table per source.
        scores: of labels, with the columns of `SCORES`, where they were scored.

    Returns:
        The columns of `TABLE`. A label is doubtful where no score has raised it beyond that of a
        random latent's label, by its interval.
    """
    every = pl.concat(labels).with_columns(sae=pl.lit(sae))
    score_rows = pl.DataFrame(schema=SCORES) if scores is None else scores
    for score in OF_LABELS:
        own = score_rows.filter(score=score).select(
            "latent", "source", *(pl.col(of).alias(f"{score}{to}") for to, of in PARTS.items())
        )
        every = every.join(own, on=["latent", "source"], how="left", maintain_order="left")
    beyond = score_rows.filter(pl.col("over_random_low") > 0, pl.col("source") != "")
    believed = beyond.select("latent", "source").unique().with_columns(doubtful=pl.lit(False))
    every = every.join(believed, on=["latent", "source"], how="left", maintain_order="left")
    return (
        every.with_columns(pl.col("doubtful").fill_null(True))
        .select(pl.col(name).cast(kind) for name, kind in TABLE.items())
        .sort("latent", maintain_order=True)
    )


def summary_table(sae: str, scores: pl.DataFrame, settings: LabelScores, seed: int) -> pl.DataFrame:
    """Means of scores over latents by source, with intervals; the columns of `SUMMARY`."""
    rows = []
    groups = scores.partition_by("score", "source", as_dict=True, maintain_order=True)
    for (score, source), own in groups.items():
        table = own.drop_nulls("value")
        if table.is_empty():
            continue
        generator = numpy_generator(seed, "labels", "summary", sae, str(score), str(source))
        resampled = Resampling(
            table["latent"].to_numpy(), settings.bootstrap, settings.level, generator
        )
        row: dict[str, object] = {"sae": sae, "source": source, "score": score}
        for mean in _MEANS:
            values = table[mean].fill_null(np.nan).to_numpy()
            lowest = -1.0 if score == "simulation" else 0.0
            bounds = (lowest, 1.0) if mean == "value" else (lowest - 1, 1 - lowest)
            row |= columns(mean, resampled.mean(values, bounds))
        believed = (table["over_random_low"].fill_null(-1.0) > 0).mean()
        row |= {"latents": len(table), "random": table["random"].mean(), "believed": believed}
        rows.append(row | {"missing": int(own["missing"].sum())})
    return pl.DataFrame(rows, schema=SUMMARY)
