"""Sample texts of every method and scale of a goal: always the first ones, never picked by hand."""

from __future__ import annotations

from typing import Any

import polars as pl

SAMPLES = 8
CRITERIA = ("behaviour", "coherence")


def first_samples(completions: pl.DataFrame, count: int = SAMPLES) -> pl.DataFrame:
    """The first completions of every goal, method and scale, one of each prompt before a second of
    any.

    Args:
        completions: goal, method, scale_index, prompt, sample, …
    """
    keys = ["goal", "method", "scale_index"]
    return (
        completions.sort("sample", maintain_order=True)
        .group_by(keys, maintain_order=True)
        .head(count)
    )


def sample_texts(
    samples: pl.DataFrame, scores: pl.DataFrame
) -> dict[str, dict[str, list[list[Any]]]]:
    """What a goal's page shows of its completions.

    Args:
        samples: from ``first_samples``.
        scores: completion_id, criterion, score, reason.

    Returns:
        By method and scale index: rows of prompt, text, behaviour, coherence; a score is null where
        it is missing, and then the reason stands in a fifth place.
    """
    by_method: dict[str, dict[str, list[list[Any]]]] = {}
    if samples.is_empty():
        return by_method
    for row in (
        _scored(samples, scores).sort("method", "scale_index", maintain_order=True).to_dicts()
    ):
        texts = by_method.setdefault(row["method"], {}).setdefault(str(row["scale_index"]), [])
        missing = [row["reason"]] if row["reason"] else []
        texts.append(
            [
                row["prompt"],
                row["text"],
                *(_short(row[criterion]) for criterion in CRITERIA),
                *missing,
            ]
        )
    return by_method


def _short(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _scored(samples: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """The samples with a column per criterion, and the reason of one that is missing."""
    if scores.is_empty():
        return samples.with_columns(
            *(pl.lit(None, pl.Float64).alias(criterion) for criterion in CRITERIA),
            reason=pl.lit(None, pl.String),
        )
    for criterion in CRITERIA:
        own = scores.filter(pl.col("criterion") == criterion).select(
            "completion_id", pl.col("score").alias(criterion)
        )
        samples = samples.join(own, on="completion_id", how="left", maintain_order="left")
    missing = (
        scores.filter(pl.col("score").is_null())
        .group_by("completion_id")
        .agg(pl.col("reason").first())
    )
    return samples.drop("reason", strict=False).join(
        missing, on="completion_id", how="left", maintain_order="left"
    )
