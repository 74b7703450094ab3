"""Writing the report's folder."""

from __future__ import annotations

from pathlib import Path

from saeflow.artifacts import atomic, check_replaceable
from saeflow.report.contribution import Contribution
from saeflow.report.files import write_assets, write_figures
from saeflow.report.folder import StudyFolder
from saeflow.report.latent_labels import LatentLabels
from saeflow.report.page import Jobs, StudyFindings, study_context
from saeflow.report.payload import write_script
from saeflow.report.sae_page import sae_context, training_value
from saeflow.report.site import Site


def write_report(folder: StudyFolder, output: Path, jobs: Jobs | None = None) -> Path:
    """Write the report of a study into a folder that needs nothing beside itself.

    An earlier report is replaced as a whole. Every analysis that is asked for adds what its
    ``page.py`` says. Memory: the SAE's decoder, the tables of 1,024 latents, one goal's side
    effects.

    Args:
        folder: of the study.
        output: the folder to write.
        jobs: of the study, for what they took and when.

    Returns:
        The first page.

    Raises:
        SaeflowError: one of the study's files cannot be read, or the folder to write holds
            something else.
    """
    check_replaceable(output)
    results = folder.results()
    with atomic(output) as temporary:
        temporary.mkdir()
        _write(folder, results, temporary, jobs)
    return output / "index.html"


def _write(folder: StudyFolder, results: StudyFindings, output: Path, jobs: Jobs | None) -> None:
    added: dict[str, Contribution] = {}
    packages: dict[str, str] = {}
    for analysis, own in folder.study.asked:
        if contribute := analysis.declared("page", "contribute"):
            added[analysis.key] = contribute(folder, own, output, added)
            packages[analysis.key] = analysis.package
    for own in added.values():
        for name, numbers in own.sae_metrics.items():
            results.sae_metrics.setdefault(name, {}).update(numbers)
    looks = {name: look for own in added.values() for name, look in own.looks.items()}
    titles = {name: title for own in added.values() for name, title in own.titles.items()}
    latents = [sae for own in added.values() for sae in own.latent_saes]
    labels = {name: page.label for own in added.values() for name, page in own.pages.items()}
    bar = {"index": "Study", **{name: label for name, label in labels.items() if label}}
    write_assets(output, {packages[key]: own.assets for key, own in added.items()}, looks)
    write_figures(folder.root, results, output)
    write_script(output, "saes", training_value(results))
    packed = [packages[key] for key, own in added.items() if own.pages]
    words = LatentLabels(folder)
    site = Site(results, bar | {"saes": "SAEs"}, packed, titles, looks, latents, words)
    hooks = list(dict.fromkeys(map(folder.study.hook_of, folder.study.saes)))
    pages = {
        "index": ("index.html", study_context(results, added, jobs)),
        "saes": ("saes.html", sae_context(results, hooks, latents)),
        **{
            name: (page.template, page.context)
            for own in added.values()
            for name, page in own.pages.items()
        },
    }
    for name, (template, context) in pages.items():
        (output / f"{name}.html").write_bytes(site.page(template, context))
