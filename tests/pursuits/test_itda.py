"""Dictionaries of activations."""

from __future__ import annotations

import pytest
import torch
from planted_dictionary import planted

from saeflow.errors import SaeflowError
from saeflow.pursuits.dictionary import Dictionary
from saeflow.pursuits.greedy import orthogonal
from saeflow.pursuits.itda import itda


def test_atoms_are_activations_and_explain_others_as_well_as_asked() -> None:
    activations, _ = planted(rows=6000, d_model=16, features=20, active=1.5)
    mean = activations.mean(0)
    learned, others = activations[:5000], activations[5000:] - mean
    atoms = itda(learned.split(700), mean, size=400, k=4, error=0.1)  # type: ignore[no-untyped-call]
    assert 20 < len(atoms) < 400
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(len(atoms)))
    units = torch.nn.functional.normalize(learned - mean, dim=1)
    assert (atoms @ units.T).amax(1).min() > 0.9999
    sums = orthogonal(others, Dictionary(atoms), 4)
    assert (sums.error[:, -1] <= 0.1).double().mean() > 0.95
    fewer = itda(learned.split(700), mean, size=400, k=4, error=0.4)  # type: ignore[no-untyped-call]
    assert len(fewer) < len(atoms)


def test_what_was_seen_before_is_no_atom_again_however_it_comes() -> None:
    rows = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    mean = torch.zeros(24)
    once = itda([rows], mean, size=500, k=2, error=0.05)
    again = itda([rows, 3 * rows, -rows.repeat(4, 1)], mean, size=500, k=2, error=0.05)
    assert torch.equal(once, again)
    assert len(once) == 40


def test_it_ends_when_it_is_full() -> None:
    rows = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))

    def pieces():
        yield rows
        raise AssertionError("nothing more is read")

    atoms = itda(pieces(), torch.zeros(64), size=50, k=1, error=0.01)
    assert torch.equal(atoms, torch.nn.functional.normalize(rows[:50].double(), dim=1).float())


def test_activations_without_variance_are_a_sentence() -> None:
    with pytest.raises(SaeflowError, match="equal their mean"):
        itda([torch.ones(9, 4)], torch.ones(4), size=4, k=1, error=0.1)
