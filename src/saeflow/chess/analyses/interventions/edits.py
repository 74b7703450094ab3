"""Edits of a few latents, or along one direction, each row its own, that leave alone all else.

Of latents, what flows on is ``x + decode(z') - decode(z)``: the SAE's error stays, and so do the
tokens' differences from what the SAE reads. Since decoding is linear, only the rows of the latents
that change are needed; where none changes, what flows on is ``x`` to the last bit. Along a
direction, every token of a row moves equally far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saeflow.chess.saes.site import Activations, SiteSAE

NO_LATENT = -1
Change = Callable[
    [Float[Tensor, "n read k"], Float[Tensor, "n 1 k"], float], Float[Tensor, "n read k"]
]


def multiply(z: Float[Tensor, "n read k"], unit: Float[Tensor, "n 1 k"], strength: float) -> Tensor:
    """A latent that is 0 stays 0."""
    return z * strength


def add(z: Float[Tensor, "n read k"], unit: Float[Tensor, "n 1 k"], strength: float) -> Tensor:
    """Raise a latent by so many units, whether it fires or not; never below 0, where no latent can
    be."""
    return (z + strength * unit).clamp_min(0)


def clamp(z: Float[Tensor, "n read k"], unit: Float[Tensor, "n 1 k"], strength: float) -> Tensor:
    """Set a latent to so many units."""
    return (strength * unit).expand_as(z)


MODES: dict[str, Change] = {"multiply": multiply, "add": add, "clamp": clamp}


@dataclass(frozen=True, eq=False)
class Edited:
    """One edit of some rows.

    Attributes:
        sae: of the site.
        latents: which latents change in each row; `NO_LATENT` fills up rows with fewer.
        units: a latent's mean where it fires.
        mode: in `MODES`.
        strength: of the change.
    """

    sae: SiteSAE
    latents: Int64[Tensor, "n k"]
    units: Float[Tensor, " d_sae"]
    mode: str
    strength: float

    def __call__(self, x: Activations) -> Activations:
        chosen = self.latents.clamp_min(0)[:, None]
        z = self.sae.encode(x).gather(2, chosen.expand(-1, self.sae.seen(x).shape[1], -1))
        changed = MODES[self.mode](z, self.units[chosen].to(z), self.strength)
        difference = torch.where(self.latents[:, None] == NO_LATENT, 0, changed - z)
        return x + torch.einsum("nrk,nkd->nrd", difference, self.sae.sae.W_dec[chosen[:, 0]]).to(
            x.dtype
        )

    def moved(self, x: Activations) -> Float[Tensor, " n"]:
        """How far each row is moved, relative to the norm of what the SAE reads of it."""
        seen = self.sae.seen(x).mean(dim=1)
        return (self(x) - x).mean(dim=1).norm(dim=1) / seen.norm(dim=1)


class Lines(NamedTuple):
    """A direction per row.

    Attributes:
        vectors: of length 1; a row of zeros is not moved.
        without: where along it the positions that lack the concept lie.
        apart: how much further those lie that have it.
    """

    vectors: Float[Tensor, "n d_model"]
    without: Float[Tensor, " n"]
    apart: Float[Tensor, " n"]

    def part(self, rows: slice) -> Lines:
        """Some rows."""
        return Lines(*(values[rows] for values in self))


ALONG = ("add", "clamp")
"""The modes that there are along a direction: ``add`` goes on from where a position is, ``clamp``
puts it at a place that is counted from where positions without the concept lie. To multiply takes a
zero, which a direction has not."""


@dataclass(frozen=True, eq=False)
class Shifted:
    """One edit of some rows along a direction each.

    Attributes:
        lines: the directions.
        mode: in `ALONG`.
        strength: how far, in units of what lies between positions with and without the concept.
    """

    lines: Lines
    mode: str
    strength: float

    def __call__(self, x: Activations) -> Activations:
        vectors, without, apart = (part.to(x) for part in self.lines)
        way = self.strength * apart
        if self.mode == "clamp":
            way = way - ((x.mean(dim=1) * vectors).sum(dim=1) - without)
        return x + (way[:, None] * vectors)[:, None]


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """The SAE's reconstruction in place of what it reads, as a control: what its error alone does.

    Attributes:
        sae: of the site.
    """

    sae: SiteSAE

    def __call__(self, x: Activations) -> Activations:
        seen = self.sae.seen(x)
        return x + (self.sae.sae.reconstruct(seen) - seen).to(x.dtype)
