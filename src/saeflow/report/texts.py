"""Sample texts of every goal, method and scale: always the first ones, never picked by hand."""

from __future__ import annotations

from typing import Any

import polars as pl

from saeflow.figures.tables import goals, methods

SAMPLES = 3
CRITERIA = ("behaviour", "coherence")


def first_samples(completions: pl.DataFrame, count: int = SAMPLES) -> pl.DataFrame:
    """The first completions of every goal, method and scale, one of each prompt before a second of any.

    Args:
        completions: goal, method, scale_index, prompt, sample, …
    """
    keys = ["goal", "method", "scale_index"]
    return completions.sort("sample", maintain_order=True).group_by(keys, maintain_order=True).head(count)


def sample_texts(samples: pl.DataFrame, scores: pl.DataFrame, summary: pl.DataFrame) -> dict[str, Any]:
    """What the page shows of completions, as plain lists.

    Args:
        samples: from ``first_samples``.
        scores: completion_id, criterion, score.
        summary: tells which scale was chosen, and the means of each scale.

    Returns:
        ``{"goals": [{"goal", "methods": [{"method", "scales": [{"scale", "chosen", "behaviour", "coherence", "texts":
        [{"prompt", "text", "behaviour", "coherence"}]}]}]}]}``; means and scores are null where they are missing.
    """
    if samples.is_empty():
        return {"goals": []}
    scored = _scored(samples, scores)
    means = _means(summary)
    found = []
    for goal in goals(samples):
        of_goal = scored.filter(pl.col("goal") == goal)
        steered = [
            {"method": method, "scales": _scales(of_goal.filter(pl.col("method") == method), means)}
            for method in methods(of_goal)
        ]
        found.append({"goal": goal, "methods": steered})
    return {"goals": found}


def _scored(samples: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """The samples with a column per criterion."""
    for criterion in CRITERIA:
        if scores.is_empty():
            samples = samples.with_columns(pl.lit(None, pl.Float64).alias(criterion))
        else:
            own = scores.filter(pl.col("criterion") == criterion).select(
                "completion_id", pl.col("score").alias(criterion)
            )
            samples = samples.join(own, on="completion_id", how="left", maintain_order="left")
    return samples


def _means(summary: pl.DataFrame) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Means over all completions of a scale, and whether it was chosen, by goal, method and scale."""
    if summary.is_empty():
        return {}
    rows = summary.filter(pl.col("split") == "all").to_dicts()
    return {(row["goal"], row["method"], row["scale_index"]): row for row in rows}


def _scales(samples: pl.DataFrame, means: dict[tuple[str, str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    scales = []
    for index in samples["scale_index"].unique().sort():
        own = samples.filter(pl.col("scale_index") == index)
        mean = means.get((own["goal"][0], own["method"][0], index), {})
        scales.append(
            {
                "scale": own["scale"][0],
                "chosen": bool(mean.get("selected", False)),
                **{criterion: mean.get(criterion) for criterion in CRITERIA},
                "texts": own.select("prompt", "text", *CRITERIA).to_dicts(),
            }
        )
    return scales
