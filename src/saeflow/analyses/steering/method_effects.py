"""What steering does to latents: to those it aims at, and to all others."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.steering.tables import methods

SHOWN = 100
"""Latents of each method that a goal's page shows, besides its targets."""


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

    latent: int
    target: bool
    predicted: float
    measured: float


def goal_means(side_effects: pl.DataFrame, targets: dict[int, float]) -> pl.DataFrame:
    """Per method, the change of one goal's targets and of all other latents.

    Args:
        side_effects: method, latent, predicted, measured of one goal.
        targets: latents with their weights; without any there is nothing to tell.

    Returns:
        method, target, predicted, others.
    """
    if side_effects.is_empty() or not targets:
        return pl.DataFrame()
    aimed = pl.DataFrame(
        {"latent": list(targets), "weight": list(targets.values())},
        schema={"latent": pl.Int64, "weight": pl.Float64},
    )
    rows = side_effects.cast({"latent": pl.Int64}).join(aimed, on="latent", how="left")
    weight = pl.col("weight").fill_null(0.0)
    return rows.group_by("method").agg(
        target=(weight * pl.col("measured")).sum() / weight.abs().sum(),
        predicted=(weight * pl.col("predicted")).sum() / weight.abs().sum(),
        others=pl.col("measured").abs().filter(pl.col("weight").is_null()).sum(),
    )


def method_effects(of_goals: list[pl.DataFrame]) -> list[MethodEffect]:
    """The averages over goals of ``goal_means``, by method."""
    measured = [table for table in of_goals if len(table)]
    if not measured:
        return []
    table = pl.concat(measured)
    means = {row["method"]: row for row in table.group_by("method").mean().to_dicts()}
    return [
        MethodEffect(name, row["target"], row["predicted"], row["others"])
        for name in methods(table)
        if (row := means[name])["target"] is not None
    ]


def strongest(
    side_effects: pl.DataFrame, targets: dict[int, float]
) -> dict[str, list[LatentEffect]]:
    """By method, its targets and then the latents that it moves most."""
    measured = (
        side_effects.drop_nulls(["predicted", "measured"]) if len(side_effects) else side_effects
    )
    return {
        name: [
            LatentEffect(row["latent"], row["latent"] in targets, row["predicted"], row["measured"])
            for row in _ranked(measured.filter(pl.col("method") == name), targets)
        ]
        for name in methods(measured)
    }


def _ranked(rows: pl.DataFrame, targets: dict[int, float]) -> list[dict[str, Any]]:
    """Targets first, then the others by the size of their measured change; equal ones by number."""
    ranked = rows.sort(pl.col("measured").abs(), "latent", descending=[True, False])
    hit = pl.col("latent").is_in(sorted(targets))
    return [*ranked.filter(hit).to_dicts(), *ranked.filter(~hit).head(SHOWN).to_dicts()]
