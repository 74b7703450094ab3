"""Tests by exchange are uniform where nothing differs, and a study's claims keep their level
together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from saeflow.analyses.steering.resampling import bootstrap_weights, contrast
from saeflow.analyses.steering.results import ahead, marks
from saeflow.statistics.means import interval
from saeflow.statistics.permutation import ALPHA, exchanges, holm, smallest_p


def p_values(
    first: np.ndarray, second: np.ndarray, unit: np.ndarray, permutations: int = 999
) -> np.ndarray:
    """Of pairs of groups whose coherence is 1."""
    rng = np.random.default_rng(7)
    ones = np.ones_like(first)
    weights = bootstrap_weights(first.shape[1], 1, rng, unit)
    return contrast(
        (first, ones), (second, ones), weights, unit, rng, permutations=permutations
    ).p_value


def test_all_exchanges_of_few_units_are_made_once_up_to_their_sign() -> None:
    ways = np.concatenate(list(exchanges(5, np.random.default_rng(0))))
    assert len(np.unique(ways, axis=0)) == len(ways) == 2**4
    assert not ways[0].any()
    assert not (ways[:, None] == ~ways[None]).all(axis=2).any()
    random = np.concatenate(list(exchanges(40, np.random.default_rng(0), permutations=5000)))
    assert random.shape == (5001, 40)
    assert not random[0].any()
    assert random.mean() == pytest.approx(0.5, abs=0.01)


def test_p_values_are_uniform_under_the_null_and_tiny_under_an_effect() -> None:
    rng = np.random.default_rng(5)
    shared = rng.random((400, 40))  # what the two completions of a sample have in common

    def noisy(shift: float) -> np.ndarray:
        return shared * 0.5 + rng.random(shared.shape) * 0.3 + shift

    assert stats.kstest(p_values(noisy(0.0), noisy(0.0), np.arange(40)), "uniform").pvalue > 0.05
    assert np.quantile(p_values(noisy(0.5), noisy(0.0), np.arange(40)), 0.95) < 0.002


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("rate", [0.03, 0.1, 0.5])
def test_p_values_of_few_rare_and_tied_scores_keep_every_level(n: int, rate: float) -> None:
    rng = np.random.default_rng(n)
    first, second = (
        (rng.random((1000, n)) < rate) * np.ceil(3 * rng.random((1000, n))) / 3 for _ in range(2)
    )
    p = p_values(first, second, np.arange(n))
    assert p.min() >= smallest_p(n, 999)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level * (1 - level) / len(p))


@pytest.mark.parametrize("prompts", [4, 8, 20])
def test_p_values_keep_their_level_where_methods_suit_prompts_by_chance(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    unit = np.repeat(np.arange(prompts), 6)
    suits = rng.uniform(0.1, 0.9, (2, 1000, prompts))  # two methods, equal on average over prompts
    first, second = (
        (rng.random((1000, len(unit))) < rates[:, unit]).astype(float) for rates in suits
    )
    for level in (0.05, 0.2):
        assert np.mean(p_values(first, second, unit) <= level) <= level + 3 * np.sqrt(
            level * (1 - level) / 1000
        )
    assert (
        np.mean(p_values(first, second, np.arange(len(unit))) <= 0.05) > 0.1
    )  # samples are not units then


def test_the_smallest_p_is_reached_by_the_largest_difference_and_never_undercut() -> None:
    for n in (1, 2, 5, 10):
        p = p_values(np.ones((1, n)), np.zeros((1, n)), np.arange(n))
        assert p[0] == pytest.approx(smallest_p(n))
    assert p_values(np.ones((1, 30)), np.zeros((1, 30)), np.arange(30))[0] == pytest.approx(
        smallest_p(30, 999)
    )


def test_holm_equals_its_definition_and_leaves_out_tests_that_were_not_made() -> None:
    corrected = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    assert corrected == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert len(holm(np.array([]))) == 0


GOALS, STUDIES = 9, 300


def studies(products: np.ndarray, n: int) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The tables ``best`` and ``comparisons`` of many studies of nine goals and methods of given
    true behaviour.

    The scores of half of all completions are 0; coherence is high. Methods share what their samples
    share.
    """
    rng = np.random.default_rng(n)
    pairs = list(combinations(range(len(products)), 2))
    shared = rng.random((STUDIES, GOALS, 1, n))
    noise = np.where(
        rng.random((STUDIES, GOALS, len(products), n)) < 0.3, shared, rng.random(shared.shape)
    )
    occurs = rng.random((STUDIES, GOALS, len(products), n)) < 0.5
    scores = occurs * noise * products[:, None]
    coherence = 1 - 0.3 * rng.random(scores.shape) ** 3
    sides = [
        tuple(
            values[:, :, [pair[side] for pair in pairs]].reshape(-1, n)
            for values in (scores, coherence)
        )
        for side in (0, 1)
    ]
    rows = np.arange(STUDIES * GOALS * len(pairs)).reshape(STUDIES, GOALS, len(pairs))
    averages = list(rows.transpose(0, 2, 1).reshape(-1, GOALS))
    weights = bootstrap_weights(n, 200, rng, unseen=[rng] * GOALS)
    goal_of = np.tile(np.repeat(np.arange(GOALS), len(pairs)), STUDIES)
    tested = contrast(*sides, weights, np.arange(n), rng, goal_of, averages, permutations=1999)
    p, low, high = (
        np.concatenate(
            [of[: rows.size].reshape(rows.shape), of[rows.size :].reshape(STUDIES, 1, -1)], axis=1
        )
        for of in (tested.p_value, *interval(tested.draws, 0.95))
    )
    measured = scores.mean(axis=3) * coherence.mean(axis=3)
    measured = np.concatenate([measured, measured.mean(axis=1, keepdims=True)], axis=1)
    names = [*(f"goal{goal}" for goal in range(GOALS)), "average"]
    for study in range(STUDIES):
        best = [
            (g, f"m{m}", measured[study, i, m])
            for i, g in enumerate(names)
            for m in range(len(products))
        ]
        compared = [
            (
                g,
                f"m{a}",
                f"m{b}",
                measured[study, i, a] - measured[study, i, b],
                *(of[study, i, j] for of in (p, low, high)),
            )
            for i, g in enumerate(names)
            for j, (a, b) in enumerate(pairs)
        ]
        columns = [
            "goal",
            "method",
            "other",
            "difference",
            "p_value",
            "difference_low",
            "difference_high",
        ]
        comparisons = pl.DataFrame(compared, schema=columns, orient="row").with_columns(
            units=pl.lit(n)
        )
        corrected = pl.Series(holm(comparisons["p_value"].to_numpy()))
        yield (
            pl.DataFrame(best, schema=["goal", "method", "product"], orient="row"),
            comparisons.with_columns(p_holm=corrected),
        )


@pytest.mark.parametrize("n", [8, 12, 24])
@pytest.mark.parametrize("products", [(1.0, 1.0), (1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 0.2)])
def test_at_most_one_study_in_twenty_claims_that_one_of_equal_methods_is_ahead(
    n: int, products: tuple
) -> None:
    claimed = [
        min(ahead(best, comparisons).values()) <= ALPHA
        for best, comparisons in studies(np.array(products), n)
    ]
    assert np.mean(claimed) <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / STUDIES)


def test_a_method_that_is_far_ahead_is_found_to_be() -> None:
    best, comparisons = next(studies(np.array([1.0, 0.2, 0.2]), 24))
    assert marks(best, comparisons, "average") == {"m0": "best"}


@pytest.mark.parametrize("n", [8, 16, 32, 64])
def test_a_method_that_scores_rarely_but_highly_is_not_called_behind_one_of_the_same_mean(
    n: int,
) -> None:
    """One completion in ten scores 1, against a constant 0.1: few completions often hold no score
    at all."""
    rng = np.random.default_rng(n)
    rarely, steadily = (rng.random((1000, n)) < 0.1) * 1.0, np.full((1000, n), 0.1)
    ones, weights = np.ones_like(rarely), bootstrap_weights(n, 500, rng)
    tested = contrast(
        (rarely, ones), (steadily, ones), weights, np.arange(n), rng, permutations=999
    )
    low, high = interval(tested.draws, 0.95)
    claimed = []
    for row in range(len(low)):
        first, second = tested.first[row], tested.second[row]
        best = pl.DataFrame({"goal": ["sea"] * 2, "method": ["a", "b"], "product": [first, second]})
        columns = {
            "difference": first - second,
            "difference_low": low[row],
            "difference_high": high[row],
        }
        p = {"p_value": tested.p_value[row], "p_holm": tested.p_value[row], "units": n}
        comparisons = pl.DataFrame({"goal": "sea", "method": "a", "other": "b", **columns, **p})
        claimed.append(ahead(best, comparisons)["sea"] <= ALPHA)
    assert np.mean(claimed) <= ALPHA
    assert n == 8 or np.mean(tested.p_value <= ALPHA) > ALPHA  # which the test alone would not keep
