"""The notebook of the documentation runs, and the reference of Python has every verb."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from checkout import ROOT, SUPPORT

import saeflow

NOTEBOOK = ROOT / "docs" / "notebooks" / "first-look.ipynb"
A_PATH = re.compile(r"(?<![\w.}/])/(?:home|root|Users|work|mnt|scratch|tmp)/|\b[A-Z]:\\")


def code_cells(notebook: Path) -> list[Any]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def shown(cell: Any) -> str:
    return "".join(
        output["text"] if "text" in output else output["data"]["text/plain"]
        for output in cell.outputs
    )


def test_the_first_look_runs_offline_and_shows_what_the_page_says(tmp_path: Path) -> None:
    copy = Path(shutil.copy(NOTEBOOK, tmp_path))
    before = os.times()
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, SUPPORT / "notebooks.py", copy], cwd=tmp_path, env=variables, check=True
    )
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    assert spent < 60, f"{spent:.0f} s of CPU"
    for kept, now in zip(code_cells(NOTEBOOK), code_cells(copy), strict=True):
        assert [output.output_type for output in kept.outputs] == [
            output.output_type for output in now.outputs
        ]
    planted, places, steered = (
        next(shown(cell) for cell in code_cells(copy) if word in cell.source)
        for word in ("planted_recovery(", "top_examples(", "sf.steer(")
    )
    # which latents and texts stand there, a processor's rounding decides; that they are French, not
    assert re.findall(r"^│ (\w+) +┆ \d", planted, re.MULTILINE)[0] == "french"
    french = re.compile(
        r"\b(?:le|la|les|une?|est|cette|mon|ma|très|chapeau|maison|livre)\b", re.IGNORECASE
    )
    assert sum(bool(french.search(line)) for line in places.splitlines()) >= 4
    unsteered, _, by_contrast = steered.partition("caa")
    first = "\n".join(line for line in unsteered.splitlines() if "  0.0" in line)
    last = "\n".join(line for line in by_contrast.splitlines() if "  0.0" not in line)
    assert len(french.findall(last)) > len(french.findall(first))


def test_the_notebook_keeps_its_outputs_and_no_path_of_a_machine() -> None:
    assert not A_PATH.search(NOTEBOOK.read_text(encoding="utf-8"))
    assert sum(bool(cell.outputs) for cell in code_cells(NOTEBOOK)) >= 7
    assert [cell.execution_count for cell in code_cells(NOTEBOOK)] == [
        *range(1, len(code_cells(NOTEBOOK)) + 1)
    ]


def test_the_page_of_a_notebook_has_its_words_code_and_outputs() -> None:
    spec = importlib.util.spec_from_file_location("pages", NOTEBOOK.with_name("pages.py"))
    assert spec
    assert spec.loader
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    page = pages.page(NOTEBOOK)
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.source in page
        if cell.cell_type == "code":
            assert shown(cell).rstrip("\n") in page


@pytest.mark.parametrize("name", saeflow.__all__)
def test_the_reference_has_every_verb(name: str) -> None:
    verb = getattr(saeflow, name)
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert f"\n::: {verb.__module__}.{name}\n" in reference
