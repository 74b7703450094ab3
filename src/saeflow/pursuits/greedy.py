"""Greedy pursuits: each step chooses the atom that what remains of the direction is closest to.

They differ in what becomes of the weights. Matching pursuit (Mallat and Zhang 1993) gives the new
atom its projection and leaves the others as they are. Gradient pursuit (Blumensath and Davies 2008,
the pursuit of "inference-time optimisation" of SAEs) moves all weights along the gradient, as far
as the error falls. Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) makes them
those of least squares.

Directions are decomposed side by side: a step is one product of the dictionary with what remains
of all. Two atoms that are equally close within rounding are told apart by their index: the first
is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.pursuits.dictionary import (
    NOTHING,
    Decomposition,
    Dictionary,
    batches,
    joined,
    nested,
    with_errors,
)


def matching(
    directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
) -> Decomposition:
    """Matching pursuit, signed. An atom chosen again adds to its weight, so that k steps may have
    fewer than k atoms."""
    return _in_batches(directions, dictionary, k, _Matching)


def gradient(
    directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
) -> Decomposition:
    """Gradient pursuit with weights of both signs."""
    return _in_batches(directions, dictionary, k, _Gradient)


def gradient_positive(
    directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
) -> Decomposition:
    """Gradient pursuit with weights that are not negative, as latents of an SAE are.

    A step that clips weights at zero may raise the error; such a step ends where the first weight
    is zero instead, which cannot.
    """
    return _in_batches(directions, dictionary, k, _PositiveGradient)


def orthogonal(
    directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
) -> Decomposition:
    """Orthogonal matching pursuit: weights of least squares after every choice."""
    return _in_batches(directions, dictionary, k, _Orthogonal)


def refit(
    directions: Float[Tensor, "n d_model"], dictionary: Dictionary, atoms: Int[Tensor, "n k"]
) -> Decomposition:
    """Weights of least squares for atoms that are given, for the first 1, 2, …, k of them.

    Args:
        atoms: in their order; `NOTHING` for none. One that those before it span, such as a
            repetition, gets no weight.
    """
    own, atoms = dictionary.checked(directions), atoms.to(dictionary.atoms.device)
    parts = []
    for rows in batches(len(own)):
        fit = _Orthogonal(own[rows], dictionary, atoms.shape[1])
        for step in range(atoms.shape[1]):
            fit.take(step, atoms[rows, step])
        parts.append(fit.decomposition())
    return joined(parts)


class _Fit(Protocol):
    """What a pursuit makes of the atoms that it is given one by one."""

    remaining: Float[Tensor, "n d_model"]
    positive: bool

    def __init__(
        self, directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
    ) -> None: ...

    def take(self, step: int, chosen: Int[Tensor, " n"]) -> None: ...

    def passed_over(self, step: int) -> Int[Tensor, "n taken"]: ...

    def decomposition(self) -> Decomposition: ...


def _in_batches(
    directions: Float[Tensor, "n d_model"],
    dictionary: Dictionary,
    k: int,
    method: Callable[[Tensor, Dictionary, int], _Fit],
) -> Decomposition:
    own = dictionary.checked(directions)
    lengths = own.norm(dim=1, keepdim=True)
    parts = []
    for rows in batches(len(own)):
        fit = method(own[rows], dictionary, k)
        for step in range(k):
            fit.take(step, _closest(fit, dictionary, lengths[rows], step))
        parts.append(fit.decomposition())
    return joined(parts)


def _closest(
    fit: _Fit, dictionary: Dictionary, lengths: Float[Tensor, "n 1"], step: int
) -> Int[Tensor, " n"]:
    """The atom that is closest to what remains of each direction; `NOTHING` where nothing remains,
    or no atom comes closer to it."""
    remains = fit.remaining.norm(dim=1, keepdim=True)
    unit = torch.where(remains > 0, fit.remaining / remains, 0)
    cosines = dictionary.cosines(unit)
    if not fit.positive:
        cosines = cosines.abs_()
    # What least squares has taken is at a right angle to what remains, but for rounding.
    cosines.scatter_(1, fit.passed_over(step), 0)
    largest = cosines.amax(1, keepdim=True)
    first = (cosines >= largest - dictionary.tolerance).view(torch.uint8).argmax(1)
    ended = (remains <= dictionary.tolerance * lengths) | (largest <= dictionary.tolerance)
    return torch.where(ended.squeeze(1), NOTHING, first)


class _Weighted:
    """Weights of atoms of norm 1, a row of them kept after every step."""

    positive = False

    def __init__(
        self, directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
    ) -> None:
        n, d_model = directions.shape
        self.directions, self.dictionary = directions, dictionary
        self.remaining = directions.clone()
        self.atoms = torch.full((n, k), NOTHING, device=directions.device)
        self.units = directions.new_zeros(n, k, d_model)
        self.weights = directions.new_zeros(n, k)
        self.rows = directions.new_zeros(n, k, k)
        self.sums = directions.new_zeros(n, k, d_model)

    def passed_over(self, step: int) -> Int[Tensor, "n taken"]:
        """Atoms that cannot be chosen: all can."""
        return self.atoms[:, :0]

    def place(self, step: int, chosen: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Give atoms the places of this step; those that were chosen before keep theirs."""
        again = (self.atoms[:, :step] == chosen.unsqueeze(1)) & (chosen >= 0).unsqueeze(1)
        new = torch.where(again.any(1), NOTHING, chosen)
        self.atoms[:, step], self.units[:, step] = new, self.dictionary.units(new)
        before = again.byte().argmax(1) if step else torch.zeros_like(chosen)
        return torch.where(again.any(1), before, step)

    def keep(self, step: int) -> None:
        """Keep weights and sums of a step."""
        self.rows[:, step] = self.weights
        self.sums[:, step] = torch.einsum("nk,nkd->nd", self.weights, self.units)
        self.remaining = self.directions - self.sums[:, step]

    def decomposition(self) -> Decomposition:
        weights = self.rows * self.dictionary.scales(self.atoms).unsqueeze(1)
        return with_errors(self.directions, *nested(self.atoms, weights), self.sums)


class _Matching(_Weighted):
    def take(self, step: int, chosen: Int[Tensor, " n"]) -> None:
        places = self.place(step, chosen).unsqueeze(1)
        units = self.dictionary.units(chosen)
        gained = torch.einsum("nd,nd->n", units, self.remaining).unsqueeze(1)
        self.weights.scatter_add_(1, places, gained)
        self.keep(step)


class _Gradient(_Weighted):
    def take(self, step: int, chosen: Int[Tensor, " n"]) -> None:
        self.place(step, chosen)
        slope = torch.einsum("nkd,nd->nk", self.units, self.remaining)
        along = torch.einsum("nk,nkd->nd", slope, self.units)
        squares = along.square().sum(1)
        # A step of this length is the lowest point along the gradient.
        length = torch.where(
            squares > 0, torch.einsum("nd,nd->n", self.remaining, along) / squares, 0
        )
        self.weights = self.moved(slope, length.unsqueeze(1))
        self.keep(step)

    def moved(self, slope: Float[Tensor, "n k"], length: Float[Tensor, "n 1"]) -> Tensor:
        """The weights after a step."""
        return self.weights + length * slope


class _PositiveGradient(_Gradient):
    positive = True

    def moved(self, slope: Float[Tensor, "n k"], length: Float[Tensor, "n 1"]) -> Tensor:
        clipped = (self.weights + length * slope).clamp_min(0)
        worse = self._distance(clipped) > self._distance(self.weights)
        if not worse.any():
            return clipped
        # Weights that are zero stay so; the first of the others that reaches zero ends the step.
        free = torch.where((self.weights == 0) & (slope < 0), 0, slope)
        room = torch.where(free < 0, self.weights / -free, torch.inf).amin(1, keepdim=True)
        along = torch.einsum("nk,nkd->nd", free, self.units)
        best = free.square().sum(1) / along.square().sum(1).clamp_min(1e-300)
        ended = (self.weights + torch.minimum(room, best.unsqueeze(1)) * free).clamp_min(0)
        return torch.where(worse.unsqueeze(1), ended, clipped)

    def _distance(self, weights: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        sums = torch.einsum("nk,nkd->nd", weights, self.units)
        return (self.directions - sums).square().sum(1)


class _Orthogonal:
    """Least squares by a triangular factor that grows by a column a step: ``units.T = basis.T @
    factor``, with an orthonormal basis of what the atoms span."""

    positive = False

    def __init__(
        self, directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
    ) -> None:
        n, d_model = directions.shape
        self.directions, self.dictionary = directions, dictionary
        self.remaining = directions.clone()
        self.atoms = torch.full((n, k), NOTHING, device=directions.device)
        self.basis = directions.new_zeros(n, k, d_model)
        self.factor = torch.eye(k, dtype=torch.float64, device=directions.device).repeat(n, 1, 1)
        self.coordinates = directions.new_zeros(n, k)

    def passed_over(self, step: int) -> Int[Tensor, "n taken"]:
        """Atoms that were taken; the first again where nothing was."""
        taken = self.atoms[:, :step]
        return torch.where(taken >= 0, taken, taken[:, :1]).clamp_min(0)

    def take(self, step: int, chosen: Int[Tensor, " n"]) -> None:
        unit, basis = self.dictionary.units(chosen), self.basis[:, :step]
        apart, column = unit, unit.new_zeros(len(unit), step)
        for _ in range(2):  # twice is enough for right angles in floating point (Kahan)
            along = torch.einsum("nkd,nd->nk", basis, apart)
            apart = apart - torch.einsum("nk,nkd->nd", along, basis)
            column = column + along
        height = apart.norm(dim=1)
        independent = height > self.dictionary.tolerance
        self.atoms[:, step] = torch.where(independent, chosen, NOTHING)
        axis = torch.where(independent.unsqueeze(1), apart / height.unsqueeze(1), 0)
        self.basis[:, step] = axis
        self.factor[:, :step, step] = torch.where(independent.unsqueeze(1), column, 0)
        self.factor[:, step, step] = torch.where(independent, height, 1)
        self.coordinates[:, step] = torch.einsum("nd,nd->n", axis, self.remaining)
        self.remaining = self.remaining - self.coordinates[:, step, None] * axis

    def decomposition(self) -> Decomposition:
        # Row k - 1 solves factor @ weights = coordinates with the first k coordinates alone.
        first = self.coordinates.unsqueeze(1).expand_as(self.factor).tril()
        rows = torch.linalg.solve_triangular(self.factor, first.mT, upper=True).mT
        weights = rows * self.dictionary.scales(self.atoms).unsqueeze(1)
        sums = (self.coordinates.unsqueeze(-1) * self.basis).cumsum(1)
        return with_errors(self.directions, *nested(self.atoms, weights), sums)
