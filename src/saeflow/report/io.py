"""Writing the report's folder."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from saeflow.artifacts import atomic, check_replaceable
from saeflow.report.asked import steered
from saeflow.report.files import write_assets, write_figures
from saeflow.report.goal_pages import GoalResults, goal_context, goal_lines, goal_value
from saeflow.report.latent_index import index_value, known_statistics
from saeflow.report.latent_sources import LatentSources
from saeflow.report.page import StudyResults, study_context
from saeflow.report.payload import write_script
from saeflow.report.sae_page import sae_context, training_value
from saeflow.report.side_effects import goal_means, method_effects
from saeflow.report.site import Site
from saeflow.report.sources import StudyFolder


def write_report(
    root: Path,
    output: Path,
    figures: list[str],
    goals: Path | None = None,
) -> Path:
    """Write the report of a study into a folder that needs nothing beside itself.

    An earlier report is replaced as a whole. Memory: the SAE's decoder, the tables of 1,024
    latents, one goal's side effects.

    Args:
        root: the study's folder.
        output: the folder to write.
        figures: names of the study's figures; those that were not drawn are left out.
        goals: folder of the goals' files, for titles and criteria.

    Returns:
        The first page.

    Raises:
        SaeflowError: a file that every report needs is absent, one that is there cannot be read, or
            the folder to write holds something else.
    """
    check_replaceable(output)
    folder = StudyFolder(root)
    study = folder.results(figures, goals)
    with atomic(output) as temporary:
        _write(folder, study, temporary)
    return output / "index.html"


def _write(folder: StudyFolder, found: StudyResults, output: Path) -> None:
    write_assets(output)
    write_figures(folder.root, found, output)
    latents = [name for name in found.study.saes if _write_latents(folder, name, output)]
    site = Site(found, latents)
    means = [
        _write_goal(site, found, _goal(folder, name), latents, output)
        for name in steered(found.study).goals.names
    ]
    write_script(output, "saes", training_value(found))
    pages = {
        "index.html": study_context(found, method_effects(means), _linked(found, latents)),
        "goals.html": {"lines": goal_lines(found)},
        "saes.html": sae_context(found, [found.study.hook], latents),
        **({"latents.html": {}} if latents else {}),
    }
    for name, context in pages.items():
        (output / name).write_bytes(site.page(name, context))


def _goal(folder: StudyFolder, name: str) -> GoalResults:
    samples, scores = folder.samples(name)
    return GoalResults(name, folder.targets(name), folder.side_effects(name), samples, scores)


def _write_goal(
    site: Site, found: StudyResults, goal: GoalResults, latents: list[str], output: Path
) -> pl.DataFrame:
    """Write a goal's page and its data; returns what steering does to its targets and to other
    latents."""
    linked = _linked(found, latents)
    write_script(output, f"goal-{goal.name}", goal_value(found, goal, linked))
    page = output / f"goal-{goal.name}.html"
    page.write_bytes(site.page("goal.html", goal_context(found, goal, linked)))
    return goal_means(goal.side_effects, goal.targets)


def _linked(found: StudyResults, latents: list[str]) -> str | None:
    """The SAE that is steered with, where its latents have pages."""
    sae = found.study.target_sae
    return sae if sae in latents else None


def _write_latents(folder: StudyFolder, sae: str, output: Path) -> bool:
    """Write the list of an SAE's latents and their pages; False where nothing is known of them."""
    sources = LatentSources(folder, sae)
    if not sources.tables.known:
        return False
    table = sources.statistics
    value = index_value(sae, table, sources.tables.promoted, sources.neuronpedia)
    value["targeted"] = _targeted(folder, sae)
    write_script(output, f"latents-{sae}", value)
    for number, pages in enumerate(sources.pages()):
        write_script(output, f"latents-{sae}/{number:05d}", pages)
    return bool(known_statistics(table))


def _targeted(folder: StudyFolder, sae: str) -> list[list[object]]:
    """Latents that goals target: latent, goal, weight."""
    if sae != folder.study.target_sae:
        return []
    return [
        [latent, goal, weight]
        for goal in steered(folder.study).goals.names
        for latent, weight in folder.targets(goal).items()
    ]
