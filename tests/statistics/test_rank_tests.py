"""P-values of rank sums and Kolmogorov-Smirnov statistics, held to scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from saeflow.seeds import numpy_generator
from saeflow.statistics.rank_tests import ks_p_values, rank_sum_p_values


@pytest.mark.parametrize(("members", "others"), [(1, 40), (4, 60), (13, 71), (30, 200)])
def test_exact_ks_p_values_equal_scipy_s(members: int, others: int) -> None:
    generator = numpy_generator(0, "ks", members)
    samples = [
        (generator.standard_normal(members) + shift, generator.standard_normal(others))
        for shift in (0, 0.5, 2)
    ]
    expected = [stats.ks_2samp(*pair, method="exact") for pair in samples]
    ours = ks_p_values(np.array([test.statistic for test in expected]), members, others)
    assert ours == pytest.approx([test.pvalue for test in expected], rel=1e-6)


@pytest.mark.parametrize(
    ("members", "others"), [(3, 9_000), (14, 9_000), (60, 1_400), (900, 12_000), (4_000, 46_000)]
)
def test_asymptotic_ks_p_values_are_scipy_s(members: int, others: int) -> None:
    n = round(members * others / (members + others))
    size = np.linspace(0.3, 4.5, 60) / np.sqrt(n)
    size = size[size < 0.98]
    ours, expected = ks_p_values(size, members, others), stats.kstwo.sf(size, n)
    assert ours == pytest.approx(expected, abs=2e-3, rel=0.02)
    tail = (expected < 0.01) & (expected > 1e-9)
    assert ours[tail] == pytest.approx(expected[tail], rel=2e-3)


@pytest.mark.parametrize(
    ("members", "others", "method"), [(3, 30, "exact"), (8, 90, "exact"), (25, 300, "asymptotic")]
)
def test_rank_sum_p_values_equal_scipy_s(members: int, others: int, method: str) -> None:
    generator = numpy_generator(0, "rank sum", members)
    for shift in (0.0, 0.4, 1.5):
        pair = generator.standard_normal(members) + shift, generator.standard_normal(others)
        expected = stats.mannwhitneyu(*pair, method=method)
        ours = rank_sum_p_values(np.array([expected.statistic / members / others]), members, others)
        assert ours[0] == pytest.approx(expected.pvalue, rel=1e-6)
