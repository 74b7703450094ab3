"""Lines: planted ones are found where a nuisance is larger, and nothing is said in sample."""

import numpy as np
import pytest
from scipy import stats
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge

from saeflow.analyses.geometry.line import (
    METHODS,
    PENALTIES,
    HeldOut,
    angles,
    beyond,
    block_interval,
    blocks_of,
    fit_line,
    held_out,
    line_null,
    r_squared,
    random_cosine,
)
from saeflow.errors import SaeflowError


def timeline(n=300, d=64, nuisance=3.0, slope=1.0, noise=0.3, seed=0):
    """Years, points along a planted direction beside a nuisance of more variance, the direction."""
    draw = np.random.default_rng(seed)
    years = draw.uniform(1900, 2000, n)
    axes = np.linalg.qr(draw.standard_normal((d, 2)))[0].T
    along = slope * (years - 1950) / 29
    points = (
        np.outer(along, axes[0])
        + np.outer(nuisance * draw.standard_normal(n), axes[1])
        + noise * draw.standard_normal((n, d))
        + 2
    )
    return points, years, axes[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_timeline_is_found_although_the_first_component_is_a_nuisance(method):
    points, years, direction = timeline(n=2000, nuisance=2.0)
    line = fit_line(points, years, method)
    assert line.direction @ direction > 0.95
    near = angles(line.direction, points, 3)
    assert near[0] < 0.3 < 0.9 < near[1]


def test_ridge_and_partial_least_squares_equal_scikit_learn():
    points, years, _ = timeline(n=60, d=20)
    line = fit_line(points, years, "ridge")
    scale = (np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2).mean()
    predictions = [
        Ridge(alpha=penalty * scale).fit(points, years).predict(points) for penalty in PENALTIES
    ]
    assert min(np.abs(line.numbers(points) - each).max() for each in predictions) < 1e-8
    own = fit_line(points, years, "pls")
    theirs = PLSRegression(1, scale=False).fit(points, years)
    assert np.allclose(own.numbers(points), theirs.predict(points).ravel())


def test_what_fits_every_number_in_sample_says_nothing_of_held_out_blocks():
    draw = np.random.default_rng(1)
    points, years = draw.standard_normal((40, 400)), draw.uniform(1900, 2000, 40)
    design = points - points.mean(0)
    fitted = design @ np.linalg.lstsq(design, years - years.mean(), rcond=None)[0]
    assert np.allclose(fitted, years - years.mean())  # fewer texts than dimensions
    blocks = blocks_of(years, 10, "time")
    for each in held_out(points, years, blocks).values():
        assert each.r2 < 0.1


def test_numbers_of_a_block_are_told_without_it():
    points, years, _ = timeline()
    blocks = blocks_of(years, 10, "time")
    out = blocks == 3
    line = fit_line(points[~out], years[~out], "ridge")
    held = held_out(points, years, blocks)["ridge"]
    assert np.allclose(held.predicted[out], line.numbers(points[out]))
    assert held.r2 > 0.85
    assert held.rank > 0.9


def test_p_values_of_exchanged_blocks_are_uniform_where_texts_of_a_block_are_alike():
    """Texts of a block share a random place, as those of a speech do; years say nothing of it."""
    p = []
    for seed in range(10_000, 10_200):
        draw = np.random.default_rng(seed)
        years = np.repeat(np.arange(1900, 2000, 10), 6) + draw.uniform(0, 10, 60)
        blocks = blocks_of(years, 10, "time")
        points = 2 * draw.standard_normal((10, 16))[blocks] + draw.standard_normal((60, 16))
        held = HeldOut(points, blocks)
        own = held.numbers(years, ["pls"])["pls"].r2
        null = line_null(held, years, blocks, 39, draw, ["pls"])["pls"]
        p.append((1 + (null >= own).sum()) / 40)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) <= 0.1


def test_a_planted_timeline_stands_out_of_its_null():
    points, years, _ = timeline(n=120)
    blocks = blocks_of(years, 10, "time")
    held = HeldOut(points, blocks)
    null = line_null(held, years, blocks, 49, np.random.default_rng(0), ["ridge"])
    assert held.numbers(years)["ridge"].r2 > null["ridge"].max()
    low, high = block_interval(
        years, held.numbers(years)["ridge"].predicted, blocks, 200, 0.95, np.random.default_rng(0)
    )
    assert low < held.numbers(years)["ridge"].r2 < high


def test_the_interval_does_not_depend_on_where_numbers_begin():
    """Seconds since 1970 of one minute and a half, whose squares leave nothing of differences."""
    seconds = np.linspace(0, 100, 60)
    said = seconds + np.random.default_rng(0).normal(0, 10, 60)
    blocks = blocks_of(seconds, 10, "time")
    ends = [
        block_interval(seconds + since, said + since, blocks, 200, 0.95, np.random.default_rng(0))
        for since in (0, 1.6e9)
    ]
    assert np.allclose(*ends, atol=1e-4)


def test_what_a_confound_says_is_told_and_taken_out():
    points, years, direction = timeline(n=400, slope=0.0)
    length = (years - 1950) / 10 + np.random.default_rng(2).standard_normal(400)
    points = points + np.outer(length, direction)
    blocks = blocks_of(years, 10, "time")
    assert held_out(points, years, blocks)["ridge"].r2 > 0.5
    alone, rest = beyond(points, years, length[:, None], blocks)
    assert alone > 0.5
    assert rest < 0.05


def test_random_directions_stay_below_the_cosine_that_is_named():
    draw = np.random.default_rng(0).standard_normal((20_000, 40))
    share = np.abs(draw[:, 0]) / np.linalg.norm(draw, axis=1)
    assert np.mean(share < random_cosine(40, 0.95)) == pytest.approx(0.95, abs=0.005)
    largest = np.abs(draw[:, :10]).max(1) / np.linalg.norm(draw, axis=1)
    assert 0.95 <= np.mean(largest < random_cosine(40, 0.95, 10)) <= 0.965


def test_few_blocks_are_refused():
    with pytest.raises(
        SaeflowError, match=r"geometry\.points\.lines\.time\.block: 50 puts .* 2 blocks"
    ):
        blocks_of(np.linspace(1900, 1999, 30), 50, "time")


def test_a_group_with_texts_in_two_blocks_teaches_nothing_of_itself():
    """Speakers have places of their own, and speak in two decades each; years have none."""
    draw = np.random.default_rng(0)
    speakers = np.repeat(np.arange(12), 10)
    years = 1900 + 8 * speakers + draw.uniform(0, 16, 120)
    points = 3 * draw.standard_normal((12, 64))[speakers] + 0.1 * draw.standard_normal((120, 64))
    blocks = blocks_of(years, 10, "time")
    alone = held_out(points, years, blocks)["ridge"]
    together = held_out(points, years, blocks, groups=speakers)["ridge"]
    assert alone.r2 > 0.5 > 0.1 > together.r2
    confounds = draw.standard_normal((120, 1))
    assert beyond(points, years, confounds, blocks)[1] > 0.4
    assert beyond(points, years, confounds, blocks, speakers)[1] < 0.2


def test_several_numberings_are_told_at_once_as_one_after_the_other():
    points, years, _ = timeline(n=80, d=20)
    held = HeldOut(points, blocks_of(years, 10, "time"))
    several = [years, years[::-1].copy(), years**2]
    together = held.of_many(several)
    for row, values in enumerate(several):
        for method, each in held.numbers(values).items():
            assert np.array_equal(each.predicted, together[method][row].predicted)
            assert each.r2 == together[method][row].r2


def test_numbers_of_which_half_are_the_largest_have_a_difference_of_means():
    draw = np.random.default_rng(0)
    years = np.r_[np.arange(2000.0, 2020), np.full(30, 2020.0)]
    points = np.outer(years - 2010, np.ones(8)) + draw.standard_normal((50, 8))
    for each in held_out(points, years, blocks_of(years, 5, "time")).values():
        assert each.r2 > 0.8
    line = fit_line(points, years, "difference")
    rising = points[years == 2020].mean(0) - points[years < 2020].mean(0)
    assert np.allclose(line.direction, rising / np.linalg.norm(rising))


def test_numbers_that_are_all_the_same_have_no_share_that_is_explained():
    assert np.isnan(r_squared(np.full(5, 3.0), np.arange(5.0)))
