"""Dictionaries made of activations themselves: inference-time decomposition of activations (Leask,
Nanda and Al Moubayed 2025, arXiv 2505.17769).

Activations are taken in turn; one that the atoms so far leave too much of becomes an atom itself.
Nothing is trained, so that such a dictionary costs a small part of an SAE's time: what a direction
gains from an SAE's decoder beyond it is what training gave.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.pursuits.dictionary import Dictionary
from saeflow.pursuits.greedy import orthogonal

ROWS_AT_ONCE = 128


def itda(
    activations: Iterable[Float[Tensor, "rows d_model"]],
    mean: Float[Tensor, " d_model"],
    size: int,
    k: int,
    error: float,
) -> Float[Tensor, "n_atoms d_model"]:
    """Collect activations until there are enough, or none is left.

    Rows are looked at some at a time by the atoms of those before them; of rows that are alike, and
    come together, the first stands for all.

    Args:
        activations: pieces of them, in the order in which they are taken.
        mean: of all activations, which is subtracted: it is in each, and tells nothing.
        size: most atoms.
        k: atoms in the sum that an activation is held against.
        error: share of an activation's squared norm, its mean subtracted, that such a sum may
            leave.

    Returns:
        At most ``size`` atoms of norm 1, float32.

    Raises:
        SaeflowError: all activations are equal to the mean.
    """
    atoms = torch.empty(size, len(mean), dtype=torch.float32)
    count = 0
    for piece in activations:
        for start in range(0, len(piece), ROWS_AT_ONCE):
            rows = piece[start : start + ROWS_AT_ONCE].double().cpu() - mean.double().cpu()
            units = rows[rows.norm(dim=1) > 0]
            units = units / units.norm(dim=1, keepdim=True)
            if count and len(units):
                sums = orthogonal(units, Dictionary(atoms[:count]), k)
                units = units[sums.error[:, -1] > error]
            new = _unlike(units, error)[: size - count]
            atoms[count : count + len(new)] = new.float()
            count += len(new)
            if count == size:
                return atoms
    if not count:
        raise SaeflowError("itda: all activations equal their mean; cache others")
    return atoms[:count].clone()


def _unlike(units: Float[Tensor, "n d_model"], error: float) -> Float[Tensor, "m d_model"]:
    """Rows in their order, without those of which one before leaves no more than the error."""
    left = 1 - (units @ units.T).square()
    kept: list[int] = []
    for row in range(len(units)):
        if not kept or left[row, kept].min() > error:
            kept.append(row)
    return units[kept]
