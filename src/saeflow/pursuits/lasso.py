"""The path of the lasso: all minimisers of ``|direction - weights @ units|² / 2 + λ |weights|₁``
from the largest λ that lets an atom in, by the homotopy of least angles (Osborne, Presnell and
Turlach 2000; Efron et al. 2004)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeflow.pursuits.dictionary import (
    NOTHING,
    Decomposition,
    Dictionary,
    batches,
    joined,
    with_errors,
)

IN_CACHE = 2048
MOST_EVENTS = 8
"""A path ends after so many events (an atom enters or leaves) per atom of its longest sum."""


def lasso(directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int) -> Decomposition:
    """Sums on the path of the lasso, signed; the penalty is on weights of atoms of norm 1.

    The sum of k atoms is the last on the path before a k + 1st comes in for the first time: the
    least shrunk of them. Atoms may leave the path again, so that sums need not be nested.
    """
    own = dictionary.checked(directions)
    return joined([_Paths(own[rows], dictionary, k).followed() for rows in batches(len(own))])


class _Event(NamedTuple):
    """What comes next on each path as λ falls."""

    fall: Float[Tensor, " n"]
    """By how much λ falls until then."""
    entering: Int[Tensor, " n"]
    """The atom that enters, `NOTHING` for none."""
    leaving: Int[Tensor, " n"]
    """The place of the atom that leaves, `NOTHING` for none."""


class _Paths:
    """Paths of directions side by side. Directions have norm 1 here, so that λ is a cosine."""

    def __init__(
        self, directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
    ) -> None:
        n, d_model = directions.shape
        self.directions, self.dictionary, self.k = directions, dictionary, k
        self.lengths = directions.norm(dim=1, keepdim=True)
        self.unit = directions / self.lengths
        self.correlations = dictionary.cosines(self.unit)
        self.penalty = self.correlations.abs().amax(1).double()
        self.atoms = torch.full((n, k), NOTHING, device=directions.device)
        self.signs = directions.new_zeros(n, k)
        self.units = directions.new_zeros(n, k, d_model)
        self.weights = directions.new_zeros(n, k)
        self.left = torch.full((n,), NOTHING, device=directions.device)
        self.running = self.penalty > dictionary.tolerance
        self.longest = torch.zeros(n, dtype=torch.int64, device=directions.device)
        self.kept_atoms = torch.full((n, k, k), NOTHING, device=directions.device)
        self.kept_weights = directions.new_zeros(n, k, k)

    def followed(self) -> Decomposition:
        """The sums of each path."""
        first = self.correlations.abs() >= (self.penalty - self.dictionary.tolerance).unsqueeze(1)
        self._enter(torch.where(self.running, first.view(torch.uint8).argmax(1), NOTHING))
        for _ in range(MOST_EVENTS * self.k):
            if not self.running.any():
                break
            self._pass(*self._slopes())
        self._keep(torch.ones_like(self.running), everything_longer=True)
        scales = self.dictionary.scales(self.kept_atoms) * self.lengths.unsqueeze(-1)
        weights = self.kept_weights * scales
        rows = self.dictionary.atoms
        sums = torch.stack(
            [
                torch.einsum("kj,kjd->kd", own, rows[chosen.clamp_min(0)].double())
                for own, chosen in zip(weights, self.kept_atoms, strict=True)
            ]
        )
        return with_errors(self.directions, self.kept_atoms, weights, sums)

    def _active(self) -> Bool[Tensor, "n k"]:
        return self.atoms >= 0

    def _solved(self, right: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Gram matrix of the active atoms, solved."""
        gram = self.units @ self.units.mT
        gram.diagonal(dim1=1, dim2=2).copy_(
            torch.where(self._active(), gram.diagonal(dim1=1, dim2=2), 1)
        )
        return torch.linalg.solve(gram, right)

    def _slopes(self) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n n_atoms"]]:
        """How weights grow and correlations fall as λ falls by 1."""
        slope = self._solved(self.signs)
        along = torch.einsum("nk,nkd->nd", slope, self.units)
        length = along.norm(dim=1, keepdim=True).clamp_min(1e-300)
        return slope, self.dictionary.cosines(along / length).mul_(length)

    def _pass(self, slope: Float[Tensor, "n k"], change: Float[Tensor, "n n_atoms"]) -> None:
        """Go to the next event of each path, and through it."""
        event = self._next(slope, change)
        fall = torch.where(self.running, event.fall, 0)
        self.penalty = self.penalty - fall
        self.correlations -= fall.to(change).unsqueeze(1) * change
        # Not the sum of many steps but what the active atoms and λ determine: exact at any length.
        onto = torch.einsum("nkd,nd->nk", self.units, self.unit)
        self.weights = self._solved(
            (onto - self.penalty.unsqueeze(1) * self.signs) * self._active()
        )
        ended = self.penalty <= self.dictionary.tolerance
        entering = torch.where(self.running & ~ended, event.entering, NOTHING)
        leaving = torch.where(self.running & ~ended, event.leaving, NOTHING)
        size = self._active().sum(1)
        self._keep((entering >= 0) & (size == self.longest + 1))
        full = (entering >= 0) & (size == self.k)
        self.running &= ~(ended | full)
        self.left = torch.where(
            leaving >= 0,
            self.atoms.gather(1, leaving.clamp_min(0).unsqueeze(1)).squeeze(1),
            NOTHING,
        )
        self._leave(leaving)
        self._enter(torch.where(full, NOTHING, entering))

    def _next(self, slope: Float[Tensor, "n k"], change: Float[Tensor, "n n_atoms"]) -> _Event:
        enters = self._falls(change)
        barred = torch.cat([self.atoms, self.left.unsqueeze(1)], 1)
        barred = torch.where(barred >= 0, barred, self.atoms[:, :1]).clamp_min(0)
        enters.scatter_(1, barred, torch.inf)
        soonest = enters.amin(1)
        soon = enters <= (soonest + self.dictionary.tolerance).unsqueeze(1)
        entering = soon.view(torch.uint8).argmax(1)
        leaves = torch.where(self.weights * slope < 0, -self.weights / slope, torch.inf)
        first, leaving = leaves.min(1)
        fall = torch.minimum(torch.minimum(soonest.double(), first), self.penalty)
        return _Event(
            fall,
            torch.where((soonest <= first) & (soonest < self.penalty), entering, NOTHING),
            torch.where((first < soonest) & (first < self.penalty), leaving, NOTHING),
        )

    def _falls(self, change: Float[Tensor, "n n_atoms"]) -> Float[Tensor, "n n_atoms"]:
        """By how much λ falls until each atom correlates as much as active ones do."""
        penalty, least = self.penalty.to(change).unsqueeze(1), 100 * self.dictionary.tolerance
        falls = torch.full_like(change, torch.inf)
        # Piece by piece, so that what is between stays in the processor's cache.
        for start in range(0, change.shape[1], IN_CACHE):
            piece = slice(start, start + IN_CACHE)
            for sign in (1, -1):
                closing = 1 - sign * change[:, piece]
                gap = (penalty - sign * self.correlations[:, piece]).clamp_min_(0)
                # An atom that moves as active ones do, such as a twin of one, never catches up.
                gap.div_(closing).masked_fill_(closing <= least, torch.inf)
                torch.minimum(falls[:, piece], gap, out=falls[:, piece])
        return falls

    def _enter(self, entering: Int[Tensor, " n"]) -> None:
        """Give entering atoms the first empty place."""
        rows = (entering >= 0).nonzero().squeeze(1)
        if not len(rows):
            return
        places = (self.atoms[rows] == NOTHING).byte().argmax(1)
        chosen = entering[rows]
        self.atoms[rows, places] = chosen
        self.units[rows, places] = self.dictionary.units(chosen)
        self.signs[rows, places] = self.correlations[rows, chosen].sign().double()

    def _leave(self, leaving: Int[Tensor, " n"]) -> None:
        rows = (leaving >= 0).nonzero().squeeze(1)
        places = leaving[rows]
        self.atoms[rows, places] = NOTHING
        self.units[rows, places] = 0
        self.signs[rows, places] = 0
        self.weights[rows, places] = 0

    def _keep(self, which: Bool[Tensor, " n"], everything_longer: bool = False) -> None:
        """Keep the sums of paths that are about to grow beyond their longest."""
        for path in which.nonzero().squeeze(1).tolist():
            size = int(self.longest[path])
            until = self.k if everything_longer else size + 1
            self.kept_atoms[path, size:until] = self.atoms[path]
            self.kept_weights[path, size:until] = self.weights[path]
            self.longest[path] = until
