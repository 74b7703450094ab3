"""From planted rows to tables: splits, regimes, controls, differences and what probes rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse, stats

from saeflow.analyses.probing.basis import basis
from saeflow.analyses.probing.controls import random_latents, random_projections
from saeflow.analyses.probing.design import RESULTS, probe_set, sources, trainings
from saeflow.analyses.probing.io import load_representations, save_representations
from saeflow.analyses.probing.rows import ROWS, SURFACE, Representations, token_rows
from saeflow.analyses.probing.settings import Comparison, Fitting, Regimes
from saeflow.analyses.probing.summary import (
    bootstrap,
    compare,
    corrected_interval,
    quiver,
    summarise,
    verdict,
)
from saeflow.corpora.labelled import LabelledSet, split_by_group

FITTING = Fitting(
    activations=["logistic_ridge", "mean_difference"],
    k=[1, 4, 16],
    binarised=[4],
    strengths=[0.01, 1.0],
)
FEW = Regimes(scarcity=[2, 8, 32], imbalance=[0.1], noise=[0.3], k=[1, 4])


def planted(n: int = 240, seed: int = 0) -> tuple[LabelledSet, Representations, pl.DataFrame]:
    """Rows whose class is one latent of a sparse code, and another latent that is the text's length."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    code = (random.random((n, 128)) < 0.08) * random.uniform(0.5, 1.5, (n, 128))
    code[:, 0] = y * random.uniform(0.5, 1.5, n)
    length = random.integers(5, 50, n)
    code[:, 1] = length * (y if seed == 0 else 1) + 0.01
    directions = random.normal(size=(128, 32)) / 6
    x = (code @ directions + 0.3 * random.normal(size=(n, 32))).astype(np.float32)
    texts = LabelledSet("planted", [""] * n, ["no", "yes"], y.astype(float), np.arange(n))
    table = pl.DataFrame(
        {
            **{name: np.zeros(n) for name in ROWS},
            "row": np.arange(n),
            "test_set": [""] * n,
            "label": [texts.classes[c] for c in y],
            "class": y,
            "group": np.arange(n),
            "last_token": np.where(code[:, 0] > 0, 7, random.integers(0, 5, n)),
            "last_text": [str(c) for c in y],
            "tokens": length,
        }
    ).select(pl.col(name).cast(kind) for name, kind in ROWS.items())
    latents = sparse.csr_array(code.astype(np.float32))
    return texts, Representations({"hook": x}, {"main": latents}), table


@pytest.fixture(scope="module")
def results() -> pl.DataFrame:
    tables = []
    for seed in range(3):
        texts, represented, table = planted(seed=seed)
        named = LabelledSet(f"set{seed}", texts.prompts, texts.classes, texts.targets, texts.groups)
        listed = sources(named.name, represented, table, FITTING, {"main": "hook"}, 0)
        tables.append(probe_set(named, {}, listed, FITTING, FEW, 0))
    return pl.concat(tables)


def of(table: pl.DataFrame, **values: Any) -> pl.DataFrame:
    return table.filter(**{"test_set": "", **values})


def test_a_planted_latent_is_told_by_one_latent_and_random_latents_do_not(
    results: pl.DataFrame,
) -> None:
    summary = summarise(results, 0.95)
    full = of(summary, regime="full", set="set1")
    assert of(full, kind="latents", method="sparse", k=1)["auc"][0] == 1.0
    assert of(full, kind="random_latents", k=1)["auc"][0] < 0.85
    assert of(full, kind="surface")["auc"][0] < 0.65
    few = of(summary, regime="scarcity", level=32.0, set="set1")
    assert (
        of(few, kind="latents", k=1)["auc"][0]
        > of(few, kind="activations", method="logistic_ridge")["auc"][0]
    )


def test_shuffled_labels_give_one_half_in_every_method(results: pl.DataFrame) -> None:
    shuffled = of(summarise(results, 0.95), regime="shuffled")
    assert len(shuffled) == 3 * 4
    for _, part in shuffled.group_by("kind", "method", "k"):
        assert abs(part["auc"].mean() - 0.5) < 0.1  # type: ignore[operator]
        assert abs(part["validation"].mean() - 0.5) < 0.1  # type: ignore[operator]


def test_every_method_of_a_regime_has_the_same_rows(results: pl.DataFrame) -> None:
    for _, part in results.group_by("set", "regime", "level", "seed"):
        assert part["train_rows"].n_unique() == 1
        assert part["test_rows"].n_unique() == 1
    assert results["seed"].n_unique() == 5
    assert set(results["regime"]) == {"full", "scarcity", "imbalance", "noise", "shuffled"}


def test_regimes_change_training_rows_as_they_say_and_leave_the_tests() -> None:
    texts, _, _ = planted()
    split = split_by_group(texts, 0.25, 0, 0)
    drawn = {(t.regime, t.level): t for t in trainings(texts, split, FITTING, FEW, 0, 0)}
    full = drawn["full", 0.0]
    assert not set(full.rows) & set(split.test)
    assert len(drawn["scarcity", 8.0].rows) == 8
    assert drawn["scarcity", 8.0].targets.sum() == 4
    uneven = drawn["imbalance", 0.1]
    assert abs(uneven.targets.mean() - 0.1) < 0.02
    noisy = drawn["noise", 0.3]
    assert abs((noisy.targets != texts.targets[noisy.rows]).mean() - 0.3) < 0.01
    shuffled = drawn["shuffled", 0.0]
    assert shuffled.targets.sum() == full.targets.sum()
    assert (shuffled.targets != texts.targets[shuffled.rows]).mean() > 0.3


def test_sets_of_several_classes_are_scored_as_the_mean_over_each_against_the_others() -> None:
    texts, represented, table = planted()
    three = np.arange(len(texts)) % 3
    latents = represented.latents["main"].toarray()
    latents[:, 2] = three == 2
    named = LabelledSet("three", texts.prompts, ["a", "b", "c"], three.astype(float), texts.groups)
    listed = sources(
        "three",
        Representations(represented.activations, {"main": sparse.csr_array(latents)}),
        table,
        FITTING,
        {"main": "hook"},
        0,
    )
    results = summarise(
        probe_set(
            named, {}, listed, FITTING, Regimes(scarcity=[], imbalance=[0.1], noise=[], k=[1]), 0
        ),
        0.95,
    )
    row = of(results, regime="full", kind="latents", method="sparse", k=1)["auc"][0]
    assert 0.78 < row < 0.9  # one class is told for certain, the others as not that one
    assert "imbalance" not in set(results["regime"])


def test_random_latents_fire_as_often_as_those_they_stand_for() -> None:
    _, represented, _ = planted()
    latents, x = represented.latents["main"], represented.activations["hook"]
    drawn = random_latents(x, latents, 0, "main")
    own = np.bincount(latents.indices, minlength=128)
    assert np.bincount(drawn.indices, minlength=drawn.shape[1]).tolist() == own[own > 0].tolist()
    assert random_projections(x, 8, 0, "hook").shape == (240, 8)
    assert (random_latents(x, latents, 0, "main") != drawn).nnz == 0


def test_an_interval_over_splits_is_wider_than_if_they_were_new_data() -> None:
    values = np.array([0.8, 0.82, 0.78, 0.81, 0.79])
    mean, half = corrected_interval(values, 75, 25, 0.95)
    naive = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert mean == pytest.approx(0.8)
    assert half == pytest.approx((naive[1] - 0.8) * np.sqrt(1 + 5 / 3))
    assert corrected_interval(np.array([]), 1, 1, 0.95) == (None, None)


def test_a_difference_below_the_noise_of_reseeding_is_called_none() -> None:
    assert verdict(0.01, 0.02) == "none"
    assert verdict(0.03, 0.02) == "better"
    assert verdict(-0.03, 0.02) == "worse"
    assert verdict(0.03, None) == "none"


def test_differences_across_sets_are_paired_with_bootstrap_and_wilcoxon(
    results: pl.DataFrame,
) -> None:
    settings = Comparison(draws=500)
    table = compare(results, quiver(results), settings, 0)
    row = table.filter(regime="full", kind="latents", method="sparse", k=1).row(0, named=True)
    case = ["set", "seed"]
    rows = results.filter(regime="full", kind="latents", method="sparse", k=1).sort(case)
    base = results.filter(regime="full", kind="activations", method="logistic_ridge").sort(case)
    by_set = (rows["auc"] - base["auc"]).to_numpy().reshape(3, 5).mean(axis=1)
    assert row["difference"] == pytest.approx(by_set.mean())
    assert row["wilcoxon_p"] == pytest.approx(stats.wilcoxon(by_set).pvalue)
    assert (row["low"], row["high"]) == bootstrap(by_set, settings, 0)
    assert row["sets"] == row["better"] + row["worse"] + row["none"] == 3
    assert not len(table.filter(kind="activations", method="logistic_ridge"))


def test_an_sae_is_compared_with_its_controls_set_by_set(results: pl.DataFrame) -> None:
    worse = results.filter(kind="latents").with_columns(
        of=pl.lit("main-frozen_decoder"), auc=pl.col("auc") - 0.1
    )
    every = pl.concat([results, worse])
    table = compare(
        every, quiver(every), Comparison(draws=200), 0, [("main", "main-frozen_decoder")]
    )
    own = table.filter(than="the same on latents of main-frozen_decoder", regime="full")
    assert set(own["method"]) == {"sparse", "binarised", "lasso"}
    assert set(own["of"]) == {"main"}
    np.testing.assert_allclose(own["difference"], 0.1)
    np.testing.assert_allclose(own["baseline"], own["auc"] - 0.1)
    assert own["better"].to_list() == [3] * len(own)


def test_the_quiver_takes_the_best_by_validation_and_latents_only_where_they_may(
    results: pl.DataFrame,
) -> None:
    chosen = quiver(results)
    assert set(chosen.filter(arrows="activations")["kind"]) == {"activations"}
    for row in chosen.filter(regime="full").to_dicts():
        able = results.filter(set=row["set"], regime="full", seed=row["seed"])
        kinds = ["activations"] if row["arrows"] == "activations" else ["activations", "latents"]
        assert row["validation"] == able.filter(pl.col("kind").is_in(kinds))["validation"].max()
    assert "latents" in set(chosen.filter(regime="full", arrows="activations and latents")["kind"])


def test_what_a_probe_rests_on_is_named_with_what_makes_it_suspicious() -> None:
    texts, represented, table = planted()
    rests = basis(texts, table, represented.latents["main"], "main", FITTING, 0)
    first = rests.filter(latent=0).row(0, named=True)
    assert first["seeds"] == 5
    assert first["auc"] == 1.0
    assert (first["active"], first["active_other"]) == (1.0, 0.0)
    assert first["suspicious"].startswith("100% of its firings are at the token")
    long = rests.filter(latent=1).row(0, named=True)
    assert long["surface"] == "tokens"


def test_a_shifted_set_is_tested_by_what_was_fitted_to_the_set() -> None:
    texts, represented, table = planted(300)
    own = texts.part(np.arange(200))
    shifted = {
        "far": (np.arange(200, 300), 1 - texts.targets[200:])
    }  # where the label means the opposite
    listed = sources("planted", represented, table, FITTING, {"main": "hook"}, 0)
    results = probe_set(
        own, shifted, listed, FITTING, Regimes(scarcity=[], imbalance=[], noise=[], k=[1]), 0
    )
    far = results.filter(test_set="far", kind="latents", method="sparse", k=1)
    assert far["auc"].to_list() == [0.0] * 5
    assert set(results.filter(regime="shuffled")["test_set"]) == {""}


def test_rows_are_cut_cleared_and_balanced_and_told(tmp_path: Path) -> None:
    prompts: list[Any] = [f"text {i}" for i in range(60)] + [
        "text 1",
        "text 2",
        "a " * 40 + "end",
        "b " * 40 + "end",
    ]
    targets = np.array([i % 3 > 0 for i in range(60)] + [True, False, True, True], float)
    texts = LabelledSet("set", prompts, ["no", "yes"], targets, np.arange(64))
    far = LabelledSet(
        "set/far", ["text 0", "text 3", "new"], ["no", "yes"], np.array([0.0, 0, 1]), np.arange(3)
    )

    def tokenise(said: Any) -> Any:
        return [(text, [ord(letter) for letter in text]) for text in said]

    rows = token_rows(texts, {"far": far}, tokenise, 10, 0, 30, 0)
    own = rows.table.filter(test_set="")
    assert own["label"].value_counts().sort("label")["count"].to_list() == [15, 15]
    assert all(len(ids) <= 10 and ids[0] == 0 for ids in rows.tokens)
    removed = rows.removed[""]
    # "text 1" stands twice with one label, "text 2" with two, and the long ones are cut to the same end.
    assert (removed.repeated, removed.contradictory) == (2, 2) or (
        removed.repeated,
        removed.contradictory,
    ) == (1, 2)
    assert removed.balanced == 64 - removed.repeated - removed.contradictory - 30
    kept = {tuple(ids) for ids in rows.tokens[: len(own)]}
    assert not kept & {tuple(ids) for ids in rows.tokens[len(own) :]}
    assert len(rows.texts) == len(own)
    assert own.select(SURFACE).null_count().sum_horizontal()[0] == 0


def test_representations_come_back_as_they_were_written(tmp_path: Path) -> None:
    _, represented, _ = planted()
    save_representations(tmp_path / "rows.safetensors", represented)
    again = load_representations(tmp_path / "rows.safetensors")
    np.testing.assert_array_equal(again.activations["hook"], represented.activations["hook"])
    assert (again.latents["main"] != represented.latents["main"]).nnz == 0


def test_results_have_their_schema(results: pl.DataFrame) -> None:
    assert dict(results.schema) == dict(RESULTS)
