"""All SAEs of a study in one table; those that differ in their seed alone are one row, with its
standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from saeflow.config.sections import SAETraining
from saeflow.tables import Schema

METRICS = (
    "explained_variance", "l0", "mse", "cosine", "l2_ratio", "loss_clean", "loss_sae", "recovered",
    "recovered_mean",
    "kl", "dead", "dense", "planted_cosine", "planted_f1",
)  # fmt: skip
_FACTS: Schema = {
    "sae": pl.String,
    "kind": pl.String,
    "architecture": pl.String,
    "control": pl.String,
    "reads": pl.String,
    "writes": pl.String,
    "d_sae": pl.Int64,
    "k": pl.Int64,
    "sparsity_coefficient": pl.Float64,
    "target_l0": pl.Float64,
    "tokens": pl.Int64,
    "seeds": pl.Int64,
    "se_over": pl.String,
    "rows": pl.Int64,
}


def summary_schema(metrics: Sequence[str]) -> Schema:
    """Of a table of these metrics."""
    numbers = {name: pl.Float64 for metric in metrics for name in (metric, f"{metric}_se")}
    return {**_FACTS, **numbers}


SUMMARY = summary_schema(METRICS)
_SETTINGS = ("d_sae", "k", "sparsity_coefficient", "target_l0", "tokens")


def summarise_saes(
    saes: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
    names: Sequence[str] = METRICS,
    units: str = "blocks",
) -> pl.DataFrame:
    """One row per SAE, or per SAEs that were trained alike with several seeds.

    Args:
        saes: by name: kind, reads, writes, and training (its settings; null for an SAE from
            elsewhere).
        metrics: by name, what the evaluation found.
        names: of the metrics.
        units: what standard errors of one SAE are over.

    Returns:
        sae (names, of several seeds one after another), kind, architecture, control, reads,
        writes, settings, seeds (how many), se_over (``seeds``: standard errors of the mean over
        seeds; else the `units`, such as ``blocks`` of the evaluation text), rows (activations in
        the evaluation), and the metrics, each with ``…_se``. What an SAE does not have is null.
    """
    rows = []
    for members in trained_alike(saes):
        measured = [metrics[member] for member in members]
        row = _facts(members, saes[members[0]], measured, units)
        rows.append(row | _pooled(measured, names))
    return pl.DataFrame(rows, schema=summary_schema(names))


def trained_alike(saes: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The names of SAEs that differ in their seed alone, together; what is told of each as for
    `summarise_saes`."""
    alike: dict[str, list[str]] = {}
    for name, sae in saes.items():
        training = dict(sae["training"] or {"name": name})
        training.pop("seed", None)
        alike.setdefault(json.dumps([{**sae, "training": training}], sort_keys=True), []).append(
            name
        )
    return list(alike.values())


def _facts(
    names: Sequence[str],
    sae: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]],
    units: str,
) -> dict[str, Any]:
    training = sae["training"] or {}
    kept = {name: training.get(name) for name in _SETTINGS}
    if training and not (settings := SAETraining.model_validate(training)).traits.takes_k:
        kept |= {"k": None, "sparsity_coefficient": settings.coefficient}
    return {
        "sae": ", ".join(names),
        "kind": sae["kind"],
        "architecture": training.get("architecture", "imported"),
        "control": training.get("control"),
        "reads": sae["reads"],
        "writes": sae["writes"],
        **kept,
        "seeds": len(names),
        "se_over": "seeds" if len(names) > 1 else units,
        "rows": measured[0].get("rows"),
    }


def _pooled(measured: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Means over SAEs of several seeds, with the standard error over these; of one its own."""
    row: dict[str, Any] = {}
    for metric in names:
        values = [float(metrics[metric]) for metrics in measured if metrics.get(metric) is not None]
        if len(values) == len(measured):
            row[metric] = float(np.mean(values))
            row[f"{metric}_se"] = (
                float(np.std(values, ddof=1) / len(values) ** 0.5)
                if len(values) > 1
                else measured[0].get(f"{metric}_se")
            )
    return row
