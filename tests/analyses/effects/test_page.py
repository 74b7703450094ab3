"""The page of effects tells how they were measured and how well they are predicted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import report_study
from pages import assert_whole, pages_of


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "tales"
    report_study.write_study(root, goals=2, figures=["effect_scales"], latents=0)
    report_study.ask_only_for(root, "effects")
    return root


def test_a_study_with_effects_alone_tells_their_fit_beside_its_control(
    study: Path, tmp_path: Path
) -> None:
    output = report_study.write_report(study, tmp_path / "report").parent
    pages = pages_of(output)
    assert set(pages) == {"index.html", "effects.html", "saes.html"}
    assert_whole(pages, output)
    index = " ".join((output / "index.html").read_text().split())
    assert (
        "A linear map predicts 0.731 of the variance of effects of vectors it has not seen; with "
        "shuffled vectors it is -0.020." in index
    )
    text = (output / "effects.html").read_text()
    for words in ("rows of the decoder of SAE main", "384", "1.910", "R² with shuffled vectors"):
        assert words in text
    assert "figures/effect_scales.csv" in pages["effects.html"].links


def test_effects_that_are_not_fitted_yet_are_counted_and_claim_nothing(
    study: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tales"
    shutil.copytree(study, root)
    (root / "effects/main/metrics.json").unlink()
    output = report_study.write_report(root, tmp_path / "report").parent
    index = (output / "index.html").read_text()
    assert "A linear map" not in index
    assert "vectors measured" in index
    assert "The approximator" not in (output / "effects.html").read_text()
