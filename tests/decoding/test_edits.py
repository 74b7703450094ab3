"""Edits do what their formulas say, at the positions they name, without touching their input."""

from __future__ import annotations

import pytest
import torch
from steered import unit_rows

from saeflow.decoding.edits import Edit, apply, check_vectors
from saeflow.errors import SaeflowError

VECTORS = unit_rows(2)
SCALES = torch.tensor([2.0, -1.0])
RESID = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))


def test_add_adds_each_row_its_own_multiple_and_leaves_its_input() -> None:
    before = RESID.clone()
    edited = apply(Edit("add", VECTORS, SCALES), RESID, 0, 2)
    torch.testing.assert_close(edited, RESID + SCALES[:, None, None] * VECTORS[:, None])
    assert torch.equal(RESID, before)


def test_ablate_projects_the_vector_out() -> None:
    edited = apply(Edit("ablate", VECTORS, torch.ones(2)), RESID, 0, 2)
    assert edited is not None
    torch.testing.assert_close(
        (edited * VECTORS[:, None]).sum(-1), torch.zeros(2, 4), atol=1e-5, rtol=0
    )
    aside = unit_rows(1, seed=5)[0]
    for row in range(2):
        free = aside - (aside @ VECTORS[row]) * VECTORS[row]
        torch.testing.assert_close(edited[row] @ free, RESID[row] @ free, atol=1e-5, rtol=1e-5)


def test_clamp_sets_the_component() -> None:
    edited = apply(Edit("clamp", VECTORS, SCALES), RESID, 0, 2)
    assert edited is not None
    torch.testing.assert_close(
        (edited * VECTORS[:, None]).sum(-1), SCALES[:, None].expand(2, 4), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("positions", "include_bos", "expected"),
    [
        ("all", True, [0, 1, 2, 3, 4, 5]),
        ("all", False, [1, 2, 3, 4, 5]),
        ("prompt", True, [0, 1, 2]),
        ("prompt", False, [1, 2]),
        ("generated", True, [3, 4, 5]),
        (4, True, [4, 5]),
        (0, False, [1, 2, 3, 4, 5]),
    ],
)
@pytest.mark.parametrize("stretches", [[6], [3, 1, 1, 1], [2, 4]])
def test_positions_are_absolute_whatever_the_stretch(
    positions: str, include_bos: bool, expected: list[int], stretches: list[int]
) -> None:
    edit = Edit("add", torch.ones(1, 1), torch.ones(1), positions, include_bos)  # type: ignore[arg-type]
    parts, offset = [], 0
    for length in stretches:
        resid = torch.zeros(1, length, 1)
        edited = apply(edit, resid, offset, prompt_length=3)
        parts.append(resid if edited is None else edited)
        offset += length
    assert torch.cat(parts, 1)[0, :, 0].nonzero()[:, 0].tolist() == expected


def test_a_vector_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(SaeflowError, match=r"have shape \(2, 32\) and the model is 16 wide"):
        check_vectors(VECTORS, 16, "effects")


def test_a_vector_with_nan_is_refused_by_its_row() -> None:
    vectors = VECTORS.clone()
    vectors[1, 3] = float("nan")
    with pytest.raises(SaeflowError, match="vector 1 holds NaN"):
        check_vectors(vectors, 32, "effects")
