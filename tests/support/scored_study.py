"""Completions and scores of a study that never ran, drawn as a test says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from saeflow.judging.scores import SCORES_SCHEMA

Draw = Callable[[np.random.Generator, int, int], float]


def scored_study(
    goals: int = 2,
    methods: int = 2,
    scales: int = 3,
    samples: int = 16,
    prompts: tuple[str, ...] = ("I think",),
    lost: float = 0.0,
    draw: Draw = lambda rng, _method, _scale: float(rng.random()),
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Completions and their scores, of which a share is lost at random in each criterion."""
    rng = np.random.default_rng(0)
    completions, scores = [], []
    for goal in range(goals):
        for method in range(methods):
            for scale in range(scales):
                for prompt in prompts:
                    for sample in range(samples):
                        name = f"{goal}/{method}/{scale}/{prompt}/{sample}"
                        completions.append(
                            (
                                f"goal{goal}",
                                f"method{method}",
                                scale * 0.5,
                                scale,
                                prompt,
                                sample,
                                name,
                            )
                        )
                        for criterion in ("behaviour", "coherence"):
                            score, gone = draw(rng, method, scale), rng.random() < lost
                            scores.append(
                                (
                                    name,
                                    criterion,
                                    None if gone else score,
                                    "timeout" if gone else None,
                                )
                            )
    return (
        pl.DataFrame(
            completions,
            schema=["goal", "method", "scale", "scale_index", "prompt", "sample", "completion_id"],
            orient="row",
        ),
        pl.DataFrame(
            scores,
            schema={
                name: SCORES_SCHEMA[name]
                for name in ("completion_id", "criterion", "score", "reason")
            },
            orient="row",
        ),
    )
