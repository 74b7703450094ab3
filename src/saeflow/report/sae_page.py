"""What the page of the SAEs shows: what each is, how it trained, how it did, beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from saeflow.config.sections.architectures import label
from saeflow.report.page import Findings
from saeflow.report.wording import METRICS, SAE_FACTS, digits, readable

POINTS = 300
"""Of a training curve that the page draws."""


class MetricRow(NamedTuple):
    """One number of every SAE."""

    label: str
    explanation: str
    values: list[str]


def sae_context(
    findings: Findings,
    hooks: list[str],
    with_latents: list[str],
    metrics: Mapping[str, tuple[str, str]] = METRICS,
    unseen: str = "text",
) -> dict[str, Any]:
    """What the page is filled from.

    Args:
        findings: the study.
        hooks: where its SAEs read.
        with_latents: SAEs whose latents have pages.
        metrics: names and explanations of the numbers that are shown.
        unseen: what they were measured on.
    """
    study = findings.study
    return {
        "names": list(study.saes),
        "hooks": hooks,
        "unseen": unseen,
        "settings": fact_rows(findings),
        "metrics": metric_rows(findings, metrics),
        "curves": list(findings.sae_training),
        "training": {name: last_row(table) for name, table in findings.sae_training.items()},
        "recovery": findings.recovery.to_dicts(),
        "with_latents": with_latents,
    }


def fact_rows(findings: Findings) -> list[MetricRow]:
    """What each SAE is: from its settings where it was trained here, else from its files."""
    by_sae = []
    for name in findings.study.saes:
        train, config = findings.study.saes[name].train, findings.sae_configs.get(name, {})
        settings = train.model_dump() if train else {}
        if train and not train.traits.takes_k:
            settings.pop("k")
        metadata = config.get("metadata", {})
        facts = {**(metadata if isinstance(metadata, dict) else {}), **config, **settings}
        if "architecture" in facts:
            facts["architecture"] = label(str(facts["architecture"]))
        if facts.get("control"):
            facts["control"] = facts["control"].replace("_", " ")
        by_sae.append(facts)
    rows = [
        MetricRow(label, explanation, [_shown(facts.get(key)) for facts in by_sae])
        for key, (label, explanation) in SAE_FACTS.items()
    ]
    return [row for row in rows if any(value != "–" for value in row.values)]


def metric_rows(
    findings: Findings, metrics: Mapping[str, tuple[str, str]] = METRICS
) -> list[MetricRow]:
    """How each SAE did on what it was not trained on."""
    measured = [findings.sae_metrics.get(name, {}) for name in findings.study.saes]
    rows = [
        MetricRow(label, explanation, [_shown(numbers.get(key)) for numbers in measured])
        for key, (label, explanation) in metrics.items()
    ]
    return [row for row in rows if any(value != "–" for value in row.values)]


def measures(findings: Findings) -> dict[str, str]:
    """The columns of the training curves that can be drawn, with their names."""
    named = {
        "explained_variance": "explained variance",
        "l0": "L0",
        "penalty": "penalty",
        "dead": "dead latents",
    }
    columns = {
        name for table in findings.sae_training.values() for name in _with_variance(table).columns
    }
    return {key: label for key, label in named.items() if key in columns}


def training_value(findings: Findings) -> dict[str, Any]:
    """What the training curves are drawn from."""
    shown = measures(findings)
    curves = {}
    for name, table in findings.sae_training.items():
        thin = _thinned(_with_variance(table))
        columns = ["tokens", *(key for key in shown if key in thin.columns)]
        curves[name] = {
            key: [digits(value) for value in thin[key].cast(pl.Float64).to_list()]
            for key in columns
        }
    return {"measures": shown, "curves": curves}


def last_row(table: pl.DataFrame) -> dict[str, str]:
    """Where a training ended."""
    row = _with_variance(table).row(-1, named=True)
    return {name: _shown(value) for name, value in row.items()}


def _with_variance(table: pl.DataFrame) -> pl.DataFrame:
    if "error" not in table.columns:
        return table
    return table.with_columns(explained_variance=1 - pl.col("error"))


def _thinned(table: pl.DataFrame) -> pl.DataFrame:
    """Every so many rows, the last one among them."""
    step = max(1, -(-len(table) // POINTS))
    places = [*range(0, len(table) - 1, step), len(table) - 1]
    return table[places] if len(table) else table


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return readable(value) if value else "0"
    return str(value)
