"""Removes what stands in the way of a job: damaged files of its own study that the workflow makes
again."""

from __future__ import annotations

import os
from pathlib import Path

from saeflow.config.locations import CHECKSUMS_OF_FOLDER
from saeflow.errors import DamagedError
from saeflow.kinds import KINDS

STUDY_FOLDER = "SAEFLOW_STUDY_FOLDER"
"""Set by the workflow for its jobs: the folder of the study's results. A command of a person has
none."""
MADE_BY_JOBS = {
    *("config.yaml", "provenance.json", "corpus", "games", "models", "activations", "saes"),
    *("figures", "publish"),
    *(analysis.key for kind in KINDS.values() for analysis in kind.study.analyses),
}
"""Of a study's folder, files and folders that jobs make whole. What was paid for, `judging`, is not
among them."""


def cleared(error: DamagedError) -> str:
    """What a user is told of damage, after what a job may remove is gone.

    A file is removed only by a job of the workflow, only below its own study's folder, links
    followed, and only where jobs make every file. All else belongs to somebody.
    """
    study = os.environ.get(STUDY_FOLDER)
    if not study or not all(_is_made_by_jobs(file, Path(study)) for file in error.remade):
        return str(error)
    try:
        for file in error.remade:
            file.unlink(missing_ok=True)
            # What jobs depend on in place of a folder, so that the folder is made again.
            Path(f"{file.parent}{CHECKSUMS_OF_FOLDER}").unlink(missing_ok=True)
    except OSError:  # the sentence says what must be removed
        return str(error)
    names = " and ".join(file.name for file in error.remade)
    verb = "is" if len(error.remade) == 1 else "are"
    return f"{error.problem}; {names} {verb} removed, start again and what is missing is made again"


def _is_made_by_jobs(file: Path, study: Path) -> bool:
    root, place = study.resolve(), file.parent.resolve() / file.name
    return (
        place.is_relative_to(root)
        and place.relative_to(root).parts[0] in MADE_BY_JOBS
        and not place.is_dir()
    )
