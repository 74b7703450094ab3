"""The pages of latents: where each fires, and whatever else the study knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from saeflow.analyses.examples.latent_index import index_value, known_statistics
from saeflow.analyses.examples.latent_sources import LatentSources
from saeflow.analyses.examples.settings import Examples
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.latent_labels import told_of_latents
from saeflow.report.payload import write_script

ASSETS = ("latent-page.js", "latents.js")


def contribute(
    folder: StudyFolder, own: Examples, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """Write the list of every SAE's latents and their pages, where anything is known of them."""
    written = [sae for sae in folder.study.saes if _write_latents(folder, sae, output)]
    if not written:
        return Contribution()
    pages = {"latents": Page(template="latents.html", label="Latents")}
    return Contribution(pages=pages, assets=ASSETS, latent_saes=written)


def _write_latents(folder: StudyFolder, sae: str, output: Path) -> bool:
    sources = LatentSources(folder, sae)
    if not sources.tables.any_measured:
        return False
    table = sources.statistics
    value = index_value(sae, table, sources.tables.promoted, sources.neuronpedia)
    value["targeted"] = told_of_latents(folder, "latent_marks", sae)
    value["labels"] = told_of_latents(folder, "latent_words", sae)
    write_script(output, f"latents-{sae}", value)
    for number, pages in enumerate(sources.pages()):
        write_script(output, f"latents-{sae}/{number:05d}", pages)
    return bool(known_statistics(table))
