"""Probes of numbers: equal to scikit-learn, judged by pairs in order, blind to test rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from saeflow.analyses.probing.design import RESULTS, Source
from saeflow.analyses.probing.numbers import (
    concordance,
    correlations,
    probe_numbers,
    ridge_numbers,
)
from saeflow.analyses.probing.settings import Fitting, Regimes
from saeflow.corpora.labelled import LabelledSet

FITTING = Fitting(k=[1, 4], strengths=[0.001, 0.1, 10.0])
FEW = Regimes(scarcity=[2, 16], imbalance=[], noise=[], k=[1])


def test_concordance_is_the_share_of_pairs_in_order_and_of_two_classes_the_area() -> None:
    random = np.random.default_rng(0)
    numbers, scores = random.integers(0, 9, 60) * 1.0, random.integers(0, 12, 60) * 1.0
    pairs = [(i, j) for i in range(60) for j in range(60) if numbers[i] < numbers[j]]
    share = np.mean([(scores[i] < scores[j]) + 0.5 * (scores[i] == scores[j]) for i, j in pairs])
    assert concordance(scores, numbers) == pytest.approx(share, abs=1e-12)
    y = random.random(60) < 0.4
    assert concordance(scores, y * 1.0) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)
    assert concordance(np.zeros(60), numbers) == 0.5
    assert np.isnan(concordance(scores, np.ones(60)))


def test_regressions_for_all_strengths_are_scikit_learns() -> None:
    random = np.random.default_rng(1)
    for n, d in ((80, 6), (20, 50)):
        x = random.normal(size=(n, d))
        x -= x.mean(axis=0)
        y = x[:, 0] + random.normal(size=n)
        weights, mean = ridge_numbers(x, y, [0.01, 1.0, 50.0])
        for place, c in enumerate((0.01, 1.0, 50.0)):
            peer = Ridge(alpha=1 / (2 * c)).fit(x, y)
            np.testing.assert_allclose(weights[:, place], peer.coef_, atol=1e-9)
            assert mean == pytest.approx(peer.intercept_)


def test_correlations_of_sparse_latents_are_those_of_the_dense_matrix() -> None:
    random = np.random.default_rng(2)
    z = (random.random((50, 8)) < 0.4) * random.normal(size=(50, 8))
    z[:, 5] = 0.0
    y = random.normal(size=50)
    correlated = correlations(sparse.csr_array(z), y)
    expected = [np.corrcoef(z[:, j], y)[0, 1] if j != 5 else 0.0 for j in range(8)]
    np.testing.assert_allclose(correlated, expected, atol=1e-12)


def planted(noise: bool = False) -> tuple[LabelledSet, list[Source], Any]:
    """Years that one latent of a sparse code tells, or years at random."""
    random = np.random.default_rng(3)
    years = 1800.0 + random.integers(0, 200, 200)
    code = (random.random((200, 64)) < 0.1) * random.uniform(0.5, 1.5, (200, 64))
    code[:, 7] = (years - 1790) / 100
    if noise:
        years = random.permutation(years)
    x = (code @ random.normal(size=(64, 16)) + 0.1 * random.normal(size=(200, 16))).astype("f4")
    texts = LabelledSet("years", [""] * 160, [], years[:160], np.arange(160))
    far = {"far": (np.arange(160, 200), years[160:])}
    sources = [
        Source("activations", "hook", x, []),
        Source("latents", "main", sparse.csr_array(code.astype("f4")), []),
        Source("random_projections", "hook", x[:, :4], []),
    ]
    return texts, sources, far


def test_numbers_are_told_by_the_latent_that_holds_them_on_shifted_rows_too() -> None:
    texts, sources, far = planted()
    table = probe_numbers(texts, far, sources, FITTING, FEW, 0)
    assert table.schema == pl.Schema(RESULTS)
    full = table.filter(regime="full", kind="latents", k=1)
    assert len(full) == 10
    assert full["auc"].min() > 0.98
    assert set(full["test_set"]) == {"", "far"}
    dense = table.filter(regime="full", kind="activations", test_set="")["auc"].mean()
    assert 0.6 < dense < full["auc"].mean()
    few = table.filter(regime="scarcity")
    assert few["train_rows"].unique().to_list() == [16]
    assert abs(table.filter(regime="shuffled")["auc"].mean() - 0.5) < 0.06


def test_numbers_at_random_are_not_told_and_validation_knows_it() -> None:
    texts, sources, _ = planted(noise=True)
    full = probe_numbers(texts, {}, sources, FITTING, FEW, 0).filter(regime="full")
    latents = full.filter(kind="latents")
    assert abs(latents["auc"].mean() - 0.5) < 0.07
    assert abs(latents["validation"].mean() - 0.5) < 0.07
