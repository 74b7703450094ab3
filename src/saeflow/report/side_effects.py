"""Tables of what steering does to latents: to those it aims at, and to all others."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from saeflow.figures.tables import goals, methods

SHOWN = 5


class MethodEffect(NamedTuple):
    """What a method does to latents, averaged over goals."""

    method: str
    target: float
    """Measured change of the target latents, weighted."""
    predicted: float
    """Predicted change of the same."""
    others: float
    """Summed size of the measured changes of all other latents."""


class LatentEffect(NamedTuple):
    """One latent that a method moves."""

    method: str
    latent: int
    target: bool
    predicted: float
    measured: float


def method_effects(side_effects: pl.DataFrame, targets: dict[str, dict[int, float]]) -> list[MethodEffect]:
    """Per method, the change of the target latents and of all others; goals without known targets are left out."""
    if side_effects.is_empty() or not targets:
        return []
    known = [{"goal": g, "latent": i, "weight": float(w)} for g, weights in targets.items() for i, w in weights.items()]
    aimed = pl.DataFrame(known, schema={"goal": pl.String, "latent": pl.Int64, "weight": pl.Float64})
    rows = side_effects.filter(pl.col("goal").is_in(list(targets))).join(aimed, on=["goal", "latent"], how="left")
    weight = pl.col("weight").fill_null(0.0)
    of_goal = rows.group_by("method", "goal").agg(
        target=(weight * pl.col("measured")).sum() / weight.abs().sum(),
        predicted=(weight * pl.col("predicted")).sum() / weight.abs().sum(),
        others=pl.col("measured").abs().filter(pl.col("weight").is_null()).sum(),
    )
    means = {row["method"]: row for row in of_goal.drop("goal").group_by("method").mean().to_dicts()}
    return [
        MethodEffect(method, row["target"], row["predicted"], row["others"])
        for method in methods(rows)
        if (row := means[method])["target"] is not None
    ]


def goal_effects(side_effects: pl.DataFrame, targets: dict[str, dict[int, float]]) -> dict[str, list[LatentEffect]]:
    """By goal, the latents that each method moves most, and its targets."""
    found = {}
    for goal in goals(side_effects):
        of_goal = side_effects.filter(pl.col("goal") == goal).drop_nulls(["predicted", "measured"])
        aimed = set(targets.get(goal, {}))
        found[goal] = [
            LatentEffect(method, row["latent"], row["latent"] in aimed, row["predicted"], row["measured"])
            for method in methods(of_goal)
            for row in _strongest(of_goal.filter(pl.col("method") == method), aimed)
        ]
    return found


def _strongest(rows: pl.DataFrame, aimed: set[int]) -> list[dict[str, Any]]:
    """Targets first, then the others by the size of their measured change."""
    ranked = rows.sort(pl.col("measured").abs(), descending=True)
    hit = pl.col("latent").is_in(sorted(aimed))
    return [*ranked.filter(hit).to_dicts(), *ranked.filter(~hit).head(SHOWN).to_dicts()]
