"""The page of labels, and what pages of latents show of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses.labels.settings import Labels
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, readable

MOST = 300
"""Latents of an SAE that the page lists; all stand in its CSV, and on the pages of latents."""


def contribute(
    folder: StudyFolder, own: Labels, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page of labels, and a sentence for the first one."""
    parts, scores, adapters = [], [], []
    labelled = believed = 0
    for sae in folder.names("labels")["labelled_sae"]:
        table = folder.table(f"labels/{sae}/labels")
        if table.is_empty():
            continue
        scores += [_scored(row) for row in folder.table(f"labels/{sae}/summary").to_dicts()]
        adapters += [_said(sae, row) for row in folder.table(f"labels/{sae}/adapter").to_dicts()]
        latents = table["latent"].unique(maintain_order=True)
        labelled += len(latents)
        believed += table.filter(~pl.col("doubtful"))["latent"].n_unique()
        shown = table.filter(pl.col("latent").is_in(latents.head(MOST).implode()))
        parts.append({"sae": sae, "rows": shown.to_dicts(), "more": len(latents) - MOST})
    if not parts:
        return Contribution()
    context = {"parts": parts, "scores": scores, "adapters": adapters, "asked": _who(own)}
    return Contribution(
        pages={"labels": Page(template="labels.html", context=context, label="Labels")},
        tiles=[Fact("labels", f"{labelled:,}", f"latents with words, {believed:,} believed")],
    )


def _who(own: Labels) -> str:
    """Who was asked, in words."""
    return "the study's own model" if own.asked.kind == "local" else str(own.asked.model)


def _scored(row: dict[str, Any]) -> list[str]:
    """A line of the table of scores."""

    def with_interval(name: str) -> str:
        if row[name] is None:
            return ""
        low, high = (readable(row[f"{name}_{end}"]) for end in ("low", "high"))
        return f"{readable(row[name])} ({low} to {high})"

    return [
        row["sae"],
        row["score"],
        row["source"] or "no label",
        f"{row['latents']:,}",
        with_interval("value"),
        readable(row["random"]),
        with_interval("over_random"),
        with_interval("over_tokens"),
        f"{row['believed']:.0%}",
    ]


WAYS = {
    "adapter": "scale and bias",
    "bias": "the bias alone",
    "shuffled": "scale and bias, another's direction",
    "plain": "the direction alone, at its best scale",
}


def _said(sae: str, row: dict[str, Any]) -> list[str]:
    """A line of the table of adapters."""

    def with_interval(name: str, form: str) -> str:
        low, high = (format(row[f"{name}_{end}"], form) for end in ("low", "high"))
        return f"{row[name]:{form}} ({low} to {high})"

    pairs = f"{row['n']:,} words of {'latents' if row['pairs'] == 'latent' else 'the embedding'}"
    way = WAYS.get(row["way"], row["way"])
    return [
        sae,
        pairs,
        way,
        f"{row['scale']:.2f}",
        with_interval("loss", ".2f"),
        with_interval("right", ".0%"),
    ]


def latent_words(folder: StudyFolder, own: Labels, sae: str) -> list[list[object]]:
    """Labels of an SAE's latents, as pages of latents show and search them: latent, source, text,
    whether it is doubtful."""
    table = folder.table(f"labels/{sae}/labels")
    if sae not in folder.names("labels")["labelled_sae"] or table.is_empty():
        return []
    rows = table.select("latent", "source", "text", "doubtful").iter_rows()
    return [[latent, source, text, doubtful] for latent, source, text, doubtful in rows]
