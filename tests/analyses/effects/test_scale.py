"""The scale search on curves whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from steered import HOOK, tiny_lm, unit_rows

from saeflow.analyses.effects.scale import (
    TOLERANCE,
    PartLosses,
    ScaleSearch,
    Start,
    VectorScale,
    find_scales,
    find_start,
    loss_of,
    prepare_evaluation,
)
from saeflow.analyses.effects.settings import Scale
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach
from saeflow.models.running import logits, token_losses

NORM = 10.0
UNSTEERED = 2.0
SEARCH = ScaleSearch(UNSTEERED, Scale(), NORM)
TOKENS = torch.randint(2, 20, (8, 16), generator=torch.Generator().manual_seed(0))


def find(curve: Callable[[float], float], **settings: object) -> tuple[VectorScale, int]:
    """The scale found on a curve, and how many losses it took."""
    calls = 0

    def loss_at(indices: np.ndarray, scales: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += len(indices)
        return np.array([curve(scale) for scale in scales])

    (search_result,) = find_scales(loss_at, 1, ScaleSearch(curve(0.0), Scale(**settings), NORM))  # type: ignore[arg-type]
    return search_result, calls


CURVES = {
    "square": lambda s: UNSTEERED + 0.02 * s**2,
    "line": lambda s: UNSTEERED + 0.1 * s,
    "fourth power": lambda s: UNSTEERED + 1e-5 * s**4,
    "steep": lambda s: UNSTEERED + 40 * s**2,
    "saturating": lambda s: UNSTEERED + 5 * s**2 / (s**2 + 30),
    "step": lambda s: UNSTEERED + (0.0 if s < 7.0 else 3.0),
    "dip first": lambda s: UNSTEERED - 0.1 * s + 0.02 * s**2,
    "infinite from 6 on": lambda s: UNSTEERED + (0.02 * s**2 if s < 6 else math.inf),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_loss_at_the_scale_found_meets_the_target(name: str) -> None:
    scale, calls = find(CURVES[name])
    assert scale.status == "ok"
    assert scale.loss == CURVES[name](scale.scale)
    if (
        name == "step"
    ):  # no scale meets the target; the jump is found to the precision of `steps` halvings
        assert scale.scale == pytest.approx(7.0, abs=4 * NORM / 2**10)
    else:
        assert scale.loss == pytest.approx(UNSTEERED + 0.5, abs=TOLERANCE * 0.5)
    assert calls <= 22


@pytest.mark.parametrize("name", ["square", "line", "fourth power", "saturating"])
def test_smooth_curves_take_few_losses(name: str) -> None:
    assert find(CURVES[name])[1] <= 5


@pytest.mark.parametrize("start", [1e-3, 3.6, 4.0, 4.6, 1e9])
def test_a_search_may_start_anywhere_and_is_short_near_the_answer(start: float) -> None:
    scales = []

    def loss_at(indices: np.ndarray, tried: np.ndarray) -> np.ndarray:
        scales.extend(tried)
        return UNSTEERED + 0.02 * tried**2.3

    (scale,) = find_scales(loss_at, 1, SEARCH, Start(start, 2.2))
    assert scale.loss == pytest.approx(UNSTEERED + 0.5, abs=TOLERANCE * 0.5)
    assert scales[0] == min(start, 4 * NORM)
    assert len(scales) <= (2 if 3 < start < 5 else 12)


def test_a_few_vectors_tell_the_others_where_to_begin() -> None:
    factors = np.array([0.018, 0.02, 0.021, 0.0])

    def loss_at(indices: np.ndarray, scales: np.ndarray) -> np.ndarray:
        return UNSTEERED + factors[indices] * scales**2.3

    start = find_start(loss_at, 4, SEARCH)
    assert start is not None
    assert start.scale == pytest.approx(25 ** (1 / 2.3), rel=0.04)
    assert start.power == pytest.approx(2.3, abs=1e-3)
    assert find_start(lambda indices, _: np.full(len(indices), UNSTEERED), 4, SEARCH) is None


def test_losses_on_a_part_let_every_vector_begin_at_a_scale_of_its_own() -> None:
    """Vectors of very different strength; the part of the text rises 1.3 times as fast as all of
    it."""
    factors = np.array([0.002, 0.02, 0.2, 0.0])
    tried: list[float] = []

    def loss_at(indices: np.ndarray, scales: np.ndarray) -> np.ndarray:
        tried.extend(scales)
        return UNSTEERED + factors[indices] * scales**2

    part = PartLosses(lambda indices, scales: 0.4 + 1.3 * factors[indices] * scales**2, 0.4)
    start = find_start(loss_at, 3, SEARCH, part)
    assert start is not None
    assert (start.power, start.part_ratio) == (pytest.approx(2, abs=1e-3), pytest.approx(1.3))
    tried.clear()
    results = find_scales(loss_at, 4, SEARCH, start, part)
    assert [result.status for result in results] == ["ok", "ok", "ok", "never_reached"]
    for factor, result in zip(factors[:3], results, strict=False):
        assert result.scale == pytest.approx((0.5 / factor) ** 0.5, rel=0.03)
    first_round = np.array(tried[:3])
    np.testing.assert_allclose(first_round, (0.5 / factors[:3]) ** 0.5, rtol=0.03)


def test_a_part_that_says_nothing_of_use_costs_no_answer() -> None:
    part = PartLosses(lambda indices, scales: np.full(len(indices), math.nan), 0.4)
    (scale,) = find_scales(lambda _, s: UNSTEERED + 0.02 * s**2, 1, SEARCH, Start(5.0, 2.0), part)
    assert (scale.status, scale.scale) == ("ok", pytest.approx(5, rel=0.03))


@pytest.mark.parametrize("search", ["bisect", "scan"])
def test_a_loss_above_the_target_at_zero_is_flagged(search: str) -> None:
    scale, calls = find(CURVES["square"], rule="loss", value=1.5, search=search)
    assert scale == VectorScale(0.0, UNSTEERED, "above_at_zero")
    assert calls == 0


@pytest.mark.parametrize("search", ["bisect", "scan"])
@pytest.mark.parametrize(
    "curve",
    [
        lambda _: UNSTEERED,
        lambda s: UNSTEERED - 0.01 * s,
        lambda s: UNSTEERED + 0.3 * (1 - math.exp(-s)),
        lambda s: UNSTEERED + 1e-4 * s**2,
    ],
    ids=["flat", "falling", "levels off", "too slow"],
)
def test_a_target_never_reached_is_flagged_and_the_scale_is_the_maximum(
    curve: Callable[[float], float], search: str
) -> None:
    scale, calls = find(curve, search=search)
    assert (scale.scale, scale.status) == (4 * NORM, "never_reached")
    assert scale.loss == curve(4 * NORM)
    assert calls <= 12


def test_losses_that_are_not_numbers_count_as_infinite() -> None:
    scale, _ = find(lambda s: UNSTEERED if s < 3 else math.nan)
    assert scale.status == "ok"
    assert scale.scale == pytest.approx(3, abs=0.1)
    assert math.isfinite(scale.loss)


def test_the_scan_interpolates_between_the_last_two_points_like_the_published_one() -> None:
    scale, calls = find(CURVES["square"], search="scan", steps=20)
    # losses at 4 and 6 are 2.32 and 2.72
    assert scale.scale == pytest.approx(4 + 2 * 0.18 / 0.40)
    assert calls == 4
    assert scale.loss == CURVES["square"](scale.scale)


def test_a_fixed_scale_is_taken_and_measured() -> None:
    assert find(CURVES["square"], rule="fixed", value=3.0)[0] == VectorScale(
        3.0, CURVES["square"](3.0), "ok"
    )
    assert find(CURVES["square"], rule="fixed", value=90.0)[0] == VectorScale(
        40.0, CURVES["square"](40.0), "clamped"
    )


def test_searches_run_side_by_side_and_do_not_touch_each_other() -> None:
    slopes = np.array([0.5, 0.001, 5.0, 0.0])
    rounds = []

    def loss_at(indices: np.ndarray, scales: np.ndarray) -> np.ndarray:
        rounds.append(len(indices))
        return UNSTEERED + slopes[indices] * scales**2

    results = find_scales(loss_at, 4, SEARCH)
    assert rounds[0] == 4
    for slope, result in zip(slopes, results, strict=True):
        assert result == find(lambda s, slope=slope: UNSTEERED + slope * s**2)[0]  # type: ignore[misc]


def test_a_mean_norm_that_is_no_number_is_refused() -> None:
    with pytest.raises(SaeflowError, match="mean activation norm is nan"):
        find_scales(lambda indices, scales: scales, 1, ScaleSearch(1.0, Scale(), math.nan))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_the_loss_above_the_cached_prefix_is_that_of_a_whole_steered_pass(family: str) -> None:
    lm, vectors = tiny_lm(family), unit_rows(2)
    evaluation = prepare_evaluation(lm, HOOK, TOKENS, Scale(tokens=64))
    assert evaluation.tokens.shape == (4, 16)
    losses = loss_of(lm, evaluation, vectors)(np.array([0, 1, 1]), np.array([0.0, 5.0, 20.0]))
    for index, scale, loss in zip([0, 1, 1], [0.0, 5.0, 20.0], losses, strict=True):
        with attach(lm, [(HOOK, lambda resid, added=scale * vectors[index]: resid + added)]):  # type: ignore[misc]
            whole = token_losses(logits(lm, TOKENS[:4]), TOKENS[:4]).mean().item()
        assert loss == pytest.approx(whole, abs=1e-5)
    assert losses[0] == evaluation.loss


def test_a_vocabulary_too_large_for_memory_is_measured_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, vectors = tiny_lm("gpt2"), unit_rows(1)
    evaluation = prepare_evaluation(lm, HOOK, TOKENS, Scale(tokens=128))
    whole = loss_of(lm, evaluation, vectors)(np.array([0]), np.array([5.0]))[0]
    monkeypatch.setattr(
        "saeflow.analyses.effects.scale.LOGITS_AT_ONCE", {"cpu": 3 * 16 * lm.d_vocab}
    )
    monkeypatch.setattr("saeflow.analyses.effects.scale.TOKENS_AT_ONCE", 16)
    assert loss_of(lm, evaluation, vectors)(np.array([0]), np.array([5.0]))[0] == pytest.approx(
        whole, abs=1e-6
    )


def test_too_little_evaluation_text_is_refused() -> None:
    with pytest.raises(
        SaeflowError, match=r"scale.tokens is 2048 and the evaluation text has 128 tokens"
    ):
        prepare_evaluation(tiny_lm(), HOOK, TOKENS, Scale())


def test_a_hook_that_cannot_be_steered_is_refused() -> None:
    with pytest.raises(SaeflowError, match=r"'blocks.1.hook_mlp_out' cannot be steered"):
        prepare_evaluation(tiny_lm(), "blocks.1.hook_mlp_out", TOKENS, Scale(tokens=64))
