"""Intervals of bounded means hold what they say: for few units, rare scores, missing ones and
clusters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from saeflow.analyses.steering.resampling import Means, bootstrap_weights, means
from saeflow.statistics.clusters import POSITIVE, Resampling
from saeflow.statistics.means import (
    as_wide_as_students,
    interval,
    mean_draws,
    random_weights,
    seen_draws,
    seen_weights,
)

LEVEL = 0.95
Scores = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
SCORES: dict[str, tuple[Scores, float]] = {
    "rare": (lambda rng, shape: (rng.random(shape) < 0.1) * rng.random(shape), 0.05),
    "one in forty": (lambda rng, shape: (rng.random(shape) < 0.025) * 1.0, 0.025),
    "one in ten": (lambda rng, shape: (rng.random(shape) < 0.1) * 1.0, 0.1),
    "even": (lambda rng, shape: (rng.random(shape) < 0.5) * 1.0, 0.5),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "high": (lambda rng, shape: 1 - 0.3 * rng.random(shape) ** 3, 1 - 0.3 / 4),
    "none": (lambda _, shape: np.zeros(shape), 0.0),
    "all": (lambda _, shape: np.ones(shape), 1.0),
}
# A share of 2,000 intervals that hold the truth is off by 0.5 % (one standard error) where 95 % do.
STUDIES, LEAST = 2000, LEVEL - 3 * np.sqrt(LEVEL * (1 - LEVEL) / 2000)


def held(draws: np.ndarray, truth: float) -> float:
    """Share of the intervals that hold the truth, rounding aside."""
    low, high = interval(draws, LEVEL)
    return float(np.mean((low <= truth + 1e-6) & (truth - 1e-6 <= high)))


@pytest.mark.parametrize("n", [1, 2, 5, 32])
def test_the_interval_of_zeros_and_ones_is_that_of_clopper_and_pearson(n: int) -> None:
    counts = np.arange(n + 1)
    scores = (np.arange(n) < counts[:, None]).astype(float)
    low, high = interval(
        mean_draws(scores, bootstrap_weights(n, 40_000, np.random.default_rng(0))), 0.9
    )
    for count in counts:
        exact = stats.binomtest(int(count), n).proportion_ci(0.9, "exact")
        assert (low[count], high[count]) == pytest.approx((exact.low, exact.high), abs=0.01)


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32, 64])
def test_intervals_of_means_hold_the_truth_at_least_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    weights = bootstrap_weights(n, 1000, rng)
    for name, (draw, truth) in SCORES.items():
        assert held(mean_draws(draw(rng, (STUDIES, n)), weights), truth) >= LEAST, name


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32, 64])
def test_intervals_of_products_and_of_their_differences_hold_the_truth(n: int) -> None:
    rng = np.random.default_rng(100 + n)
    weights = bootstrap_weights(n, 1000, rng)

    def products(name: str, coherence: str) -> tuple[Means, float]:
        scores = [SCORES[kind][0](rng, (STUDIES, n)) for kind in (name, coherence)]
        return means(*scores, weights), SCORES[name][1] * SCORES[coherence][1]

    for names in (
        ("rare", "high"),
        ("one in ten", "one in ten"),
        ("even", "even"),
        ("uniform", "all"),
    ):
        first, truth = products(*names)
        assert held(first.product, truth) >= LEAST, names
        for others in (("rare", "high"), ("uniform", "uniform"), ("one in forty", "high")):
            second, other_truth = products(*others)
            assert held(first.product - second.product[::-1], truth - other_truth) >= LEAST, (
                names,
                others,
            )


@pytest.mark.parametrize("prompts", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("rate", [0.05, 0.3])
@pytest.mark.parametrize("likeness", [0.05, 0.5])
def test_intervals_over_prompts_hold_the_truth_of_prompts_that_were_not_asked(
    prompts: int, rate: float, likeness: float
) -> None:
    """Prompts have own rates, of a beta distribution whose correlation within prompts is
    ``likeness``."""
    rng = np.random.default_rng(prompts)
    total = 1 / likeness - 1
    # The halves of a study hold unequal numbers of completions of each prompt.
    unit = np.sort(np.concatenate([np.arange(prompts), rng.integers(0, prompts, 5 * prompts)]))
    rates = rng.beta(rate * total, (1 - rate) * total, (STUDIES, prompts))
    scores = (rng.random((STUDIES, len(unit))) < rates[:, unit]).astype(float)
    coverage = held(mean_draws(scores, random_weights(unit, 1000, rng)), rate)
    assert coverage >= LEAST
    if prompts == 32 and likeness == 0.5:
        assert held(mean_draws(scores, bootstrap_weights(len(unit), 1000, rng)), rate) < 0.9


@pytest.mark.parametrize("n", [2, 8, 32])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_intervals_of_averages_over_goals_hold_the_truth_and_are_narrower_than_a_goal_s(
    n: int, shared: float
) -> None:
    """Goals share part of what makes their completions score: of one sample, each takes a common
    number or its own."""
    rng = np.random.default_rng(n)
    goals, studies = 9, 1000
    weights = bootstrap_weights(n, 1000, rng, unseen=[rng] * goals)
    for threshold in (0.025, 0.1, 0.5):
        averaged = []
        for goal in range(goals):
            common = np.random.default_rng(n + 1).random((studies, n))
            own = np.where(rng.random((studies, n)) < shared, common, rng.random((studies, n)))
            draws = mean_draws((own < threshold).astype(float), weights, np.full(studies, goal))
            averaged.append(draws)
        mean = np.mean(averaged, axis=0)
        assert held(mean, threshold) >= LEVEL - 3 * np.sqrt(LEVEL * (1 - LEVEL) / studies)
        low, high = interval(mean, LEVEL)
        of_goal = interval(averaged[0], LEVEL)
        assert np.mean(high - low) < 0.9 * np.mean(of_goal[1] - of_goal[0])


def test_missing_scores_leave_the_interval_of_those_that_are_there() -> None:
    rng = np.random.default_rng(3)
    scores = SCORES["one in ten"][0](rng, (STUDIES, 32))
    scores[rng.random(scores.shape) < 0.6] = np.nan
    weights = bootstrap_weights(32, 1000, rng)
    draws = mean_draws(scores, weights)
    assert held(draws[:, :, ~np.isnan(draws).any(axis=(0, 1))], 0.1) >= LEAST
    few = np.full((1, 32), np.nan)
    few[0, :3] = 0.0
    low, high = interval(mean_draws(few, weights), LEVEL)
    assert low[0] == 0
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 3), abs=0.05)
    assert np.isnan(interval(mean_draws(np.full((1, 32), np.nan), weights), LEVEL)).all()


def test_draws_of_what_was_seen_are_weighted_means_and_counts_are_resamples() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(3, 20))
    values[1, 5] = np.nan
    weights = bootstrap_weights(20, 50, rng)
    for group in range(3):
        seen = ~np.isnan(values[group])
        shares = weights[:, :-1][:, seen]
        expected = shares @ values[group, seen] / shares.sum(axis=1)
        assert seen_draws(values, weights)[:, group] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 8, 20])
def test_intervals_without_bounds_hold_the_mean_of_few_units_as_student_s_do(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(size=(STUDIES, n))
    draws = seen_weights(n, 1000, rng) @ values.T
    wide = as_wide_as_students(draws, values.mean(axis=1), n, LEVEL)
    assert held(np.stack([wide, wide]), 0) == pytest.approx(LEVEL, abs=0.02)
    assert held(np.stack([draws, draws]), 0) < 0.945  # 0.50, 0.66, 0.77, 0.87, 0.94
    low, high = interval(np.stack([wide, wide]), LEVEL)
    student = stats.t.interval(LEVEL, n - 1, values.mean(1), stats.sem(values, axis=1))
    assert np.mean(high - low) == pytest.approx(np.mean(student[1] - student[0]), rel=0.2)


def test_a_loss_is_not_said_to_be_below_zero_and_one_unit_says_nothing() -> None:
    losses = np.array([0.1, 2.0, 0.2])
    resampling = Resampling(np.arange(3), 1000, LEVEL, np.random.default_rng(0))
    assert resampling.mean(losses).low < 0
    mean = resampling.mean(losses, POSITIVE)
    assert (mean.low, mean.high) == (0.0, resampling.mean(losses).high)
    assert np.isnan(as_wide_as_students(np.zeros((5, 2)), np.zeros(2), np.array([1, 2]), LEVEL))[
        :, 0
    ].all()
