"""The page of geometry says what is there beside its null, and what the model goes by."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_study
from pages import assert_whole, pages_of
from planted_circle import POINTS, planted_tables

from saeflow.tables import write_table


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study that was reported, with the tables of the planted model."""
    root = tmp_path / "tales"
    report_study.write_study(root, figures=[], latents=0)
    report_study.ask_only_for(root, geometry={"points": POINTS.model_dump(exclude_none=True)})
    (root / "geometry").mkdir()
    for name, table in planted_tables(tmp_path).items():
        write_table(root / f"geometry/{name}.parquet", table)
    return root


def test_the_page_tells_circles_lines_and_causes(study: Path, tmp_path: Path) -> None:
    output = report_study.write_report(study, tmp_path / "report").parent
    text = " ".join((output / "geometry.html").read_text().split())
    assert "The circle of ring is there" in text
    assert "7 of 7 neighbours are beside each other" in text
    assert "goes on as after that other in 1.000 (" in text
    assert "The line of time is there" in text
    assert "The circle of ring is there" in (output / "index.html").read_text()
    assert_whole(pages_of(output), output)


def test_a_study_whose_words_are_not_read_yet_has_no_page(study: Path, tmp_path: Path) -> None:
    for file in (study / "geometry").glob("*.parquet"):
        file.unlink()
    output = report_study.write_report(study, tmp_path / "report").parent
    assert not (output / "geometry.html").exists()
