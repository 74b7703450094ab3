"""Absorption of first letters, on words whose truth is planted, and accuracies of few latents."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from saeflow.analyses.probing.absorption import (
    ABSORPTION,
    Projections,
    absorbed_share,
    absorbed_wholly,
    absorption,
    own_latents,
    projections,
    shown_before,
    words_of,
)
from saeflow.analyses.probing.accuracy import _as_many, accuracies, sparse_accuracies
from saeflow.analyses.probing.quality import (
    SAES,
    LeastKnown,
    controls_of,
    known_letters,
    scores,
    write_scores,
)
from saeflow.analyses.probing.rows import Representations
from saeflow.analyses.probing.settings import Fitting
from saeflow.corpora.labelled import LabelledSet
from saeflow.tables import read_table, write_table


def seen(**values: list[float]) -> Projections:
    """Projections on a direction: by default whole, and nothing of any latent."""
    n = len(next(iter(values.values())))
    given = {
        "whole": [1.0] * n,
        "own": [0.0] * n,
        "fires": [False] * n,
        "alone": [0.0] * n,
        "alone_cosine": [0.5] * n,
        "together": [0.0] * n,
        **values,
    }
    return Projections(**{name: np.array(value) for name, value in given.items()})


def test_a_word_is_absorbed_wholly_where_only_another_latent_holds_its_letter() -> None:
    cases = seen(
        alone=[0.5, 0.39, 0.5, 0.5, 0.5],
        fires=[False, False, True, False, False],
        alone_cosine=[0.5, 0.5, 0.5, 0.02, 0.5],
        whole=[1.0, 1.0, 1.0, 1.0, -1.0],
    )
    assert absorbed_wholly(cases).tolist() == [True, False, False, False, False]


def test_the_share_that_is_absorbed_is_that_of_what_is_missing() -> None:
    cases = seen(
        #   all of it, half of what there is, too little, own hold all, more than is missing
        together=[0.6, 0.5, 0.3, 0.9, 0.9],
        own=[0.0, 0.5, 0.1, 1.2, 0.75],
    )
    np.testing.assert_allclose(absorbed_share(cases), [1.0, 0.5, 0.0, 0.0, 0.25])


def test_projections_are_of_decoder_rows_and_the_others_lie_along_the_direction() -> None:
    decoder = np.array([[1.0, 0.0], [0.8, 0.6], [0.05, 0.9987], [-1.0, 0.0]])
    latents = sparse.csr_array(np.array([[0.0, 2.0, 3.0, 1.0], [4.0, 1.0, 0.0, 0.0]]))
    x = np.array([[1.7, 2.0], [4.8, 0.6]])
    projected = projections(x, latents, decoder, np.array([0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(projected.whole, [1.7, 4.8])
    np.testing.assert_allclose(projected.own, [0.0, 4.0])
    assert projected.fires.tolist() == [False, True]
    np.testing.assert_allclose(projected.alone, [1.6, 4.0])
    np.testing.assert_allclose(
        projected.together, [1.6, 0.8]
    )  # the third is not along, the last against


def planted_words(absorbed: bool) -> tuple[np.ndarray, sparse.csr_array, np.ndarray, np.ndarray]:
    """Activations that hold a letter and a word, and a code of them; of one word in three its latent
    has taken in the letter, so that the letter's own is silent."""
    random = np.random.default_rng(0)
    letters = np.repeat(np.arange(3), 80)
    words = np.arange(240) // 4  # four tokens of each word, so that a split has it on both sides
    directions = np.linalg.qr(random.normal(size=(63, 63)))[0]
    x = 2 * directions[letters] + directions[3 + words] + 0.05 * random.normal(size=(240, 63))
    code = np.zeros((240, 63))
    code[np.arange(240), letters] = 2.0
    code[np.arange(240), 3 + words] = 1.0
    decoder = directions.copy()
    for word in np.flatnonzero(np.arange(60) % 3 == 0) if absorbed else []:
        its = words == word
        code[its, letters[its]] = 0.0
        code[its, 3 + word] = 5**0.5
        decoder[3 + word] = (2 * directions[letters[its][0]] + directions[3 + word]) / 5**0.5
    return x, sparse.csr_array(code), decoder, letters


@pytest.mark.parametrize(("planted", "share"), [(False, 0.0), (True, 1 / 3)])
def test_planted_absorption_is_found_and_none_where_there_is_none(
    planted: bool, share: float
) -> None:
    x, latents, decoder, letters = planted_words(planted)
    table = absorption("main", decoder, x, latents, letters, 5, 0.25, 0)
    assert table.schema == pl.Schema(ABSORPTION)
    assert table["letter"].unique().sort().to_list() == ["a", "b", "c"]
    assert table["probe_f1"].min() > 0.95
    assert (
        table["latents"].list.first()
        == table["letter"].replace_strict({"a": 0, "b": 1, "c": 2}, return_dtype=pl.Int32)
    ).all()
    full, fraction = table["full_absorption"].mean(), table["absorption_fraction"].mean()
    if not planted:
        assert full == fraction == 0.0
        return
    # Words whose letter's own latents include their own are not absorbed, so it is a little less.
    assert share / 2 < full <= share + 0.1
    assert fraction == pytest.approx(full, abs=0.02)


def test_words_are_single_tokens_behind_a_space() -> None:
    tokens = [
        "<bos>",
        "\u0120apple",
        "\u2581Berlin",
        "cherry",
        "\u0120a",
        "\u0120d\u00e9j\u00e0",
        "\u0120egg1",
        " zoo",
    ]
    words = words_of(tokens, 10, 0)
    assert words.ids.tolist() == [1, 2, 7]
    assert words.letters.tolist() == [0, 1, 25]
    assert len(words_of(tokens, 2, 0).ids) == 2
    assert words_of(["<bos>", "whole", "words"], 10, 0).ids.tolist() == [1, 2]
    assert not len(words_of(["12", "\u0120x"], 10, 0).ids)


def test_accuracies_of_few_latents_are_those_of_the_straightforward_loop() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(1)
    y = np.arange(120) % 2 == 1
    z = (random.random((120, 30)) < 0.3) * random.uniform(0.5, 2, (120, 30))
    z[:, 4] += y * (random.random(120) < 0.7)
    train, test = np.arange(80), np.arange(80, 120)
    apart = np.abs(z[train][y[train]].mean(axis=0) - z[train][~y[train]].mean(axis=0))
    expected = []
    for k in (1, 2, 5):
        which = np.argsort(-apart, kind="stable")[:k]
        model = LogisticRegression(max_iter=1000).fit(z[train][:, which], y[train])
        expected.append(float((model.predict(z[test][:, which]) == y[test]).mean()))
    accuracies = sparse_accuracies(sparse.csr_array(z), y, train, test)
    np.testing.assert_allclose(accuracies, expected)
    assert accuracies[0] > 0.6


def test_scores_of_saes_that_differ_in_their_seed_are_one_row(tmp_path) -> None:
    random = np.random.default_rng(2)
    n = 160
    y = np.arange(n) % 2
    code = (random.random((n, 20)) < 0.2) * 1.0
    code[:, 3] = y
    x = np.stack([y + 0.1 * random.normal(size=n), random.normal(size=n)], axis=1)
    texts = LabelledSet("planted", [""] * n, ["no", "yes"], y.astype(float), np.arange(n))
    good, bad = (sparse.csr_array(each.astype(np.float32)) for each in (code, code[:, 4:]))
    latents = {"main-seed-0": good, "main-seed-1": good, "main-frozen": bad}
    table = accuracies(texts, Representations({"hook": x}, latents), Fitting(), 0)
    write_table(tmp_path / "accuracy.parquet", table)
    training = {"architecture": "topk", "d_sae": 20, "k": 4}
    described = {
        name: {"kind": "sae", "reads": "hook", "writes": "hook", "training": training | own}
        for name, own in {
            "main-seed-0": {"seed": 0},
            "main-seed-1": {"seed": 1},
            "main-frozen": {"seed": 0, "control": "frozen_decoder"},
        }.items()
    }
    hook_of = dict.fromkeys(latents, "hook")
    least = LeastKnown(0.6, 20)
    write_scores(tmp_path, described, hook_of, [tmp_path / "accuracy.parquet"], None, least)
    main, frozen = read_table(tmp_path / "saes.parquet", SAES).to_dicts()
    assert (main["sae"], main["seeds"], main["se_over"]) == ("main-seed-0, main-seed-1", 2, "seeds")
    assert (main["sparse_probing_1"], main["activation_probing"]) == (1.0, pytest.approx(1.0))
    assert (frozen["control"], frozen["se_over"]) == ("frozen_decoder", "splits")
    assert frozen["sparse_probing_5"] < 0.75
    assert main["full_absorption"] is None
    # The standard error over splits is that of Nadeau and Bengio.
    own = table.filter(of="main-frozen", k=1).sort("seed")
    values, ratio = own["accuracy"].to_numpy(), own["test_rows"][0] / own["train_rows"][0]
    scored = scores("main-frozen", "hook", table, pl.DataFrame(schema=ABSORPTION))
    expected = np.sqrt((1 / 5 + ratio) * values.var(ddof=1))
    assert scored["sparse_probing_1_se"] == pytest.approx(expected)


def test_letters_count_that_activations_tell_and_splits_in_which_they_tell_enough() -> None:
    """As in SAEBench: an F1 above 0.6, of a least number of letters, or there is no score."""
    rows = [
        ("main", split, letter, 0.61 if letter != "c" or split else 0.6)
        for split in (0, 1)
        for letter in "abc"
    ]
    table = pl.DataFrame(rows, schema=["sae", "seed", "letter", "probe_f1"], orient="row")
    assert known_letters(table, LeastKnown(0.6, 2))["letter"].to_list() == list("ababc")
    assert known_letters(table, LeastKnown(0.6, 3))["seed"].unique().to_list() == [1]
    assert known_letters(table, LeastKnown(0.6, 4)).is_empty()


def test_a_word_stands_behind_others_with_their_first_letters() -> None:
    words = [" apple", " Bread", " cod", " dill"]
    text = shown_before(words, 1, 2, 0)
    lines = text.split("\n")
    assert lines[0] == lines[-1] == ""
    assert len(lines) == 4
    for line in lines[1:3]:
        word = line.split()[0]
        assert line == f" {word} has the first letter: {word[0].upper()}"
        assert f" {word}" in words
    assert " Bread" not in text
    assert shown_before(words, 1, 3, 0).count("first letter") == 3


def test_a_latent_more_is_own_only_where_f1_rises_by_more_than_three_hundredths() -> None:
    """And latents are seen as they are: of values a hundred times as large the same are own."""
    random = np.random.default_rng(3)
    y = np.arange(300) % 5 == 0
    z = (random.random((300, 12)) < 0.2) * random.uniform(0.5, 3, (300, 12))
    z[:, 7] = y * (random.random(300) < 0.8) * 2.0
    z[:, 2] = y * (z[:, 7] == 0) * 4.0
    for scale in (1.0, 100.0):
        own, f1 = own_latents(sparse.csr_array(scale * z), y, np.arange(200), np.arange(200, 300))
        assert sorted(own.tolist()) == [2, 7]
        assert f1 == 1


def test_each_other_class_gives_as_many_rows() -> None:
    targets = np.repeat([0.0, 1.0, 2.0, 3.0], [30, 30, 30, 200])
    rows = _as_many(targets, 0, np.arange(len(targets)), np.random.default_rng(0))
    assert np.bincount(targets[rows].astype(int)).tolist() == [30, 10, 10, 10]
    few = _as_many(targets, 3, np.arange(len(targets)), np.random.default_rng(0))
    assert np.bincount(targets[few].astype(int)).tolist() == [30, 30, 30, 90]


def test_controls_are_those_that_differ_in_nothing_else() -> None:
    def sae(**training: object) -> dict[str, object]:
        return {"kind": "sae", "reads": "hook", "writes": "hook", "training": {"k": 4} | training}

    saes = {
        "main": sae(),
        "main-frozen_decoder": sae(control="frozen_decoder"),
        "wide": sae(d_sae=9, init_from="main"),
        "wide-frozen_encoder": sae(d_sae=9, control="frozen_encoder"),
        "other": {**sae(), "training": None},
    }
    assert controls_of(saes) == [
        ("main", "main-frozen_decoder"),
        ("wide", "wide-frozen_encoder"),
    ]
