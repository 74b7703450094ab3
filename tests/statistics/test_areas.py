"""Areas under the ROC curve over games: intervals that hold what they promise, p-values that are
uniform by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clustered_numbers import CHANCE, KNOWING, Drawn
from scipy import stats

from saeflow.statistics.areas import (
    Area,
    area_error,
    area_interval,
    area_of_rank_sum,
    areas_between,
    difference_interval,
    mean_area_error,
    placements,
)
from saeflow.statistics.false_discovery import q_values
from saeflow.statistics.rotation import Chance, Rotations
from saeflow.statistics.sparse_areas import SparseLabels, areas
from saeflow.statistics.sparse_latents import SparseLatents

DRAWS = 400
LEAST = 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / DRAWS)  # of coverage, where it is nominal


TIED = np.random.default_rng(3).integers(-2, 4, (200, 7)) / 2.0


def interval(drawn: Drawn, level: float = 0.95) -> Area:
    return area_interval(
        area_error(placements(drawn.values, drawn.label), drawn.label, drawn.games), level
    )


def chance(drawn: Drawn, generator: np.random.Generator, draws: int) -> Chance:
    return Rotations(drawn.starts, draws, generator).chances(
        drawn.label, stats.rankdata(drawn.values)[:, None], 0.95
    )[0]


def separated(games: int) -> Drawn:
    """Half the positions of every game have the label, and all of them lie above all others."""
    label = np.arange(6 * games) % 6 < 3
    return Drawn(label.astype(float), label, np.arange(6 * games) // 6)


def test_the_mean_placement_is_mann_whitney_s() -> None:
    drawn = next(CHANCE["tied numbers"].draws(1))
    place = placements(drawn.values, drawn.label)
    mine, others = drawn.values[drawn.label], drawn.values[~drawn.label]
    expected = stats.mannwhitneyu(mine, others).statistic / (len(mine) * len(others))
    assert place[drawn.label].mean() == pytest.approx(expected, abs=1e-12)
    assert place[~drawn.label].mean() == pytest.approx(expected, abs=1e-12)
    above = (mine[:, None] > others).mean(axis=1) + (mine[:, None] == others).mean(axis=1) / 2
    assert np.allclose(place[drawn.label], above, atol=1e-12)


@pytest.mark.parametrize("name", CHANCE)
def test_intervals_hold_one_half_as_often_as_they_say_where_numbers_know_nothing(name: str) -> None:
    areas = [interval(drawn) for drawn in CHANCE[name].draws(DRAWS)]
    assert np.mean([area.low <= 0.5 <= area.high for area in areas]) >= LEAST
    for level in (0.01, 0.05):
        assert (
            stats.binomtest(sum(area.p <= level for area in areas), DRAWS, level, "greater").pvalue
            > 0.01
        )
    assert all((area.p <= 0.05) == (area.low > 0.5 or area.high < 0.5) for area in areas)


@pytest.mark.parametrize("name", KNOWING)
def test_intervals_hold_the_true_area_as_often_as_they_say(name: str) -> None:
    areas = [interval(drawn) for drawn in KNOWING[name].draws(DRAWS)]
    truth = np.mean([area_error(placements(d.values, d.label), d.label, d.games).value
                     for d in KNOWING[name].draws(4 * DRAWS, seed=1)])  # fmt: skip
    assert np.mean([area.low <= truth <= area.high for area in areas]) >= LEAST
    assert all(0 <= area.low <= area.auc <= area.high <= 1 for area in areas)


def test_a_perfect_area_is_the_less_sure_the_fewer_games_it_is_of() -> None:
    areas = [interval(separated(games)) for games in (1, 2, 5, 10, 30, 100)]
    assert all(area.auc == area.high == 1 for area in areas)
    assert (np.diff([area.low for area in areas]) > 0).all()
    assert (np.diff([area.p for area in areas]) < 0).all()
    # Of 30 games no fewer than 97.5 % would have to be perfect for all to be so once in forty:
    # 0.884.
    for area, games in zip(areas, (1, 2, 5, 10, 30, 100), strict=True):
        assert area.low < stats.beta.ppf(0.025, games, 1)
    assert areas[1].p > 0.05
    assert areas[4].low > 0.7
    apart = Drawn(np.array([1.0] * 25 + [0.0] * 75), np.arange(100) < 25, np.arange(100) // 25)
    assert interval(apart).p > 0.05  # one game with the label, and three without


def test_positions_count_as_one_when_they_are_copies_within_a_game() -> None:
    drawn = next(KNOWING["area 0.77"].draws(1))
    copied = Drawn(*(np.repeat(part, 4) for part in drawn))
    assert interval(copied) == pytest.approx(interval(drawn), abs=1e-12)


def test_the_error_of_a_mean_of_areas_is_that_of_a_jackknife_over_games() -> None:
    drawn = next(KNOWING["area 0.73, 100 of 200 games"].draws(1))
    groups = np.arange(len(drawn.label)) // 3 % 2  # two concepts, both in all games

    def mean(kept: np.ndarray) -> float:
        value, count = 0.0, 0
        for group in (0, 1):
            mine = kept & (groups == group)
            positives = int(drawn.label[mine].sum())
            value += (
                positives
                * placements(drawn.values[mine], drawn.label[mine])[drawn.label[mine]].mean()
            )
            count += positives
        return value / count

    place = np.empty(len(groups))
    for group in (0, 1):
        mine = groups == group
        place[mine] = placements(drawn.values[mine], drawn.label[mine])
    error = mean_area_error(place, drawn.label, drawn.games, groups)
    assert error.value == pytest.approx(mean(np.ones(len(groups), bool)), abs=1e-12)
    without = np.array([mean(drawn.games != game) for game in range(200)])
    assert error.influence.sum() == pytest.approx(0, abs=1e-12)
    assert (error.influence**2).sum() == pytest.approx(
        199 / 200 * ((without - without.mean()) ** 2).sum(), rel=0.03
    )


@pytest.mark.parametrize(("having", "lacking"), [(100, 100), (400, 400), (60, 15), (15, 60)])
def test_both_classes_add_to_the_error_of_an_area(having: int, lacking: int) -> None:
    generator = np.random.default_rng(0)
    label = np.arange(having + lacking) < having
    truth, games = stats.norm.cdf(1 / np.sqrt(2)), np.arange(len(label))
    areas = [
        interval(Drawn(generator.normal(size=len(label)) + label, label, games))
        for _ in range(DRAWS)
    ]
    covered = np.mean([area.low <= truth <= area.high for area in areas])
    assert LEAST <= covered <= 0.998
    assert having < 400 or covered < 0.98  # with so many it is not wider than it need be


def test_the_interval_of_a_difference_holds_the_truth_and_has_a_width_where_no_error_shows() -> (
    None
):
    generator, label = np.random.default_rng(1), np.arange(120) < 50
    games = np.arange(120)
    held = []
    for _ in range(DRAWS):
        common = generator.normal(size=120)
        errors = [
            area_error(
                placements(common + generator.normal(size=120) + shift * label, label), label, games
            )
            for shift in (0.5, 1.5)
        ]
        truth = stats.norm.cdf(1.5 / 2) - stats.norm.cdf(0.5 / 2)
        change, low, high = difference_interval(*errors, 0.95)
        assert change == pytest.approx(errors[1].value - errors[0].value)
        held.append(low <= truth <= high)
    assert LEAST <= np.mean(held) <= 0.99
    drawn = separated(12)
    perfect = area_error(placements(drawn.values, drawn.label), drawn.label, drawn.games)
    change, low, high = difference_interval(perfect, perfect, 0.95)
    assert change == 0
    assert low < -0.2
    assert high > 0.2


@pytest.mark.parametrize("name", CHANCE)
def test_p_values_of_rotation_are_uniform_where_numbers_know_nothing(name: str) -> None:
    generator = np.random.default_rng(0)
    p = np.array([chance(drawn, generator, 1000).p for drawn in CHANCE[name].draws(DRAWS, seed=2)])
    for level in (0.01, 0.05, 0.2):
        assert stats.binomtest(int((p <= level).sum()), DRAWS, level, "greater").pvalue > 0.01
    assert (
        stats.binomtest(int((p <= 0.2).sum()), DRAWS, 0.2, "less").pvalue > 1e-4
    )  # nor are they too large
    assert 0.35 < np.median(p) < 0.65


def partnered(rotations: Rotations, starts: np.ndarray, label: np.ndarray) -> np.ndarray:
    """What the positions get of other games in every draw."""
    rows = np.repeat(rotations._drawn, np.diff(starts), axis=1)
    return np.take_along_axis(label[rotations._index], rows, axis=0)


def test_games_out_of_step_get_the_labels_of_others_rotated_within() -> None:
    starts = np.array([0, 7, 31, 32, 40, 45])  # games of different lengths
    generator = np.random.default_rng(0)
    rotations = Rotations(starts, 50, generator)
    position = np.arange(45)
    game = np.repeat(np.arange(5), np.diff(starts))
    drawn = partnered(rotations, starts, position)
    assert drawn.shape == (50, 45)
    for draw in drawn:
        for own in range(5):
            got = draw[game == own]
            (partner,) = set(game[got])
            assert partner != own
            length = starts[partner + 1] - starts[partner]
            assert (np.diff(got) % length == 1 % length).all()  # in their order, and round its end
    assert len({tuple(draw) for draw in drawn}) > 40


def test_areas_out_of_step_are_those_of_the_labels_that_were_drawn() -> None:
    starts = np.array([0, 7, 31, 32, 40, 45])
    generator = np.random.default_rng(1)
    values, label = np.round(generator.normal(size=(45, 3)), 1), np.arange(45) % 5 == 0
    rotations = Rotations(starts, 400, generator)
    ranks = stats.rankdata(values, axis=0)
    chances = rotations.chances(label, ranks, 0.8)
    drawn = partnered(rotations, starts, label)
    assert not drawn.any(
        axis=1
    ).all()  # a label may fall out of what a shorter game shows of a longer one
    for series, chance_of in zip(values.T, chances, strict=True):
        areas = np.array(
            [placements(series, turned)[turned].mean() if turned.any() else 0.5 for turned in drawn]
        )
        seen = placements(series, label)[label].mean()
        as_far = (np.abs(areas - 0.5) >= abs(seen - 0.5) - 1e-12).sum()
        assert chance_of.p == pytest.approx((1 + as_far) / 401)
        assert (chance_of.low, chance_of.high) == pytest.approx(
            tuple(np.quantile(areas, [0.1, 0.9])), abs=1e-12
        )


def test_what_is_never_reached_out_of_step_has_the_smallest_p_that_so_many_draws_allow() -> None:
    drawn = next(KNOWING["area 0.97, rare numbers"].draws(1))
    p = chance(drawn, np.random.default_rng(0), 3000)
    assert p.p == pytest.approx(1 / 3001)
    assert 0.4 < p.low < 0.5 < p.high < 0.65


def test_q_values_leave_out_what_is_no_test() -> None:
    p = np.array([[0.01, np.nan], [0.04, 0.5]])
    q = q_values(p, "bh")
    assert np.isnan(q[0, 1])
    assert np.allclose(q[~np.isnan(p)], stats.false_discovery_control([0.01, 0.04, 0.5]))
    assert np.isnan(q_values(np.full(2, np.nan), "by")).all()


def test_areas_count_pairs_and_agree_with_scipy_to_the_bit() -> None:
    positive, negative = TIED[:60], TIED[60:]
    areas = areas_between(positive, negative)
    pairs = np.where(
        positive[:, None] == negative, 0.5, (positive[:, None] > negative).astype(float)
    )
    assert (areas == pairs.sum(axis=(0, 1)) / (60 * 140)).all()
    assert (areas == stats.mannwhitneyu(positive, negative).statistic / (60 * 140)).all()
    assert areas_between(np.ones((3, 1)), np.ones((2, 1))) == 0.5


def test_an_area_is_the_same_from_all_pairs_from_placements_and_from_entries_that_are_not_zero():
    label = np.arange(200) < 60
    latents = SparseLatents.of([torch.from_numpy(TIED)])
    ((_, sparse),) = areas(latents, SparseLabels.of(label[:, None]))
    assert (sparse[:, 0] == areas_between(TIED[label], TIED[~label])).all()
    for column, area in zip(TIED.T, sparse[:, 0], strict=True):
        assert placements(column, label)[label].mean() == pytest.approx(area, abs=1e-15)
    ranks = stats.rankdata(TIED, axis=0)[label].sum(axis=0)
    assert (area_of_rank_sum(ranks, 60, 140) == sparse[:, 0]).all()
