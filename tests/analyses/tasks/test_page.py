"""The page of tasks says what vectors recover, beside placebos, and which latents are left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report_study
from pages import assert_whole, pages_of
from planted_tasks import CLEANING, PROMPTS, VECTORS, lists, planted_tables

from saeflow.tables import write_table


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study that was reported, with the tables of the planted model."""
    root = tmp_path / "tales"
    report_study.write_study(root, figures=[], latents=0)
    sections = {"lists": lists(), "prompts": PROMPTS, "vectors": VECTORS}
    asked = {name: each.model_dump(exclude_none=True) for name, each in sections.items()}
    cleaning = CLEANING.model_copy(update={"saes": ["main"]}).model_dump(exclude_none=True)
    report_study.ask_only_for(root, tasks={**asked, "cleaning": cleaning})
    for name, table in planted_tables(tmp_path).items():
        path = root / f"tasks/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, table)
    return root


def test_the_page_tells_vectors_cleaned_ones_and_latents(study: Path, tmp_path: Path) -> None:
    output = report_study.write_report(study, tmp_path / "report").parent
    text = " ".join((output / "tasks.html").read_text().split())
    assert "One: examples take the loss from" in text
    assert re.search(
        r"recovers \S+ \(\S+ to \S+\) of that, .*, the placebo behind layer \d+ -", text
    )
    assert "Cleaned in main, 1 of its latents reach 0.99" in text
    assert "; as many by orthogonal matching pursuit " in text
    assert "; the whole mean with examples there " in text
    assert "separator" in text
    assert "One: examples take the loss from" in (output / "index.html").read_text()
    assert_whole(pages_of(output), output)


def test_a_study_whose_vectors_are_not_tried_yet_has_no_page(study: Path, tmp_path: Path) -> None:
    (study / "tasks/sweep.parquet").unlink()
    output = report_study.write_report(study, tmp_path / "report").parent
    assert not (output / "tasks.html").exists()
