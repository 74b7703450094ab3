"""What the page of the SAEs shows: what each is, how it trained, how it did, beside each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from saeflow.config import Study
from saeflow.report.latent_pages import digits
from saeflow.report.page import Findings
from saeflow.report.wording import BOARD_METRICS, METRICS, SAE_FACTS, readable

POINTS = 300
"""Of a training curve that the page draws."""


class MetricRow(NamedTuple):
    """One number of every SAE."""

    label: str
    told: str
    values: list[str]


def sae_context(found: Findings, with_latents: list[str]) -> dict[str, Any]:
    """What the page is filled from.

    Args:
        with_latents: SAEs whose latents have pages.
    """
    study = found.study
    return {
        "names": list(study.saes),
        "hooks": [study.hook]
        if isinstance(study, Study)
        else list(dict.fromkeys(map(study.hook_of, study.saes))),
        "of_language": isinstance(study, Study),
        "settings": fact_rows(found),
        "metrics": metric_rows(found),
        "curves": list(found.sae_training),
        "training": {name: last_row(table) for name, table in found.sae_training.items()},
        "recovery": found.recovery.to_dicts(),
        "with_latents": with_latents,
    }


def fact_rows(found: Findings) -> list[MetricRow]:
    """What each SAE is: from its settings where it was trained here, else from its files."""
    known = []
    for name in found.study.saes:
        train, config = found.study.saes[name].train, found.sae_configs.get(name, {})
        settings = train.model_dump() if train else {}
        if train and train.architecture not in ("topk", "batchtopk"):
            settings.pop("k")
        metadata = config.get("metadata", {})
        known.append(
            {**metadata, **config, **settings}
            if isinstance(metadata, dict)
            else {**config, **settings}
        )
    rows = [
        MetricRow(label, told, [_told(one.get(key)) for one in known])
        for key, (label, told) in SAE_FACTS.items()
    ]
    return [row for row in rows if any(value != "–" for value in row.values)]


def metric_rows(found: Findings) -> list[MetricRow]:
    """How each SAE did on text, or positions, that it was not trained on."""
    known = [found.sae_metrics.get(name, {}) for name in found.study.saes]
    named = METRICS if isinstance(found.study, Study) else BOARD_METRICS
    rows = [
        MetricRow(label, told, [_told(one.get(key)) for one in known])
        for key, (label, told) in named.items()
    ]
    return [row for row in rows if any(value != "–" for value in row.values)]


def measures(found: Findings) -> dict[str, str]:
    """The columns of the training curves that can be drawn, with their names."""
    named = {
        "explained_variance": "explained variance",
        "l0": "L0",
        "penalty": "penalty",
        "dead": "dead latents",
    }
    columns = {
        name for table in found.sae_training.values() for name in _with_variance(table).columns
    }
    return {key: label for key, label in named.items() if key in columns}


def training_value(found: Findings) -> dict[str, Any]:
    """What the training curves are drawn from."""
    shown = measures(found)
    curves = {}
    for name, table in found.sae_training.items():
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
    return {name: _told(value) for name, value in row.items()}


def _with_variance(table: pl.DataFrame) -> pl.DataFrame:
    if "error" not in table.columns:
        return table
    return table.with_columns(explained_variance=1 - pl.col("error"))


def _thinned(table: pl.DataFrame) -> pl.DataFrame:
    """Every so many rows, the last one among them."""
    step = max(1, -(-len(table) // POINTS))
    places = [*range(0, len(table) - 1, step), len(table) - 1]
    return table[places] if len(table) else table


def _told(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return readable(value) if value else "0"
    return str(value)
