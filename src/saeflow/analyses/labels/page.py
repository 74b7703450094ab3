"""The page of labels, and what pages of latents show of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from saeflow.analyses.labels.settings import Labels
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact

MOST = 300
"""Latents of an SAE that the page lists; all stand in its CSV, and on the pages of latents."""


def contribute(
    folder: StudyFolder, own: Labels, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page of labels, and a sentence for the first one."""
    parts = []
    labelled = 0
    for sae in folder.names("labels")["labelled_sae"]:
        table = folder.table(f"labels/{sae}/labels")
        if table.is_empty():
            continue
        latents = table["latent"].unique(maintain_order=True)
        labelled += len(latents)
        shown = table.filter(pl.col("latent").is_in(latents.head(MOST).implode()))
        parts.append({"sae": sae, "rows": shown.to_dicts(), "more": len(latents) - MOST})
    if not parts:
        return Contribution()
    with_pages = [sae for each in added.values() for sae in each.latent_saes]
    context = {"parts": parts, "latent_saes": with_pages, "sources": own.sources}
    return Contribution(
        pages={"labels": Page(template="labels.html", context=context, label="Labels")},
        tiles=[Fact("labels", f"{labelled:,}", "latents with words")],
    )


def latent_words(folder: StudyFolder, own: Labels, sae: str) -> list[list[object]]:
    """Labels of an SAE's latents, as pages of latents show and search them: latent, source, text,
    whether it is doubtful."""
    table = folder.table(f"labels/{sae}/labels")
    if sae not in folder.names("labels")["labelled_sae"] or table.is_empty():
        return []
    rows = table.select("latent", "source", "text", "doubtful").iter_rows()
    return [[latent, source, text, doubtful] for latent, source, text, doubtful in rows]
