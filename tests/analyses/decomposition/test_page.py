"""The page of directions says what few latents hold, beside what means nothing."""

from __future__ import annotations

from pathlib import Path

import decomposition_tables
import polars as pl
import pytest
import report_study
import torch
import yaml
from pages import assert_whole, pages_of
from steered import tiny_sae

from saeflow.analyses.decomposition.curves import (
    Subject,
    curve_table,
    encoder_table,
    latent_table,
    stability_table,
)
from saeflow.analyses.decomposition.decomposing import write_tables
from saeflow.analyses.decomposition.directions import Direction
from saeflow.analyses.decomposition.edits import EDITS
from saeflow.analyses.decomposition.fidelity import FIDELITY, Occurrence, fidelity_row
from saeflow.analyses.decomposition.pooling import DIFFERENCES, POOLED, pooled
from saeflow.analyses.decomposition.settings import PursuitCurves
from saeflow.analyses.directions.placing import ContrastRows
from saeflow.pursuits.dictionary import Dictionary
from saeflow.tables import write_table

SETTINGS = PursuitCurves(latents=8, listed=3, random=10, shuffled=4, bootstrap=8)
DIRECTIONS = {
    "contrasts": {
        "sea": {
            "texts": {
                "examples": [
                    {"text": f"{label} {n}", "label": label} for label in "ab" for n in range(4)
                ]
            },
            "positive": "a",
        }
    }
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study that was reported, with the tables of a direction along latent 5."""
    root = tmp_path / "tales"
    report_study.write_study(root, figures=[], latents=0)
    report_study.ask_only_for(root, decomposition={"directions": DIRECTIONS})
    sae = tiny_sae()
    generator = torch.Generator().manual_seed(0)
    positive = torch.arange(40) % 2 == 0
    activations = 0.1 * torch.randn(40, 32, generator=generator)
    activations[positive] += 3 * sae.W_dec[5]
    rows = ContrastRows(activations, positive, torch.arange(40) >= 20)
    direction, subject = (
        Direction("sea", rows.part(held_out=False).difference, rows),
        Subject(sae, Dictionary(sae.W_dec), 3.0, 0),
    )
    density = torch.full((48,), 0.02, dtype=torch.float64)
    kept = fidelity_row(subject, direction, SETTINGS, density, Occurrence(0.125, 3.0))
    tables = {
        "curves": curve_table(subject, [direction], SETTINGS),
        "latents": latent_table(subject, [direction], SETTINGS, density),
        "stability": stability_table(subject, [direction], SETTINGS),
        "encoder": encoder_table(subject, [direction], SETTINGS),
        "fidelity": pl.DataFrame([kept], schema=FIDELITY),
    }
    write_tables(root / "decomposition/main", tables)
    edited = decomposition_tables.edits().drop("sae", "model", "direction")
    write_table(root / "decomposition/main/sea/edits.parquet", edited, EDITS)
    of_all = pooled({"main": tables["fidelity"]}, {"main": ["main"]}, 0.95)
    write_table(root / "decomposition/fidelity.parquet", of_all, POOLED)
    row = ("sea", "main", "other", "cosine", 0.25, 0.125, 0.375, 3)
    apart = pl.DataFrame([row], schema=DIFFERENCES, orient="row")
    write_table(root / "decomposition/differences.parquet", apart, DIFFERENCES)
    return root


def test_the_page_tells_how_few_latents_hold_a_direction(study: Path, tmp_path: Path) -> None:
    output = report_study.write_report(study, tmp_path / "report").parent
    text = (output / "decomposition.html").read_text()
    assert (
        "'sea' takes 1 for an error of 0.5, 1 for an error of 0.1 of the latents"
        in text.replace("&#39;", "'")
    )
    assert "of random directions" in text
    assert "The encoder does not tell this" in text
    assert '<th scope="row">5</th>' in text
    assert "0.125" in text
    assert "to -6.4 [-6.9, -5.9]; with the direction itself to -8.0" in text
    assert "the cosine of main less that of other is 0.250 (0.125 to 0.375, 3 seeds each)" in text
    assert "takes 1 for an error" in (output / "index.html").read_text()
    assert_whole(pages_of(output), output)


def test_a_study_whose_directions_are_not_decomposed_yet_has_no_page(
    study: Path, tmp_path: Path
) -> None:
    for file in (study / "decomposition").rglob("*.parquet"):
        file.unlink()
    output = report_study.write_report(study, tmp_path / "report").parent
    assert not (output / "decomposition.html").exists()
    config = yaml.safe_load((study / "config.yaml").read_text())
    assert config["decomposition"]["directions"]["contrasts"]
