"""Correlations over clusters are Pearson's, and their intervals hold where a plain bootstrap's do
not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from saeflow.statistics.correlations import (
    Correlation,
    correlation,
    correlation_difference,
)

PASSAGES, TOKENS = 20, 32
CLUSTERS = np.repeat(np.arange(PASSAGES), TOKENS)


def simulated(generator: np.random.Generator, passages: int) -> tuple[np.ndarray, np.ndarray]:
    """What a latent does, on few tokens of every second passage, and what is said of it, which
    misses four in ten of these and finds some in others."""
    true, said = np.zeros((2, passages, TOKENS))
    for number in range(passages):
        if number % 2:
            places = generator.choice(TOKENS, generator.integers(1, 5), replace=False)
            true[number, places] = generator.exponential(1, len(places)) + 0.1
        if number % 2 == 0 or generator.random() < 0.6:
            at = true[number] > 0 if number % 2 else generator.random(TOKENS) < 0.02
            said[number, at] = generator.integers(2, 11, at.sum())
    return true.ravel(), said.ravel()


def test_the_value_is_pearsons_and_lies_in_its_interval() -> None:
    generator = np.random.default_rng(0)
    true, said = simulated(generator, PASSAGES)
    result = correlation(said * 7 - 3, true, CLUSTERS + 5, 400, 0.95, generator)
    assert result is not None
    assert result.value == pytest.approx(pearsonr(said, true).statistic)
    assert -1 <= result.low < result.value < result.high <= 1


@pytest.mark.parametrize("constant", [np.zeros(64), np.full(64, 0.1), np.array([])])
def test_a_constant_series_has_no_correlation(constant: np.ndarray) -> None:
    other = np.arange(len(constant), dtype=float)
    clusters = np.arange(len(constant)) // 8
    generator = np.random.default_rng(0)
    assert correlation(constant, other, clusters, 100, 0.95, generator) is None
    assert correlation(other, constant, clusters, 100, 0.95, generator) is None


def test_intervals_of_twenty_passages_hold_the_correlation_of_all_text() -> None:
    generator = np.random.default_rng(1)
    truth = pearsonr(*simulated(generator, 20_000)).statistic
    held = 0
    for _ in range(100):
        true, said = simulated(generator, PASSAGES)
        result = correlation(said, true, CLUSTERS, 200, 0.95, generator)
        assert result is not None
        held += result.low <= truth <= result.high
    assert held >= 90


def test_a_difference_is_surer_where_both_sides_move_together() -> None:
    true, said = simulated(np.random.default_rng(2), PASSAGES)
    other = np.random.default_rng(3).permutation(said)

    def of(numbers: np.ndarray) -> Correlation:
        draws = np.random.default_rng(0)
        result = correlation(numbers, true, CLUSTERS, 400, 0.95, draws)
        assert result is not None
        return result

    own, random = of(said), of(other)
    apart = correlation_difference(random, own)
    assert apart.value == pytest.approx(own.value - random.value)
    assert apart.low < apart.value < apart.high
    close = correlation_difference(of(said + 0.01 * other), own)
    assert close.high - close.low < 0.6 * (apart.high - apart.low)
