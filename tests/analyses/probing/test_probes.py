"""Probes find what is planted, equal scikit-learn where they are ours, and see no label that they are
tested on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from saeflow.analyses.probing.logistic import Scaling, ridge_path
from saeflow.analyses.probing.nested import HeldOut, areas, evaluate, validated
from saeflow.analyses.probing.probes import (
    ON_ACTIVATIONS,
    Probe,
    lasso_probe,
    on_activations,
    projection_probe,
    sparse_probe,
)
from saeflow.analyses.probing.sparse_columns import columns, scaled_differences, strongest

STRENGTHS = [0.001, 0.1, 1.0, 10.0]


def planted(n: int, d: int = 96, d_sae: int = 256, seed: int = 0) -> tuple[Any, Any, Any]:
    """A sparse code of ten active latents, what it decodes to with noise, and its directions."""
    random = np.random.default_rng(7)
    directions = random.normal(size=(d_sae, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    active = random.random((n, d_sae)) < 10 / d_sae
    active[:, 0] = random.random(n) < 0.5
    code = active * random.uniform(0.5, 1.5, (n, d_sae))
    return sparse.csr_array(code), code @ directions + 0.05 * random.normal(size=(n, d)), code


def folds_of(n: int, count: int = 5) -> Any:
    return np.arange(n) % count


def test_the_path_over_strengths_is_scikit_learns_minimum() -> None:
    random = np.random.default_rng(0)
    for n, d in ((200, 5), (60, 40), (30, 80)):
        x = random.normal(size=(n, d)) * random.uniform(0.1, 5, d)
        y = x[:, 0] + random.normal(size=n) > 0
        scaled = Scaling.of(x).scaled(x)
        path = ridge_path(scaled, y, STRENGTHS)
        for place, strength in enumerate(STRENGTHS):
            peer = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(scaled, y)
            np.testing.assert_allclose(path.weights[:, place], peer.coef_[0], atol=2e-5)
            np.testing.assert_allclose(path.intercepts[place], peer.intercept_[0], atol=2e-5)
            ours = areas(path.log_odds(scaled)[:, None, :], y)[0, place]
            assert abs(ours - roc_auc_score(y, peer.decision_function(scaled))) < 1e-12


def test_a_sparse_probe_is_the_straightforward_loop_over_scikit_learn() -> None:
    code, _, dense = planted(300)
    y = np.random.default_rng(1).random(300) < 1 / (1 + np.exp(1 - 2 * dense[:, :3].sum(axis=1)))
    train, held = np.arange(200), np.arange(200, 300)
    ks = [1, 4, 32]
    ours = sparse_probe(ks, STRENGTHS).scores(code[train], y[train], [code[held]], STRENGTHS)[0]
    size = np.abs(dense[train]).sum(axis=0) / np.maximum((dense[train] != 0).sum(axis=0), 1)
    apart = dense[train][y[train]].mean(axis=0) - dense[train][~y[train]].mean(axis=0)
    order = np.argsort(
        -np.abs(np.divide(apart, size, out=np.zeros_like(size), where=size > 0)), kind="stable"
    )
    for variant, k in enumerate(ks):
        x = dense[:, order[:k]]
        scale = Scaling.of(x[train])
        for place, strength in enumerate(STRENGTHS):
            peer = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000)
            peer.fit(scale.scaled(x[train]), y[train])
            expected = peer.decision_function(scale.scaled(x[held]))
            np.testing.assert_allclose(ours[:, variant, place], expected, atol=1e-4)


def test_scaled_differences_are_those_of_the_dense_matrix() -> None:
    code, _, dense = planted(120)
    y = np.arange(120) % 3 == 0
    size = dense.sum(axis=0) / np.maximum((dense > 0).sum(axis=0), 1)
    expected = (dense[y].mean(axis=0) - dense[~y].mean(axis=0)) / np.where(size > 0, size, 1)
    np.testing.assert_allclose(scaled_differences(code, y), expected, atol=1e-12)
    which = strongest(code, y, 9)
    np.testing.assert_array_equal(columns(code, which), dense[:, which])


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.9, 0.2])
    y = np.array([False, True, False, True, False])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[y] for n in scores[~y]]
    assert areas(scores[:, None, None], y)[0, 0] == np.mean(pairs)
    assert np.isnan(areas(scores[:, None, None], np.ones(5, bool))).all()


def test_one_planted_latent_is_enough_where_a_dense_probe_needs_many_rows() -> None:
    code, x, _ = planted(3000)
    y = code[:, [0]].toarray()[:, 0] > 0
    held = np.arange(2000, 3000)
    few = np.concatenate([np.flatnonzero(y)[:8], np.flatnonzero(~y)[:8]])
    sparse_few = evaluate(
        sparse_probe([1], STRENGTHS),
        code[few],
        y[few],
        folds_of(16),
        [HeldOut(code[held], y[held])],
    )[0]
    dense = on_activations("logistic_ridge", STRENGTHS)
    dense_few = evaluate(dense, x[few], y[few], folds_of(16), [HeldOut(x[held], y[held])])[0]
    many = np.arange(2000)
    dense_many = evaluate(dense, x[many], y[many], folds_of(2000), [HeldOut(x[held], y[held])])[0]
    assert sparse_few.areas[0] == 1.0
    assert dense_few.areas[0] < 0.9
    assert dense_many.areas[0] > 0.95


def test_a_random_dense_direction_is_told_better_by_a_dense_probe() -> None:
    code, x, _ = planted(1500)
    y = x @ np.random.default_rng(3).normal(size=x.shape[1]) > 0
    train, held = np.arange(1000), np.arange(1000, 1500)
    dense = evaluate(
        on_activations("logistic_ridge", STRENGTHS),
        x[train],
        y[train],
        folds_of(1000),
        [HeldOut(x[held], y[held])],
    )[0]
    latents = evaluate(
        sparse_probe([1, 16], STRENGTHS),
        code[train],
        y[train],
        folds_of(1000),
        [HeldOut(code[held], y[held])],
    )
    assert dense.areas[0] > 0.97
    assert dense.areas[0] > latents[1].areas[0] + 0.05
    assert latents[1].areas[0] > latents[0].areas[0]


def test_on_labels_that_are_noise_nested_ranking_finds_one_half_and_leaky_ranking_much_more() -> (
    None
):
    nested, leaky, tested = [], [], []
    probe = sparse_probe([16], STRENGTHS)
    for seed in range(12):
        code, _, _ = planted(200, d_sae=1024, seed=seed)
        y = np.random.default_rng(100 + seed).permutation(np.arange(200) % 2 == 0)
        train, held, folds = np.arange(100), np.arange(100, 200), folds_of(100)
        outcome = evaluate(probe, code[train], y[train], folds, [HeldOut(code[held], y[held])])[0]
        nested.append(validated(probe, code[train], y[train], folds).mean())
        tested.append(outcome.areas[0])
        ranked = columns(
            code[train], strongest(code[train], y[train], 16)
        )  # with the rows it is tested on
        leaky.append(validated(projection_probe([16], STRENGTHS), ranked, y[train], folds).mean())
    for values in (nested, tested):
        error = stats.sem(values)
        assert abs(np.mean(values) - 0.5) < 3 * error
    assert np.mean(leaky) > 0.75


def test_a_lasso_over_all_latents_equals_scikit_learn_on_dense_scaled_columns() -> None:
    code, _, dense = planted(200)
    y = dense[:, 0] + dense[:, 1] > 0.8
    code.indices, code.indptr = code.indices.astype(np.int64), code.indptr.astype(np.int64)
    train, held = np.arange(150), np.arange(150, 200)
    ours = lasso_probe(STRENGTHS).scores(code[train], y[train], [code[held]], [0.1])[0][:, 0, 0]
    scale = Scaling.of(dense[train])
    peer = LogisticRegression(C=0.1, l1_ratio=1.0, solver="saga", max_iter=20_000, tol=1e-8)
    expected = peer.fit(scale.scaled(dense[train]), y[train]).decision_function(
        scale.scaled(dense[held])
    )
    np.testing.assert_allclose(ours, expected, atol=0.02)


@pytest.mark.parametrize("name", ON_ACTIVATIONS)
def test_every_probe_on_activations_tells_what_is_easy_to_tell(name: str) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 24))
    y = x[:, 3] + x[:, 5] > 0
    train, held = np.arange(160), np.arange(160, 240)
    outcome = evaluate(
        on_activations(name, STRENGTHS),
        x[train],
        y[train],
        folds_of(160),
        [HeldOut(x[held], y[held])],
    )[0]
    assert outcome.areas[0] > 0.75
    assert abs(outcome.validation - outcome.areas[0]) < 0.15


@pytest.mark.parametrize("name", ON_ACTIVATIONS)
def test_two_rows_are_enough_to_be_fitted_and_have_no_validation(name: str) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 6)), np.array([True, False])
    outcome = evaluate(on_activations(name, STRENGTHS), x, y, np.arange(2), [HeldOut(x, y)])[0]
    assert np.isnan(outcome.validation)
    assert 0 <= outcome.areas[0] <= 1


def test_binarised_latents_tell_only_that_they_are_active() -> None:
    code, _, dense = planted(300)
    y = dense[:, 0] > 0
    louder = code.copy()
    louder.data = louder.data * np.random.default_rng(0).uniform(0.1, 10, len(louder.data))
    probe = sparse_probe([1, 8], STRENGTHS, binarised=True)
    first, second = (probe.scores(x, y, [x], STRENGTHS)[0] for x in (code, louder))
    np.testing.assert_array_equal(first, second)


def test_a_probe_never_sees_the_rows_it_is_tested_on() -> None:
    seen: list[set[int]] = []

    def scores(rows: Any, y: Any, others: Any, options: Any) -> Any:
        seen.append({int(value) for value in rows[:, 0]})
        assert not any(seen[-1] & {int(value) for value in other[:, 0]} for other in others)
        return [np.zeros((len(other), 1, len(options))) for other in others]

    x = np.arange(40.0)[:, None]
    y = np.arange(40) % 3 == 0
    train, held = np.arange(30), np.arange(30, 40)
    spy = Probe("spy", [0], [1.0, 2.0], scores)
    evaluate(spy, x[train], y[train], folds_of(30), [HeldOut(x[held], y[held])])
    assert len(seen) == 6
    assert seen[-1] == set(range(30))


def test_logistic_regression_scores_what_the_published_protocol_gives_step_by_step() -> None:
    """Of "Are Sparse Autoencoders Useful?" for fewer than 128 rows: ten strengths, six stratified
    folds, the strength of the best mean area, one fit to all training rows, the area on test rows."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(5)
    x = random.normal(size=(120, 10)) * random.uniform(0.1, 10, 10)
    y = (x / x.std(axis=0)) @ random.normal(size=10) + 3 * random.normal(size=120) > 0
    train, test = np.arange(72), np.arange(72, 120)
    strengths = np.logspace(-5, 5, 10)

    def area(fit: np.ndarray, seen: np.ndarray, strength: float) -> float:
        scaler = StandardScaler().fit(x[fit])
        model = LogisticRegression(C=strength, max_iter=10_000, tol=1e-10)
        model.fit(scaler.transform(x[fit]), y[fit])
        return float(roc_auc_score(y[seen], model.decision_function(scaler.transform(x[seen]))))

    parts = list(StratifiedKFold(6, shuffle=True, random_state=0).split(x[train], y[train]))
    means = [np.mean([area(fit, seen, c) for fit, seen in parts]) for c in strengths]
    best = strengths[int(np.argmax(means))]
    folds = np.empty(len(train), np.int64)
    for number, (_, seen) in enumerate(parts):
        folds[seen] = number
    probe = on_activations("logistic_ridge", strengths.tolist())
    (evaluated,) = evaluate(probe, x[train], y[train], folds, [HeldOut(x[test], y[test])])
    assert evaluated.option == pytest.approx(best)
    assert evaluated.validation == pytest.approx(max(means), abs=1e-9)
    assert evaluated.areas == [pytest.approx(area(train, test, best), abs=1e-9)]
