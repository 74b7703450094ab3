"""Dictionaries of atoms, and directions as sums of few of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow import products
from saeflow.errors import SaeflowError

NOTHING = -1
"""Stands in the place of an atom where there is none."""

SIDE_BY_SIDE = 128
"""Directions that are decomposed at a time: 34 MB of float32 cosines with 65,536 atoms."""


class Decomposition(NamedTuple):
    """Directions as sums of at most 1, 2, …, k atoms; row ``k - 1`` is the sum of at most k."""

    atoms: Int[Tensor, "directions k k"]
    """Indices of the atoms of each sum; `NOTHING` fills what a sum leaves over."""
    weights: Float[Tensor, "directions k k"]
    """Their weights as the dictionary has them, float64; 0 where there is no atom."""
    error: Float[Tensor, "directions k"]
    """Squared distance of the sum from the direction, divided by the direction's squared norm."""
    cosine: Float[Tensor, "directions k"]
    """Of the angle between sum and direction; 0 where the sum is zero."""

    def sums(self, atoms: Float[Tensor, "n_atoms d_model"], k: int) -> Tensor:
        """The sums of at most ``k`` atoms, ``[directions, d_model]``, float64.

        Args:
            atoms: the dictionary's.
        """
        chosen = self.atoms[:, k - 1]
        rows = atoms[chosen.clamp_min(0)].double()
        return torch.einsum("nk,nkd->nd", self.weights[:, k - 1].to(rows), rows)

    def to_first(self, k: int) -> Decomposition:
        """The same for at most 1, …, k atoms."""
        return Decomposition(
            self.atoms[:, :k, :k], self.weights[:, :k, :k], self.error[:, :k], self.cosine[:, :k]
        )


class Dictionary:
    """Atoms that directions are decomposed into.

    Products with all atoms are taken in the atoms' own precision, float32 or float64, everything
    else in float64. Nothing as large as the atoms is copied: correlations are divided by norms.
    """

    def __init__(self, atoms: Float[Tensor, "n_atoms d_model"]) -> None:
        """Take atoms of any norm; those of norm zero are never chosen.

        Raises:
            SaeflowError: there is none, or a number is not finite.
        """
        if atoms.ndim != 2 or 0 in atoms.shape:
            raise SaeflowError(f"a dictionary of shape {tuple(atoms.shape)} holds no atoms")
        kept = atoms.dtype in (torch.float32, torch.float64)
        self.atoms = (atoms if kept else atoms.float()).contiguous()
        self.norms = torch.linalg.vector_norm(self.atoms, dim=1, dtype=torch.float64)
        if not torch.isfinite(self.norms).all():
            wrong = int((~torch.isfinite(self.norms)).nonzero()[0])
            raise SaeflowError(f"atom {wrong} of the dictionary holds NaN or infinity")
        self.inverse_norms = torch.where(self.norms > 0, 1 / self.norms, 0).to(self.atoms)
        self.tolerance = 1e-6 if self.atoms.dtype == torch.float32 else 1e-11
        """Below it a cosine, or what remains of a direction of norm 1, is rounding."""

    def cosines(self, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n n_atoms"]:
        """Cosines of vectors of norm 1 with all atoms, in the atoms' precision."""
        return products.linear(vectors.to(self.atoms), self.atoms).mul_(self.inverse_norms)

    def units(self, chosen: Int[Tensor, "*places"]) -> Float[Tensor, "*places d_model"]:
        """Atoms brought to norm 1, float64; zeros for `NOTHING`."""
        rows = self.atoms[chosen.clamp_min(0)].double()
        return rows * self.scales(chosen).unsqueeze(-1)

    def scales(self, chosen: Int[Tensor, "*places"]) -> Float[Tensor, "*places"]:
        """What brings atoms to norm 1, float64; zeros for `NOTHING` and atoms of norm zero."""
        norms = self.norms[chosen.clamp_min(0)]
        return torch.where((chosen >= 0) & (norms > 0), 1 / norms, 0)

    def checked(self, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """Directions in float64 on the dictionary's device.

        Raises:
            SaeflowError: their width is another, or one is zero or not finite.
        """
        width = self.atoms.shape[1]
        if directions.ndim != 2 or directions.shape[1] != width:
            raise SaeflowError(
                f"directions of shape {tuple(directions.shape)} cannot be sums of atoms that are "
                f"{width} wide"
            )
        own = directions.to(self.atoms.device, torch.float64)
        norms = own.norm(dim=1)
        wrong = (~torch.isfinite(norms) | (norms == 0)).nonzero()
        if len(wrong):
            raise SaeflowError(
                f"direction {int(wrong[0])} is zero or not finite; there is nothing to decompose"
            )
        return own


def prefix_sums(
    directions: Float[Tensor, "n d_model"],
    dictionary: Dictionary,
    atoms: Int[Tensor, "n k"],
    weights: Float[Tensor, "n k"],
) -> Decomposition:
    """Decompositions whose atoms and weights are given: row ``k - 1`` has the first k.

    Args:
        directions: any norm but zero.
        atoms: in their order; `NOTHING` for none.
        weights: as the dictionary has the atoms.
    """
    own = dictionary.checked(directions)
    atoms = atoms.to(own.device)
    weights = torch.where(atoms >= 0, weights.to(own), 0)
    parts = dictionary.atoms[atoms.clamp_min(0)].double() * weights.unsqueeze(-1)
    return with_errors(own, *nested(atoms, weights), parts.cumsum(1))


def nested(
    atoms: Int[Tensor, "n k"], weights: Float[Tensor, "n *k k"]
) -> tuple[Int[Tensor, "n k k"], Float[Tensor, "n k k"]]:
    """Atoms in the order of their choice and weights, as the rows of `Decomposition` hold them.

    Args:
        weights: of the atoms in every row, or one for all rows.
    """
    k = atoms.shape[1]
    within = torch.ones(k, k, dtype=torch.bool, device=atoms.device).tril()
    rows = torch.where(within, atoms.unsqueeze(1), NOTHING)
    return rows, torch.where(within, weights if weights.ndim == 3 else weights.unsqueeze(1), 0)


def with_errors(
    directions: Float[Tensor, "n d_model"],
    atoms: Int[Tensor, "n k k"],
    weights: Float[Tensor, "n k k"],
    sums: Float[Tensor, "n k d_model"],
) -> Decomposition:
    """A decomposition with the error and cosine of its sums."""
    squares = directions.square().sum(-1, keepdim=True)
    error = (directions.unsqueeze(1) - sums).square().sum(-1) / squares
    lengths = sums.norm(dim=-1)
    projections = torch.einsum("nd,nkd->nk", directions, sums)
    cosine = torch.where(lengths > 0, projections / (lengths * squares.sqrt()), 0)
    return Decomposition(atoms, weights, error, cosine)


def batches(n: int) -> list[slice]:
    """Directions that are decomposed side by side."""
    return [slice(start, start + SIDE_BY_SIDE) for start in range(0, n, SIDE_BY_SIDE)]


def joined(parts: Sequence[Decomposition]) -> Decomposition:
    """Decompositions of several batches of directions, one after another."""
    return Decomposition(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
