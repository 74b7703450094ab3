"""The page of geometry says what is there beside its null, and what the model goes by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import report_study
import torch
from pages import assert_whole, pages_of
from planted_circle import HOOK, NULLS, POINTS, planted_tables
from planted_latents import LATENTS, planted_latent_tables

from saeflow.analyses.geometry.fitting import fit_all
from saeflow.analyses.geometry.page import clearest
from saeflow.analyses.geometry.reading import Read, save_activations
from saeflow.tables import write_table


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study that was reported, with the tables of the planted model."""
    root = tmp_path / "tales"
    report_study.write_study(root, figures=[], latents=0)
    asked = {
        "points": POINTS.model_dump(exclude_none=True),
        "latents": LATENTS.model_dump(exclude_none=True),
    }
    report_study.ask_only_for(root, "examples", geometry=asked)
    (root / "geometry").mkdir()
    for name, table in {**planted_tables(tmp_path), **planted_latent_tables(tmp_path)}.items():
        write_table(root / f"geometry/{name}.parquet", table)
    return root


def test_the_page_tells_circles_lines_and_causes(study: Path, tmp_path: Path) -> None:
    output = report_study.write_report(study, tmp_path / "report").parent
    text = " ".join((output / "geometry.html").read_text().split())
    assert "The circle of ring is there" in text
    assert "7 of 7 neighbours are beside each other" in text
    assert "goes on as after that other in 1.000 (" in text
    assert "The line of time is there" in text
    assert "7 latents of wide stand for ring: 7 for one word each" in text
    assert "latents of wide stand along the line of time in the order of their numbers" in text
    assert "pair: 2 latents of wide fire on the set in 0.8 of 5 contexts" in text
    assert "The circle of ring is there" in (output / "index.html").read_text()
    assert_whole(pages_of(output), output)


def test_a_study_whose_words_are_not_read_yet_has_no_page(study: Path, tmp_path: Path) -> None:
    for file in (study / "geometry").glob("*.parquet"):
        file.unlink()
    output = report_study.write_report(study, tmp_path / "report").parent
    assert not (output / "geometry.html").exists()


def test_a_line_that_fits_every_text_in_sample_is_no_line_where_blocks_are_held_out(
    study: Path, tmp_path: Path
) -> None:
    """Fewer texts than dimensions: any numbers are fitted without error."""
    draw = np.random.default_rng(0)
    texts, values = draw.standard_normal((40, 400)), draw.uniform(0, 100, 40)
    tensors = {
        f"lines/time/{HOOK}": torch.from_numpy(texts),
        "lines/time/values": torch.from_numpy(values),
        "lines/time/confounds": torch.from_numpy(draw.standard_normal((40, 2))),
        "lines/time/groups": torch.arange(40),
    }
    save_activations(tmp_path / "random.safetensors", tensors)
    lines = {"time": POINTS.lines["time"].model_copy(update={"read_off": {}})}
    points = POINTS.model_copy(update={"groups": {}, "lines": lines})
    tables = fit_all(Read(tmp_path / "random.safetensors"), points, NULLS, [HOOK], 0)
    row = tables["lines"].filter(method="pls").row(0, named=True)
    assert row["in_sample_r2"] > 0.9
    assert row["r2"] < row["null_high"]
    for name, table in tables.items():
        write_table(study / f"geometry/{name}.parquet", table)
    output = report_study.write_report(study, tmp_path / "report").parent
    text = " ".join((output / "geometry.html").read_text().split())
    assert "The line of time says no more than numbers exchanged between blocks" in text
    assert "What a line says of texts that it was fitted to is no evidence" in text


def test_theclearest_of_many_hooks_must_be_clearer_than_one() -> None:
    draw = np.random.default_rng(0)
    rows = [("ring", f"blocks.{layer}.hook_resid_post", r2, 0.03)
            for layer, r2 in enumerate(draw.uniform(0.5, 0.8, 12))]  # fmt: skip
    table = pl.DataFrame(rows, schema=["group", "hook", "r2", "p"], orient="row")
    ((row, stands, told),) = clearest(table, "group", 0.95)
    assert row["r2"] == table["r2"].max()
    assert not stands
    assert told == "p = 0.030 at the clearest of 12 hooks"
    ((_, stands, told),) = clearest(table.head(1), "group", 0.95)
    assert stands
    assert told == "p = 0.030"


def test_texts_whose_times_are_alike_are_in_some_order_along_any_line(tmp_path: Path) -> None:
    """Lines of exchanged numbers order texts of two times as well as the line does."""
    draw = np.random.default_rng(1)
    values, apart = np.arange(60.0), draw.standard_normal((2, 16))
    later = np.repeat([0, 1], 30)
    tensors = {
        f"lines/time/{HOOK}": torch.from_numpy(draw.standard_normal((60, 16))),
        "lines/time/values": torch.from_numpy(values),
        "lines/time/confounds": torch.from_numpy(draw.standard_normal((60, 2))),
        "lines/time/groups": torch.arange(60),
    }
    again = {
        HOOK: torch.from_numpy(5 * apart[later] + draw.standard_normal((60, 16))),
        "values": torch.from_numpy(1000.0 * later + draw.uniform(0, 10, 60)),
        "confounds": torch.zeros(60, 2),
        "groups": torch.arange(60),
    }
    tensors |= {f"lines/time/again/{key}": tensor for key, tensor in again.items()}
    save_activations(tmp_path / "random.safetensors", tensors)
    points, nulls = POINTS.model_copy(update={"groups": {}}), NULLS.model_copy()
    tables = fit_all(Read(tmp_path / "random.safetensors"), points, nulls, [HOOK], 0)
    row = tables["read_off"].row(0, named=True)
    assert row["rank_low"] > 0 or row["rank_high"] < 0  # texts alone would have it told
    assert row["null_low"] < row["rank"] < row["null_high"]
    assert row["p"] > 0.1
