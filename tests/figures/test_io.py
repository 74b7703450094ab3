"""Tables are found by the paths that figures name, and pictures are written whole."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import figure_tables as made
import h5py
import matplotlib
import numpy as np
import polars as pl
import pytest
from drawing import FIGURES, SMALL, drawn, tables_of
from typer.testing import CliRunner

from saeflow.cli.main import app
from saeflow.errors import DamagedError, SaeflowError
from saeflow.figures.io import read_tables, save, write_figure


def test_tables_are_found_by_their_paths_and_names_in_these_are_columns(tmp_path: Path) -> None:
    written = {
        "steering/summary.parquet": made.summary(1),
        "steering/london/side_effects.parquet": made.side_effects(1).drop("goal"),
        "saes/topk/training.parquet": made.sae_training().drop("sae"),
        "logit_lens/topk/latents.parquet": made.lens_latents().drop("sae"),
    }
    for name, table in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(tmp_path / name)
    paths = [tmp_path / name for name in written]

    def read(name: str) -> pl.DataFrame:
        (table,) = read_tables(FIGURES[name], tmp_path, paths)
        return table

    assert read("pareto").equals(written["steering/summary.parquet"])
    assert read("side_effects")["goal"].unique().to_list() == ["london"]
    assert read("sae_training")["sae"].unique().to_list() == ["topk"]
    assert read("lens_moments")["sae"].unique().to_list() == ["topk"]
    assert read("methods_forest").is_empty()


def test_what_was_fetched_is_found_outside_of_the_folder_of_the_study(tmp_path: Path) -> None:
    path = tmp_path / "resources/published/abc/saes/topk/training.parquet"
    path.parent.mkdir(parents=True)
    made.sae_training().drop("sae").write_parquet(path)
    study = tmp_path / "results/study"
    (table,) = read_tables(FIGURES["sae_training"], study, [path])
    assert table["sae"].unique().to_list() == ["topk"]


def test_the_numbers_of_a_json_file_are_one_row(tmp_path: Path) -> None:
    path = tmp_path / "effects/topk/metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"r2": 0.25, "rows": 3, "r2_ceiling": null, "whole": true, "method": "x"}')
    predictions, metrics = read_tables(FIGURES["effects_predicted_measured"], tmp_path, [path])
    assert predictions.is_empty()
    assert metrics.rows(named=True) == [{"r2": 0.25, "rows": 3.0, "sae": "topk"}]


def test_columns_of_an_hdf5_file_are_read_without_its_matrices(tmp_path: Path) -> None:
    path = tmp_path / "effects/topk/effects.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["effects"] = np.zeros((2, 5), dtype=np.float16)
        file["scale"], file["status"] = [1.0, 2.5], np.array([0, 2], dtype=np.uint8)
        file["status"].attrs["names"] = ["ok", "above_at_zero", "never_reached", "clamped"]
    tables = read_tables(FIGURES["effect_scales"], tmp_path, [path])
    rows = FIGURES["effect_scales"].rows(*tables, SMALL)
    assert rows.rows(named=True) == [
        {"scale": 1.0, "status": "ok"},
        {"scale": 2.5, "status": "never_reached"},
    ]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DamagedError, match="cannot be read as a table"):
        read_tables(FIGURES["effect_scales"], tmp_path, [path])


def test_a_picture_carries_its_title_and_alternative_text(tmp_path: Path) -> None:
    drawing, _, rows = drawn("methods_forest")
    save(drawing, tmp_path / "x", rows, "A title", "What < is seen & said")
    said = [
        node.text
        for node in ElementTree.parse(tmp_path / "x.svg").iter(
            "{http://purl.org/dc/elements/1.1/}description"
        )
    ]
    assert said == ["What < is seen & said"]


def test_the_look_does_not_depend_on_the_settings_of_the_user(tmp_path: Path) -> None:
    figure = FIGURES["effect_scales"]

    def picture(folder: str) -> bytes:
        return write_figure(figure, tables_of(figure), SMALL, tmp_path / folder)[1].read_bytes()

    plain = picture("plain")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        assert picture("other") == plain


def test_an_unknown_figure_and_an_absent_table_are_told_in_one_sentence(tmp_path: Path) -> None:
    asked = ["figures", "draw", "heatmap", "x.parquet", "--study", ".", "--settings", "{}"]
    done = CliRunner().invoke(app, [*asked, "--output", str(tmp_path)])
    assert "there is no figure 'heatmap'" in str(done.exception)
    with pytest.raises(SaeflowError, match="no such file"):
        read_tables(FIGURES["methods_forest"], tmp_path, [tmp_path / "steering/best.parquet"])
