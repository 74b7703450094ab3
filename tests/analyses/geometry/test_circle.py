"""Circles: planted ones are found, and orders that mean nothing are not."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from saeflow.analyses.geometry.circle import (
    best_plane,
    circle_interval,
    circle_null,
    circle_of,
    neighbours_kept,
)


def planted(n, d, noise, seed=0):
    """n points on a circle in a random plane, beside a nuisance of larger variance, and noise."""
    draw = np.random.default_rng(seed)
    axes = np.linalg.qr(draw.standard_normal((d, 3)))[0].T
    around = circle_of(n) * np.sqrt(n)
    other = draw.standard_normal(n)
    other -= other.mean() + around @ (around.T @ other) * 2 / n
    points = around @ axes[:2] + np.outer(3 * other, axes[2])
    return 5 + points + noise * draw.standard_normal((n, d))


def test_a_planted_circle_is_found_beside_a_nuisance_of_larger_variance():
    points = planted(12, 64, 0.02)
    plane = best_plane(points, 4)
    assert plane.r2 > 0.95
    assert 0 not in plane.pair  # the first component is the nuisance
    assert neighbours_kept(plane.places(points)) == 12
    assert circle_null(points, 4, 999, 0.95, np.random.default_rng(0)).p == 1e-3


def test_r2_is_that_of_a_regression_on_the_best_of_all_pairs():
    points = np.random.default_rng(3).standard_normal((7, 20))
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    circle = circle_of(7)
    best = 0.0
    for pair in combinations(range(4), 2):
        design = centred @ axes[list(pair)].T
        fitted = design @ np.linalg.lstsq(design, circle, rcond=None)[0]
        best = max(best, 1 - ((circle - fitted) ** 2).sum() / (circle**2).sum())
    assert best_plane(points, 4).r2 == pytest.approx(best, abs=1e-12)


def test_p_values_are_uniform_where_the_order_means_nothing():
    p = []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        p.append(circle_null(draw.standard_normal((12, 30)), 4, 199, 0.95, draw).p)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.10


def test_of_seven_points_all_orders_are_tried_and_a_circle_is_itself_turned_and_read_backwards():
    null = circle_null(planted(7, 64, 0.01), 4, 99, 0.95, np.random.default_rng(0))
    assert null.p == 14 / 5040
    assert 0.6 < null.high < 0.9  # seven points fit some pair well in most orders


@pytest.mark.parametrize("backwards", [False, True])
def test_turning_by_a_step_moves_every_word_to_the_next(backwards):
    points = planted(7, 64, 0.0)[::-1] if backwards else planted(7, 64, 0.0)
    plane = best_plane(points, 4)
    turned = plane.places(points + plane.turned(points, 2 * np.pi / 7))
    assert np.allclose(turned, np.roll(plane.places(points), -1, axis=0), atol=0.05)
    assert np.allclose(plane.places(points + plane.removed(points)), 0, atol=1e-12)
    assert np.allclose(plane.turned(points, 2 * np.pi), 0, atol=1e-9)


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_the_interval_over_texts_holds_the_circle_without_their_noise(noise):
    held, truth = 0, planted(7, 32, 0.0)
    truth_r2 = best_plane(truth, 4).r2
    for seed in range(60):
        draw = np.random.default_rng(seed)
        texts = truth + noise * draw.standard_normal((12, 7, 32))
        low, high = circle_interval(texts, 4, 200, 0.95, draw)
        held += low <= truth_r2 <= high
    assert held >= 52  # of 57 at the level
