"""The list of latents and their pages hold what the tables say."""

from __future__ import annotations

import base64
import math
import shutil
from pathlib import Path

import figure_tables as made
import latent_tables
import numpy as np
import polars as pl
import pytest
import report_study
import yaml
from pages import assert_whole, pages_of

from saeflow.analyses.examples import latent_pages
from saeflow.analyses.examples.latent_index import STATISTICS
from saeflow.report.payload import half_floats, value_of


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "tales"
    report_study.write_study(root, goals=2, figures=[])
    return root


def written_from(study: Path, output: Path) -> Path:
    return report_study.write_report(study, output).parent


@pytest.fixture(scope="module")
def written(study: Path) -> Path:
    return written_from(study, study.parent / "report")


def data(written: Path, name: str) -> dict:
    return value_of((written / f"data/{name}.js").read_text("ascii"))


def test_latents_that_the_config_no_longer_asks_about_are_not_shown(
    study: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "tales"
    shutil.copytree(study, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"logit_lens": None}))
    output = written_from(copy, tmp_path / "report")
    assert {statistic["name"] for statistic in data(output, "latents-main")["statistics"]} == {
        "density",
        "maximum",
        "mean_active",
        "top_token_share",
    }
    (copy / "config.yaml").write_text(
        yaml.safe_dump(config | {"logit_lens": None, "examples": None})
    )
    output = written_from(copy, tmp_path / "report")
    assert not (output / "latents.html").exists()
    assert "latents.html" not in (output / "goal-anger.html").read_text()


def test_the_list_of_latents_holds_every_statistic_to_three_digits(
    study: Path, written: Path
) -> None:
    index = data(written, "latents-main")
    activity = pl.read_parquet(study / "examples/main/latents.parquet")
    lens = pl.read_parquet(study / "logit_lens/main/latents.parquet")
    columns = {
        statistic["name"]: unpacked_halves(statistic["values"], index["count"])
        for statistic in index["statistics"]
    }
    assert set(columns) == {statistic.name for statistic in STATISTICS} - {
        "r2"
    }  # this study has no fit by latent
    np.testing.assert_allclose(columns["kurtosis"], lens["kurtosis"], rtol=1e-3)
    np.testing.assert_allclose(columns["maximum"], activity["maximum"], rtol=1e-3)
    alive = activity["density"].to_numpy() > 0
    np.testing.assert_allclose(
        10 ** columns["density"][alive], activity["density"].to_numpy()[alive], rtol=1e-2
    )
    assert np.isnan(columns["density"][~alive]).all()
    fires = [
        index["words"][number] or None
        for number in unpacked_integers(index["fires"], index["count"])
    ]
    assert fires == activity["top_token"].to_list()
    tokens = (
        pl.read_parquet(study / "logit_lens/main/tokens.parquet")
        .filter(side="top", rank=1)
        .sort("latent")
    )
    second = [
        index["words"][number] for number in unpacked_integers(index["promotes"][1], index["count"])
    ]
    assert second == tokens["token"].to_list()
    assert index["neuronpedia"] == "tales-lm/1-res"
    assert index["targeted"] == [[5, "anger", 1.0], [5, made.GOALS[1], 1.0]]


def unpacked_halves(text: str, count: int) -> np.ndarray:
    return planes(text, count, 2).view("<f2").ravel().astype(float)


def unpacked_integers(text: str, count: int) -> np.ndarray:
    return planes(text, count, 4).view("<u4").ravel()


def planes(text: str, count: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(
        np.frombuffer(base64.b64decode(text), np.uint8).reshape(width, count).T
    )


def test_a_latent_s_page_holds_what_the_tables_say(study: Path, written: Path) -> None:
    chunk = data(written, "latents-main/00001")
    assert (chunk["first"], len(chunk["latents"])) == (64, 64)
    latent, entry = 70, chunk["latents"][6]
    contexts = pl.read_parquet(study / "examples/main/contexts.parquet").filter(latent=latent)
    vocabulary = latent_tables.words(400)
    maximum = pl.read_parquet(study / "examples/main/latents.parquet")["maximum"][latent]
    assert len(entry["contexts"]) == len(contexts) == 6
    for shown, row in zip(entry["contexts"], contexts.to_dicts(), strict=True):
        assert [chunk["words"][str(token)] for token in shown[5]] == [
            vocabulary[token] for token in row["token_ids"]
        ]
        np.testing.assert_allclose(
            np.array(shown[6]) / 999 * maximum, row["activations"], atol=maximum / 999
        )
    tokens = pl.read_parquet(study / "logit_lens/main/tokens.parquet").filter(
        latent=latent, side="bottom"
    )
    assert [word for word, _ in entry["tokens"]["bottom"]] == tokens["token"].to_list()
    assert [name for name, *_ in entry["sets"]] == (
        pl.read_parquet(study / "logit_lens/main/enrichment.parquet")
        .filter(latent=latent)
        .sort(pl.col("ks").abs(), descending=True)["set"]
        .to_list()
    )
    assert entry["raised"] == [[latent, 1.0]]
    assert entry["lowered"] == [[latent + 1, -0.5]]
    assert sum(entry["histogram"]["counts"]) > 0


def test_a_latent_that_never_fires_has_no_contexts_and_no_histogram(written: Path) -> None:
    dead = data(written, "latents-main/00000")["latents"][49]
    assert (dead["contexts"], dead["histogram"], dead["statistics"]["density"]) == ([], None, None)
    assert dead["tokens"]["top"]


def test_neighbours_are_those_of_the_full_table_of_cosines() -> None:
    decoder = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    cosines = decoder.astype(float) @ decoder.T.astype(float)
    np.fill_diagonal(cosines, -2)
    neighbours = latent_pages.nearest(decoder, range(100, 140), 5)
    for place, pairs in zip(range(100, 140), neighbours, strict=True):
        order = np.argsort(-cosines[place])[:5]
        assert [latent for latent, _ in pairs] == order.tolist()
        np.testing.assert_allclose([value for _, value in pairs], cosines[place][order], atol=1e-6)


def test_the_largest_are_in_order_and_never_unknown() -> None:
    values = np.array([1.0, np.nan, 3.0, 3.0, -2.0, np.inf])
    assert latent_pages.largest(values, 6) == [(2, 3.0), (3, 3.0), (0, 1.0), (4, -2.0)]
    assert latent_pages.largest(values, 3) == [(2, 3.0), (3, 3.0), (0, 1.0)]
    raised, lowered = latent_pages.moved(np.array([0.0, 2.0, -1.0, 0.5]))
    assert (raised, lowered) == ([(1, 2.0), (3, 0.5)], [(2, -1.0)])


def test_numbers_beyond_half_precision_stay_finite() -> None:
    numbers = unpacked_halves(half_floats(np.array([1e9, -1e9, math.nan, 0.25])), 4)
    assert numbers[0] == 65504
    assert numbers[1] == -65504
    assert math.isnan(numbers[2])
    assert numbers[3] == 0.25


def test_tokens_without_spaces_are_set_apart_in_contexts() -> None:
    assert latent_pages.gap(["the", "dog", "."]) == " "
    assert latent_pages.gap([" the", " dog", "s"]) == ""


def test_pages_of_a_study_with_examples_alone_show_text_and_nothing_of_others(
    study: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tales"
    shutil.copytree(study, root)
    report_study.ask_only_for(root, "examples")
    output = written_from(root, tmp_path / "report")
    pages = pages_of(output)
    assert set(pages) == {"index.html", "latents.html", "saes.html"}
    assert_whole(pages, output)
    assert data(output, "latents-main")["targeted"] == []
    chunk = data(output, "latents-main/00001")
    entry, vocabulary = chunk["latents"][6], latent_tables.words(400)
    assert len(entry["contexts"]) == 6
    for context in entry["contexts"]:
        assert [chunk["words"][str(token)] for token in context[5]] == [
            vocabulary[token] for token in context[5]
        ]
    absent = ("sets", "raised", "lowered", "causal")
    assert all(not entry[name] for name in absent)
    assert entry["cofiring"]
