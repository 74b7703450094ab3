"""Takes a study that was moved as finished: after a look at its files and its config, all its times
are made equal."""

from __future__ import annotations

import os
import time
from pathlib import Path

from saeflow.config.any_study import AnyStudy
from saeflow.config.digests import settings_digests
from saeflow.describe.difference import config_differences
from saeflow.describe.integrity import verify
from saeflow.errors import SaeflowError


def adopt(folder: Path, study: AnyStudy) -> int:
    """Make a study's files of one age, so that Snakemake finds nothing newer than what was made of
    it.

    Args:
        folder: of the study's results.
        study: what the config says now.

    Returns:
        Number of files.

    Raises:
        SaeflowError: a file is damaged, or the study was made by another config; then nothing is
            changed.
    """
    if not (folder / "config.yaml").is_file():
        raise SaeflowError(
            f"adopt: {folder} holds no config.yaml; name the folder of a study, as results/tales"
        )
    if differing := list(config_differences(folder / "config.yaml", study.model_dump(mode="json"))):
        reason = f"adopt: nothing is changed, as {folder} was made by another config"
        raise SaeflowError("\n".join([reason, *differing]))
    verdicts = verify(folder, settings_digests(study))
    if faults := [verdict.fault for verdict in verdicts if verdict.fault]:
        raise SaeflowError("\n".join(["adopt: nothing is changed, as not all files fit", *faults]))
    now = time.time_ns()
    places = [folder, *folder.rglob("*")]
    for place in places:
        os.utime(place, ns=(now, now), follow_symlinks=False)  # what a link points at is somebody's
    return sum(place.is_file() for place in places)
