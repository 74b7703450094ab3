"""The list of concepts as its page reads it: in the form of the list of latents, so that the same
scripts search it."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from saeflow.figures.style import words
from saeflow.report.wording import Statistic

SMALLEST = 1e-300  # a p-value that is smaller is written as this one
COLUMNS = (
    Statistic(
        "auc",
        "AUC",
        "area under the ROC curve of the latent, on games that had no part in choosing it",
    ),
    Statistic(
        "auc_low",
        "from",
        "lower end of the interval of that area, with games as units; none of few",
    ),
    Statistic("auc_high", "to", "upper end of that interval"),
    Statistic("q", "q", "false discovery rate among all latents and concepts, from p", "power"),
    Statistic(
        "p",
        "p",
        "share of draws out of step with an area so far from 0.5; none of few games",
        "power",
    ),
    Statistic(
        "probe", "probe", "the same area of a linear probe of the activations that the SAE reads"
    ),
    Statistic(
        "means",
        "means",
        "the same area of the difference of means: along the line between with and without",
    ),
    Statistic(
        "auc_selection", "chosen at", "area on the games that the latent was chosen on, so too high"
    ),
    Statistic(
        "auc_chance",
        "chance",
        "area that the same latent reaches by chance, on the same games as AUC",
    ),
    Statistic(
        "null_largest",
        "chosen by chance",
        "largest area that the choice found with labels and positions out of step",
    ),
    Statistic(
        "density", "fires on", "share of held-out positions in which the latent fires", "share"
    ),
    Statistic("positions", "positions", "held-out positions that have the concept", "whole"),
)
"""What the list says of each concept's latent: ``power`` and ``share`` are handed over as decimal
logarithms."""


def list_value(
    sae: str, best: pl.DataFrame, with_boards: set[str], with_pages: bool = False
) -> dict[str, Any]:
    """The list of an SAE's concepts.

    Args:
        sae: its name.
        best: from `ConceptTables.best`.
        with_boards: concepts that the page has boards of.
        with_pages: whether its latents have pages of their own.
    """
    names = [words(name) for name in best["concept"].to_list()]
    families = list(dict.fromkeys(best["family"].to_list()))
    return {
        "sae": sae,
        "count": len(best),
        "neuronpedia": None,
        "statistics": [
            {**column._asdict(), "values": values_of(best[column.name], column.form)}
            for column in COLUMNS
        ],
        "numbers": best["latent"].to_list(),
        "classes": [words(family) for family in families],
        "class": [families.index(family) for family in best["family"].to_list()],
        "words": ["", *names],
        "fires": list(range(1, len(names) + 1)),
        "promotes": [],
        "sets": [],
        "set": None,
        "targeted": [],
        "pages": with_pages,
        "places": [name if name in with_boards else None for name in best["concept"].to_list()],
    }


def values_of(column: pl.Series, form: str) -> list[float | None]:
    """A column as the list takes it: `COLUMNS` says of each form how."""
    return [_value(value, form) for value in column.to_list()]


def _value(value: float | None, form: str) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    if form == "share":
        return math.log10(value) if value > 0 else None
    return math.log10(max(value, SMALLEST)) if form == "power" else float(f"{value:.6g}")
