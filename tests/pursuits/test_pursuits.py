"""Pursuits held to planted sums, to brute force and to each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.pursuits.dictionary import NOTHING, Decomposition, Dictionary, prefix_sums
from saeflow.pursuits.greedy import gradient, gradient_positive, matching, orthogonal, refit
from saeflow.pursuits.lasso import lasso

Pursuit = Callable[[Tensor, Dictionary, int], Decomposition]
ALL: list[Pursuit] = [matching, gradient, gradient_positive, orthogonal, lasso]
SIGNED: list[Pursuit] = [matching, gradient, orthogonal, lasso]


def unit_rows(n: int, width: int, seed: int) -> Float[Tensor, "n width"]:
    rows = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def dense(result: Decomposition, n_atoms: int, k: int) -> Float[Tensor, "n n_atoms"]:
    """The weights of a row over all atoms."""
    weights = torch.zeros(len(result.error), n_atoms + 1, dtype=torch.float64)
    places = torch.where(result.atoms[:, k - 1] >= 0, result.atoms[:, k - 1], n_atoms)
    return weights.scatter_add(1, places, result.weights[:, k - 1])[:, :-1]


def planted(
    size: tuple[int, int, int], negative: float, trials: int = 200
) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Dictionaries with sums of k of their atoms, ten per dictionary, and which atoms these are."""
    width, n_atoms, k = size
    draws = torch.Generator().manual_seed(sum(size))
    trials_of, chosen_of = [], []
    for seed in range(trials // 10):
        atoms = unit_rows(n_atoms, width, seed)
        chosen = torch.stack([torch.randperm(n_atoms, generator=draws)[:k] for _ in range(10)])
        weights = 0.5 + torch.rand(10, k, generator=draws, dtype=torch.float64)
        weights *= torch.where(torch.rand(10, k, generator=draws) < negative, -1, 1)
        trials_of.append((atoms, torch.einsum("nk,nkd->nd", weights, atoms[chosen])))
        chosen_of.append(chosen)
    return trials_of, chosen_of


def recall_and_error(
    pursuit: Pursuit, size: tuple[int, int, int], negative: float
) -> tuple[float, float]:
    trials, truths = planted(size, negative)
    recalls, errors = [], []
    for (atoms, sums), truth in zip(trials, truths, strict=True):
        result = pursuit(sums, Dictionary(atoms), size[2])
        hits = (truth.unsqueeze(2) == result.atoms[:, -1].unsqueeze(1)).any(2)
        recalls.append(hits.double().mean())
        errors.append(result.error[:, -1].mean())
    return float(torch.stack(recalls).mean()), float(torch.stack(errors).mean())


SIZES = [(64, 256, 4), (64, 512, 4), (128, 1024, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_pursuits_find_the_atoms_of_200_planted_sums(size: tuple[int, int, int]) -> None:
    recall, error = recall_and_error(gradient_positive, size, 0.0)
    assert recall > 0.995
    assert 0.001 < error < 0.01
    recall, error = recall_and_error(orthogonal, size, 0.5)
    assert recall > 0.995
    assert error < 1e-10
    recall, error = recall_and_error(gradient, size, 0.5)
    assert recall > 0.995
    assert error < 0.01


@pytest.mark.parametrize("size", SIZES)
def test_weights_that_must_be_positive_miss_what_is_subtracted(size: tuple[int, int, int]) -> None:
    recall, error = recall_and_error(gradient_positive, size, 1 / 3)
    assert 0.55 < recall < 0.75
    assert 0.15 < error < 0.35


@pytest.mark.parametrize("pursuit", ALL)
def test_errors_never_rise_and_are_those_of_the_sums(pursuit: Pursuit) -> None:
    atoms = unit_rows(90, 24, 0) * torch.linspace(0.3, 4, 90).unsqueeze(1)
    directions = 7 * unit_rows(12, 24, 1)
    result = pursuit(directions, Dictionary(atoms), 20)
    assert (result.error.diff(dim=1) <= 1e-12).all()
    assert (result.error[:, 0] < 1).all()
    for k in (1, 2, 7, 20):
        sums = dense(result, 90, k) @ atoms
        torch.testing.assert_close(result.sums(atoms, k), sums)
        error = (directions - sums).norm(dim=1) ** 2 / directions.norm(dim=1) ** 2
        torch.testing.assert_close(result.error[:, k - 1], error, atol=1e-12, rtol=1e-9)
        cosine = torch.cosine_similarity(directions, sums)
        torch.testing.assert_close(result.cosine[:, k - 1], cosine)
        assert ((result.atoms[:, k - 1] >= 0).sum(1) <= k).all()


def test_orthogonal_matching_pursuit_is_least_squares_on_what_it_chose_greedily() -> None:
    """Brute force with numpy: argmax of correlations, then `lstsq`, at every step."""
    atoms, directions = unit_rows(80, 32, 2), unit_rows(5, 32, 3)
    result = orthogonal(directions, Dictionary(atoms), 10)
    D = atoms.numpy()
    for row, direction in enumerate(directions.numpy()):
        chosen: list[int] = []
        remaining = direction
        for k in range(1, 11):
            chosen.append(int(np.abs(D @ remaining).argmax()))
            weights = np.linalg.lstsq(D[chosen].T, direction, rcond=None)[0]
            remaining = direction - weights @ D[chosen]
            assert result.atoms[row, k - 1, :k].tolist() == chosen
            np.testing.assert_allclose(result.weights[row, k - 1, :k], weights, atol=1e-10)
            assert result.error[row, k - 1].item() == pytest.approx(remaining @ remaining)


def test_least_squares_errs_less_than_matching_at_every_number_of_atoms() -> None:
    """On the same atoms it always does. With its own, which are others from the third on, it does
    on average, and nearly always."""
    atoms, directions = Dictionary(unit_rows(400, 48, 4)), unit_rows(60, 48, 5)
    greedy, squares = matching(directions, atoms, 24), orthogonal(directions, atoms, 24)
    assert torch.equal(greedy.atoms[:, 1], squares.atoms[:, 1])
    torch.testing.assert_close(greedy.error[:, 0], squares.error[:, 0])
    same = refit(directions, atoms, greedy.atoms[:, -1])
    assert (same.error <= greedy.error + 1e-12).all()
    assert (squares.error.mean(0)[1:] < greedy.error.mean(0)[1:]).all()
    assert (squares.error <= greedy.error + 1e-12).double().mean() > 0.99


def test_as_many_atoms_as_dimensions_leave_nothing() -> None:
    atoms, directions = unit_rows(64, 16, 6), unit_rows(20, 16, 7)
    result = orthogonal(directions, Dictionary(atoms), 16)
    assert (result.error[:, -1] < 1e-18).all()
    longer = orthogonal(directions, Dictionary(atoms), 20)
    assert (longer.atoms[:, -1, 16:] == NOTHING).all()
    assert (longer.error[:, 15:] < 1e-18).all()


def test_a_direction_that_is_an_atom_needs_one() -> None:
    atoms = unit_rows(50, 16, 8)
    for pursuit in SIGNED:
        result = pursuit(-3 * atoms[[7]], Dictionary(2 * atoms), 4)
        assert result.atoms[0, 0, 0] == 7, pursuit.__name__
        assert result.error[0, -1] < 1e-18
        torch.testing.assert_close(dense(result, 50, 4)[0, 7], torch.tensor(-1.5).double())


@pytest.mark.parametrize("pursuit", ALL)
def test_the_order_of_atoms_changes_nothing_but_their_indices(pursuit: Pursuit) -> None:
    atoms, directions = unit_rows(120, 20, 9), unit_rows(6, 20, 10)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    straight = pursuit(directions, Dictionary(atoms), 8)
    turned = pursuit(directions, Dictionary(atoms[order]), 8)
    torch.testing.assert_close(
        dense(turned, 120, 8), dense(straight, 120, 8)[:, order], atol=1e-9, rtol=1e-6
    )
    torch.testing.assert_close(turned.error, straight.error)


@pytest.mark.parametrize("pursuit", ALL)
def test_directions_are_decomposed_alike_alone_and_among_others(pursuit: Pursuit) -> None:
    atoms, directions = Dictionary(unit_rows(120, 20, 11)), unit_rows(300, 20, 12)
    together = pursuit(directions, atoms, 6)
    for row in (0, 127, 128, 299):
        alone = pursuit(directions[[row]], atoms, 6)
        assert torch.equal(alone.atoms[0], together.atoms[row])
        torch.testing.assert_close(alone.weights[0], together.weights[row])


@pytest.mark.parametrize("pursuit", ALL)
def test_norms_of_atoms_and_of_the_direction_change_weights_alone(pursuit: Pursuit) -> None:
    atoms, directions = unit_rows(120, 20, 13), unit_rows(6, 20, 14)
    norms = torch.linspace(0.01, 30, 120, dtype=torch.float64)
    plain = pursuit(directions, Dictionary(atoms), 8)
    scaled = pursuit(1e3 * directions, Dictionary(atoms * norms.unsqueeze(1)), 8)
    torch.testing.assert_close(
        dense(scaled, 120, 8), 1e3 * dense(plain, 120, 8) / norms, atol=1e-9, rtol=1e-6
    )
    torch.testing.assert_close(scaled.error, plain.error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pursuit", ALL)
def test_zero_atoms_are_never_chosen_and_of_twins_the_first(
    pursuit: Pursuit, dtype: torch.dtype
) -> None:
    atoms = unit_rows(64, 33, 15)
    atoms = torch.cat([torch.zeros(3, 33), atoms, 2 * atoms, -atoms]).to(dtype)
    directions = unit_rows(9, 33, 16).to(dtype)
    result = pursuit(directions, Dictionary(atoms), 12)
    taken = result.atoms[result.atoms >= 0]
    assert taken.min() >= 3
    if pursuit in SIGNED:
        assert taken.max() < 67
    alone = pursuit(directions, Dictionary(atoms[3:67] if pursuit in SIGNED else atoms[3:]), 12)
    torch.testing.assert_close(result.error, alone.error, atol=1e-6, rtol=1e-4)


def test_what_atoms_cannot_reach_ends_a_pursuit() -> None:
    atoms = torch.eye(6, 10, dtype=torch.float64)
    direction = torch.zeros(2, 10, dtype=torch.float64)
    direction[0, 8], direction[1, 8], direction[1, 2] = 1, 1, -2
    for pursuit in SIGNED:
        result = pursuit(direction, Dictionary(atoms), 3)
        assert (result.atoms[0] == NOTHING).all(), pursuit.__name__
        torch.testing.assert_close(result.error[0], torch.ones(3).double())
        assert (result.cosine[0] == 0).all()
        assert result.atoms[1, 2].tolist() == [2, NOTHING, NOTHING]
        torch.testing.assert_close(result.error[1], torch.full((3,), 0.2).double())
    positive = gradient_positive(direction, Dictionary(atoms), 3)
    assert (positive.atoms == NOTHING).all()


@pytest.mark.parametrize("pursuit", ALL)
def test_float32_chooses_as_float64_does(pursuit: Pursuit) -> None:
    atoms, directions = unit_rows(500, 64, 17).float(), unit_rows(20, 64, 18).float()
    single = pursuit(directions, Dictionary(atoms), 8)
    double = pursuit(directions.double(), Dictionary(atoms.double()), 8)
    assert torch.equal(single.atoms[:, -1].sort(1).values, double.atoms[:, -1].sort(1).values)
    torch.testing.assert_close(single.error, double.error, atol=1e-5, rtol=1e-4)


def test_the_lasso_s_sums_satisfy_its_optimality_conditions() -> None:
    """A minimiser for some λ correlates by λ with its atoms, in their sign, and by less with all
    others; the last before another atom comes in correlates by λ with one more."""
    atoms, directions = unit_rows(100, 32, 19), unit_rows(6, 32, 20)
    result = lasso(directions, Dictionary(atoms), 12)
    for k in range(1, 13):
        weights = dense(result, 100, k)
        correlations = (directions - weights @ atoms) @ atoms.T
        for row in range(6):
            active = weights[row] != 0
            penalty = correlations[row][active].abs()
            assert active.sum() == k
            torch.testing.assert_close(penalty, penalty[:1].expand_as(penalty))
            assert (correlations[row][active].sign() == weights[row][active].sign()).all()
            others = correlations[row][~active].abs()
            assert others.max().item() == pytest.approx(penalty[0].item())


def test_the_lasso_lets_atoms_leave() -> None:
    """Atoms that point alike: on the way to the fit several leave, and the conditions hold."""
    atoms = unit_rows(60, 16, 21) + 0.4 * unit_rows(1, 16, 22)
    units = torch.nn.functional.normalize(atoms, dim=1)
    directions = unit_rows(40, 16, 23)
    result = lasso(directions, Dictionary(atoms), 12)
    left = 0
    for row in range(40):
        for k in range(1, 12):
            now = set(result.atoms[row, k - 1, :].tolist()) - {NOTHING}
            then = set(result.atoms[row, k, :].tolist())
            left += len(now - then)
    assert left > 0
    weights = dense(result, 60, 12) * atoms.norm(dim=1)
    correlations = (directions - weights @ units) @ units.T
    largest = correlations.abs().amax(1, keepdim=True)
    on = torch.where(weights != 0, correlations * weights.sign(), largest)
    torch.testing.assert_close(on, largest.expand_as(on), atol=1e-9, rtol=1e-7)


def test_given_atoms_get_the_weights_of_least_squares_whatever_is_among_them() -> None:
    atoms, directions = unit_rows(30, 12, 24), unit_rows(2, 12, 25)
    given = torch.tensor([[4, 4, 9, NOTHING, 2], [1, 0, 3, 1, 7]])
    result = refit(directions, Dictionary(atoms), given)
    for row, chosen in enumerate([[4, 9, 2], [1, 0, 3, 7]]):
        weights = np.linalg.lstsq(atoms[chosen].T.numpy(), directions[row].numpy(), rcond=None)[0]
        np.testing.assert_allclose(dense(result, 30, 5)[row, chosen], weights, atol=1e-12)


def test_given_weights_are_added_up_in_their_order() -> None:
    atoms, directions = 2 * unit_rows(30, 12, 26), unit_rows(1, 12, 27)
    given, weights = torch.tensor([[3, 8, NOTHING]]), torch.tensor([[0.5, -1.0, 9.0]])
    result = prefix_sums(directions, Dictionary(atoms), given, weights)
    torch.testing.assert_close(result.sums(atoms, 1)[0], 0.5 * atoms[3])
    torch.testing.assert_close(result.sums(atoms, 3)[0], 0.5 * atoms[3] - atoms[8])
    first = result.to_first(1)
    assert first.atoms.shape == (1, 1, 1)
    assert first.error.item() == result.error[0, 0].item()


def test_the_best_of_many_random_atoms_is_as_near_as_extreme_values_say() -> None:
    width, n_atoms = 256, 4096
    atoms, directions = Dictionary(unit_rows(n_atoms, width, 28)), unit_rows(50, width, 29)
    best = orthogonal(directions, atoms, 1).cosine[:, 0].mean().item()
    assert best == pytest.approx(math.sqrt(2 * math.log(n_atoms) / width), rel=0.12)


@pytest.mark.parametrize(
    ("atoms", "directions", "words"),
    [
        (torch.zeros(0, 4), torch.ones(1, 4), "holds no atoms"),
        (torch.tensor([[1.0, math.nan]]), torch.ones(1, 2), "atom 0 of the dictionary holds NaN"),
        (torch.eye(4), torch.ones(1, 5), "4 wide"),
        (torch.eye(4), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]), "direction 1 is zero"),
        (torch.eye(2), torch.tensor([[math.inf, 0]]), "direction 0 is zero or not finite"),
    ],
)
def test_what_cannot_be_decomposed_is_a_sentence(
    atoms: Tensor, directions: Tensor, words: str
) -> None:
    with pytest.raises(SaeflowError, match=words):
        orthogonal(directions, Dictionary(atoms), 1)
