"""The fit recovers what was planted, and a fit to nothing finds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from saeflow.analyses.effects.approximation import procrustes
from saeflow.analyses.effects.approximator import Fit, fit, split_rows
from saeflow.analyses.effects.ridge import moments, solve
from saeflow.analyses.effects.settings import Approximator
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

N, D_MODEL, D_SAE = 600, 16, 40
GENERATOR = torch.Generator().manual_seed(0)
M = torch.randn(D_MODEL, D_SAE, generator=GENERATOR)
B = torch.randn(D_SAE, generator=GENERATOR)
VECTORS = torch.nn.functional.normalize(torch.randn(N, D_MODEL, generator=GENERATOR), dim=1)
NOISE = 0.05 * torch.randn(N, D_SAE, generator=GENERATOR)
EFFECTS = VECTORS @ M + B + NOISE
W_DEC = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=GENERATOR), dim=1)


def cosines(rows: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(rows, other, dim=0)


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(VECTORS, EFFECTS, Approximator(), W_DEC, seed=0)


def test_ridge_recovers_a_planted_map(fitted: Fit) -> None:
    assert cosines(fitted.approximation.M, M).min() > 0.99
    torch.testing.assert_close(fitted.approximation.b, B, atol=0.02, rtol=0)
    assert fitted.metrics["r2"] > 0.95
    assert fitted.metrics["r2_median"] > 0.95
    assert fitted.metrics["cosine"] > 0.99
    assert fitted.metrics["top_k_overlap"] > 0.9


def test_a_fit_to_shuffled_rows_explains_nothing(fitted: Fit) -> None:
    assert abs(fitted.metrics["r2_shuffled"]) < 0.1


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_the_ceiling_of_r2_is_what_a_perfect_map_reaches(noise: float) -> None:
    """The map is planted, and standard errors are those of the noise that was added, unlike for
    every latent."""
    errors = noise * torch.linspace(0.2, 1.8, D_SAE).expand(N, -1)
    noisy = (
        VECTORS @ M + B + errors * torch.randn(N, D_SAE, generator=torch.Generator().manual_seed(2))
    )
    fitted = fit(VECTORS, noisy, Approximator(), W_DEC, seed=0, standard_error=errors.half())
    split = split_rows(np.arange(N), N, 0.1, seed=0)
    x, y = VECTORS[split.test], noisy[split.test]
    perfect = 1 - (y - x @ M - B).square().sum(0) / (y - y.mean(0)).square().sum(0)
    reached = 1 - (y - x @ M - B).square().sum() / (y - y.mean(0)).square().sum()
    assert fitted.metrics["r2_ceiling"] == pytest.approx(reached.item(), abs=0.03)
    assert fitted.metrics["r2"] < fitted.metrics["r2_ceiling"] + 0.02
    ceilings = fitted.latents["r2_ceiling"].to_numpy()
    assert np.corrcoef(ceilings, perfect.numpy())[0, 1] > 0.7
    assert abs(ceilings.mean() - perfect.mean().item()) < 0.05


def test_r2_without_standard_errors_has_no_ceiling(fitted: Fit) -> None:
    assert fitted.metrics["r2_ceiling"] is None
    assert fitted.latents["r2_ceiling"].is_null().all()
    unknown = torch.full((N, D_SAE), torch.nan)
    assert (
        fit(VECTORS, EFFECTS, Approximator(), W_DEC, seed=0, standard_error=unknown).metrics[
            "r2_ceiling"
        ]
        is None
    )


def test_r2_comes_with_its_spread_over_other_splits(fitted: Fit) -> None:
    assert len(fitted.metrics["r2_splits"]) == 5
    assert fitted.metrics["r2_sd"] == pytest.approx(np.std(fitted.metrics["r2_splits"], ddof=1))
    # The first of the splits, by hand.
    order = numpy_generator(0, "approximator", "splits").permutation(N)
    held, rest = order[:60], order[60:]
    sums = moments(iter([(VECTORS[rest], EFFECTS[rest])]), D_MODEL, D_SAE, VECTORS.device)
    solved, bias = solve(sums, fitted.metrics["penalty"])
    y = EFFECTS[held]
    expected = (
        1 - (y - VECTORS[held] @ solved - bias).square().sum() / (y - y.mean(0)).square().sum()
    )
    assert fitted.metrics["r2_splits"][0] == pytest.approx(expected.item(), abs=1e-5)
    adam = fit(VECTORS, EFFECTS, Approximator(method="adam", epochs=1), W_DEC, seed=0)
    assert adam.metrics["r2_splits"] is None


def test_the_penalty_is_the_one_that_validates_best(fitted: Fit) -> None:
    by_penalty = fitted.metrics["validation_mse"]
    assert by_penalty[str(fitted.metrics["penalty"])] == min(by_penalty.values())
    noisy = VECTORS @ M[:, :1] + 5 * torch.randn(
        N, D_SAE, generator=torch.Generator().manual_seed(1)
    )
    assert (
        fit(VECTORS, noisy, Approximator(), W_DEC, seed=0).metrics["penalty"]
        > fitted.metrics["penalty"]
    )


def test_the_validation_error_is_that_of_the_solved_ridge(fitted: Fit) -> None:
    split = split_rows(np.arange(N), N, 0.1, seed=0)
    train = moments(
        iter([(VECTORS[split.train], EFFECTS[split.train])]), D_MODEL, D_SAE, VECTORS.device
    )
    for penalty in (1e-4, 10.0):
        solved, bias = solve(train, penalty)
        error = (
            (EFFECTS[split.validation] - VECTORS[split.validation] @ solved - bias)
            .square()
            .mean()
            .item()
        )
        assert fitted.metrics["validation_mse"][str(penalty)] == pytest.approx(error, rel=1e-4)


def test_ridge_is_the_closed_form() -> None:
    sums = moments(iter([(VECTORS, EFFECTS)]), D_MODEL, D_SAE, VECTORS.device)
    solved, bias = solve(sums, 0.5)
    x, y = VECTORS.double() - VECTORS.double().mean(0), EFFECTS.double() - EFFECTS.double().mean(0)
    ridge = 0.5 * (x.T @ x).diagonal().mean()
    expected = torch.linalg.solve(
        x.T @ x + ridge * torch.eye(D_MODEL, dtype=torch.float64), x.T @ y
    )
    torch.testing.assert_close(solved.double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        VECTORS.mean(0) @ solved + bias, EFFECTS.mean(0), atol=1e-5, rtol=1e-4
    )


def test_effects_on_disk_and_in_memory_fit_the_same(
    fitted: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saeflow.analyses.effects.approximator.CHUNK", 64)
    again = fit(VECTORS, EFFECTS.numpy(), Approximator(), W_DEC, seed=0)
    torch.testing.assert_close(again.approximation.M, fitted.approximation.M, atol=1e-5, rtol=1e-4)
    assert again.metrics["r2"] == pytest.approx(fitted.metrics["r2"], abs=1e-6)


def test_rows_that_are_not_usable_are_not_used() -> None:
    spoiled = EFFECTS.clone()
    spoiled[::5] = 1e6
    usable = np.arange(N) % 5 != 0
    result = fit(VECTORS, spoiled, Approximator(), W_DEC, seed=0, usable=usable)
    assert cosines(result.approximation.M, M).min() > 0.99
    assert sum(result.metrics["rows"].values()) == usable.sum()
    assert (result.predictions["row"] % 5 != 0).all()


def test_the_split_is_random_disjoint_and_whole() -> None:
    split = split_rows(np.arange(100), 100, 0.1, seed=0)
    assert [int(mask.sum()) for mask in split] == [80, 10, 10]
    assert (split.train.astype(int) + split.validation + split.test == 1).all()
    assert np.diff(np.flatnonzero(split.test)).max() > 1


def test_every_latent_has_its_own_r2(fitted: Fit) -> None:
    split = split_rows(np.arange(N), N, 0.1, seed=0)
    measured = EFFECTS[split.test].double().numpy()
    predicted = fitted.approximation.predict(VECTORS[split.test]).double().numpy()
    expected = 1 - ((measured - predicted) ** 2).mean(0) / measured.var(0)
    table = fitted.latents
    assert table["latent"].to_list() == list(range(D_SAE))
    np.testing.assert_allclose(table["r2"].to_numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(table["measured_std"].to_numpy(), measured.std(0), rtol=1e-4)
    assert fitted.metrics["r2_median"] == pytest.approx(
        np.sort(expected)[(D_SAE - 1) // 2], rel=1e-4
    )


def test_adam_follows_the_published_recipe() -> None:
    result = fit(VECTORS, EFFECTS, Approximator(method="adam", epochs=3), W_DEC, seed=0)
    torch.manual_seed(99)  # the recipe draws from its own stream
    again = fit(VECTORS, EFFECTS, Approximator(method="adam", epochs=3), W_DEC, seed=0)
    assert torch.equal(result.approximation.M, again.approximation.M)
    # 9 steps an epoch at 2e-4, falling: no weight can have gone further from its uniform start
    bound = (6 / D_SAE) ** 0.5
    assert result.approximation.M.abs().max() < bound + 27 * 2e-4
    assert result.approximation.b.abs().max() < 27 * 2e-4
    assert result.metrics["epochs"] == 3


def test_adam_learns() -> None:
    vectors, effects = VECTORS.repeat(10, 1), EFFECTS.repeat(10, 1) / 5
    start = fit(vectors, effects, Approximator(method="adam", epochs=1), W_DEC, seed=0)
    result = fit(vectors, effects, Approximator(method="adam", epochs=30), W_DEC, seed=0)
    assert result.metrics["r2"] > start.metrics["r2"] + 0.3


def test_rotation_is_orthogonal_and_recovers_a_planted_one() -> None:
    Q = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(4)))[
        0
    ]
    lengths = torch.rand(D_SAE, generator=torch.Generator().manual_seed(5)) + 0.1
    rotation = procrustes((W_DEC @ Q).T * lengths, W_DEC * 3)
    torch.testing.assert_close(rotation, Q, atol=1e-5, rtol=0)
    noisy = procrustes(M, W_DEC)
    torch.testing.assert_close(noisy @ noisy.T, torch.eye(D_MODEL), atol=1e-5, rtol=0)


@pytest.mark.parametrize("constant", [0.0, -0.3, 5.0, -50.0, 1e-4])
def test_a_latent_that_all_vectors_move_alike_does_not_turn_the_rotation(constant: float) -> None:
    effects = EFFECTS.clone()
    effects[:, 7] = constant
    others = torch.arange(D_SAE) != 7
    whole = fit(VECTORS, effects, Approximator(), W_DEC, seed=0).approximation
    without = fit(VECTORS, effects[:, others], Approximator(), W_DEC[others], seed=0).approximation
    torch.testing.assert_close(whole.rotation, without.rotation, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("length", "counts"), [(1e-9, False), (1e-3, True)])
def test_columns_of_rounding_noise_are_left_out_of_the_rotation_and_small_ones_are_not(
    length: float, counts: bool
) -> None:
    columns = M.clone()
    columns[:, 3] *= length
    turned = columns.clone()
    turned[:, 3] *= -1
    assert torch.equal(procrustes(columns, W_DEC), procrustes(turned, W_DEC)) == (not counts)


def test_correction_is_the_direction_of_the_bias(fitted: Fit) -> None:
    M_fit, b, _, correction = fitted.approximation
    torch.testing.assert_close(correction, (M_fit @ b) / (M_fit @ b).norm())


def test_predictions_are_held_out_points_and_tops_of_every_row(fitted: Fit) -> None:
    split = split_rows(np.arange(N), N, 0.1, seed=0)
    table = fitted.predictions
    assert table["row"].is_in(np.flatnonzero(split.test)).all()
    point = table.row(17, named=True)
    assert point["measured"] == EFFECTS[point["row"], point["latent"]].item()
    predicted = VECTORS[point["row"]] @ fitted.approximation.M[:, point["latent"]]
    assert point["predicted"] == pytest.approx(
        (predicted + fitted.approximation.b[point["latent"]]).item(), abs=1e-5
    )
    tops = table.filter(pl.col("kind") == "top").group_by("row").agg(pl.col("measured").max())
    assert len(tops) == split.test.sum()
    for row, measured in tops.iter_rows():
        assert measured == EFFECTS[row].max().item()


def test_latents_that_never_move_are_left_out_of_the_median() -> None:
    effects = EFFECTS.clone()
    effects[:, :30] = 0.7
    fitted = fit(VECTORS, effects, Approximator(), W_DEC, seed=0)
    assert fitted.metrics["r2_median"] > 0.9
    assert fitted.latents["r2"].is_null().to_list() == [True] * 30 + [False] * 10
    still = fit(VECTORS, torch.zeros(N, D_SAE), Approximator(), W_DEC, seed=0).metrics
    assert (still["r2"], still["r2_median"], still["r2_shuffled"]) == (None, None, None)


@pytest.mark.parametrize(
    ("vectors", "effects", "complaint"),
    [
        (VECTORS[:-1], EFFECTS, "599 vectors and effects of shape"),
        (
            VECTORS,
            EFFECTS[:, 1:],
            "the SAE has 40 latents of width 16, the effects have 39 latents",
        ),
        (VECTORS[:5], EFFECTS[:5], "5 vectors with effects are too few"),
    ],
)
def test_shapes_that_do_not_agree_are_refused(
    vectors: torch.Tensor, effects: torch.Tensor, complaint: str
) -> None:
    with pytest.raises(SaeflowError, match=complaint):
        fit(vectors, effects, Approximator(), W_DEC, 0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch has, for a while."""
    usual = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(usual)


@pytest.mark.parametrize("method", ["ridge", "adam"])
def test_the_number_of_threads_changes_no_bit(
    method: Literal["ridge", "adam"], threads: Callable[[int], None]
) -> None:
    """At a size where sums of a torch operation are shared out among its threads."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(500, 96, generator=generator), dim=1)
    decoder = torch.nn.functional.normalize(torch.randn(1500, 96, generator=generator), dim=1)
    effects = vectors @ torch.randn(96, 1500, generator=generator) + torch.randn(
        500, 1500, generator=generator
    )
    fits = []
    for count in (1, 2, 3):
        threads(count)
        fits.append(fit(vectors, effects, Approximator(method=method, epochs=2), decoder, seed=0))
        assert torch.get_num_threads() == count, "they are given back"
    for other in fits[1:]:
        assert other.metrics == fits[0].metrics
        assert all(map(torch.equal, other.approximation, fits[0].approximation))
        assert_frame_equal(other.latents, fits[0].latents, check_exact=True)
        assert_frame_equal(other.predictions, fits[0].predictions, check_exact=True)
