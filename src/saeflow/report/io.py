"""Writing the report's folder."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from saeflow.artifacts import atomic
from saeflow.errors import SaeflowError
from saeflow.report.dark import dark
from saeflow.report.goal_pages import GoalResults, goal_context, goal_lines, goal_value
from saeflow.report.latent_index import index_value, known_statistics
from saeflow.report.latent_sources import LatentSources
from saeflow.report.page import StudyResults, study_context
from saeflow.report.payload import write_script
from saeflow.report.sae_page import sae_context, training_value
from saeflow.report.side_effects import goal_means, method_effects
from saeflow.report.site import Site, palette
from saeflow.report.sources import StudyFolder

ASSETS = (
    "style.css", "theme.js", "core.js", "charts.js", "tables.js", "goal.js", "saes.js",
    "latent-index.js", "latent-list.js", "latent-page.js", "latents.js",
)  # fmt: skip
SUFFIXES = ("svg", "png", "csv")
TABLE_ROWS = 300
"""Rows of a figure's table that the page shows; the CSV beside it has all."""


def write_report(root: Path, output: Path, figures: list[str], goals: Path | None = None) -> Path:
    """Write the report of a study into a folder that needs nothing beside itself.

    Whatever the folder held is replaced as a whole. Memory: the SAE's decoder, the tables of 1,024 latents, one goal's
    side effects.

    Args:
        root: the study's folder.
        output: the folder to write.
        figures: names of the study's figures; those that were not drawn are left out.
        goals: folder of the goals' files, for titles and criteria.

    Returns:
        The first page.

    Raises:
        SaeflowError: a file that every report needs is absent, one that is there cannot be read, or the folder to write
            holds something else.
    """
    _check(output)
    folder = StudyFolder(root)
    found = folder.results(figures, goals)
    with atomic(output) as temporary:
        _write(folder, found, temporary)
    return output / "index.html"


def _check(output: Path) -> None:
    """Refuse to replace a folder that is no report."""
    if output.is_dir() and any(output.iterdir()) and not (output / "assets/style.css").is_file():
        raise SaeflowError(f"{output}: holds something else than a report and would be replaced; name another folder")


def _write(folder: StudyFolder, found: StudyResults, output: Path) -> None:
    _write_assets(output)
    _write_figures(folder.root, found, output)
    latents = [name for name in found.study.saes if _write_latents(folder, name, output)]
    site = Site(found, latents)
    means = [_write_goal(site, found, _goal(folder, name), latents, output) for name in found.study.goals.names]
    write_script(output, "saes", training_value(found))
    pages = {
        "index.html": study_context(found, method_effects(means)),
        "goals.html": {"lines": goal_lines(found)},
        "saes.html": sae_context(found, latents),
        **({"latents.html": {}} if latents else {}),
    }
    for name, context in pages.items():
        (output / name).write_bytes(site.page(name, context))


def _goal(folder: StudyFolder, name: str) -> GoalResults:
    samples, scores = folder.samples(name)
    return GoalResults(name, folder.targets(name), folder.side_effects(name), samples, scores)


def _write_goal(site: Site, found: StudyResults, goal: GoalResults, latents: list[str], output: Path) -> pl.DataFrame:
    """Write a goal's page and its data; returns what steering does to its targets and to other latents."""
    sae = found.study.steering_sae
    linked = sae if sae in latents else None
    write_script(output, f"goal-{goal.name}", goal_value(found, goal, linked))
    page = output / f"goal-{goal.name}.html"
    page.write_bytes(site.page("goal.html", goal_context(found, goal, linked)))
    return goal_means(goal.side_effects, goal.targets)


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
    if sae != folder.study.steering_sae:
        return []
    return [
        [latent, goal, weight] for goal in folder.study.goals.names for latent, weight in folder.targets(goal).items()
    ]


def _write_assets(output: Path) -> None:
    (output / "assets").mkdir(parents=True)
    for name in ASSETS:
        (output / "assets" / name).write_bytes(resources.files("saeflow.report").joinpath("assets", name).read_bytes())
    (output / "assets/palette.css").write_text(palette(), encoding="utf-8")


def _write_figures(root: Path, found: StudyResults, output: Path) -> None:
    """Copy the pictures, and write the table of each for the page."""
    (output / "figures").mkdir()
    for name in found.figures:
        for suffix in SUFFIXES:
            source = root / "figures" / f"{name}.{suffix}"
            if not source.exists():
                raise SaeflowError(f"{source}: no such file; draw the figure again")
            shutil.copyfile(source, output / "figures" / source.name)
        if found.figures[name].has_dark:
            light = (output / "figures" / f"{name}.svg").read_text(encoding="utf-8")
            (output / "figures" / f"{name}.dark.svg").write_text(dark(light), encoding="utf-8")
        write_script(output, f"figure-{name}", _figure_table(output / "figures" / f"{name}.csv"))


def _figure_table(path: Path) -> dict[str, object]:
    """The first rows behind a figure: columns, rows, and how many there are."""
    try:
        scan = pl.scan_csv(path, infer_schema=False, raise_if_empty=False)  # a figure without data has no columns
        table = scan.head(TABLE_ROWS).collect()
        count = scan.select(pl.len()).collect().item()
    except (OSError, PolarsError) as error:
        raise SaeflowError(f"{path}: cannot be read ({str(error).splitlines()[0]}); draw the figure again") from None
    return {"columns": table.columns, "rows": [list(row) for row in table.iter_rows()], "count": count}
