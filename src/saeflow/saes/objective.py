"""What one batch gives: pre-activations, how well their latents reconstruct, and the loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saeflow.saes.dictionary import Dictionary
from saeflow.saes.sparse import Entries, decoded

_ALL = slice(None)


class PreActivations(NamedTuple):
    """The pre-activations of a batch.

    Attributes:
        values: of the selected entries, or of all latents.
        entries: where the selected ones lie; None where all are at hand.
    """

    values: Float[Tensor, " entries"] | Float[Tensor, "rows d_sae"]
    entries: Entries | None = None

    def decode(
        self, latents: Tensor, weights: Dictionary, part: slice = _ALL
    ) -> Float[Tensor, "rows d_out"]:
        """Sums of decoder rows, weighted by those latents that are in ``part``."""
        decoder, unsummed = weights.decoder, weights.unsummed.get("decoder")
        if self.entries is None:
            return (latents[:, part] @ decoder[part]).float()
        if part == _ALL:
            return decoded(latents, self.entries, decoder, unsummed)
        columns = self.entries.columns
        within = (columns >= part.start) & (columns < part.stop)
        return decoded(latents[within], self.entries.keep(within), decoder, unsummed)


class Fit(NamedTuple):
    """How well a batch is reconstructed.

    Attributes:
        loss: what is minimised, the penalty aside.
        error: of the whole reconstruction: mean squared error as a share of the variance.
        excess: reconstruction less target, without gradient.
    """

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]
    excess: Float[Tensor, "rows d_out"]


class Outcome(NamedTuple):
    """What one batch gives.

    Attributes:
        loss: what the weights follow.
        error: mean squared error as a share of the target's variance (mean over rows of |y - ŷ|² /
            d_out).
        penalty: sparsity term, per row.
        excess: ŷ - y, without gradient.
        latents: of the selected entries after sparse products, of all after dense ones; without
            gradient.
        columns: the latent of each selected entry; None after dense products.
        decoder_norm: of each of these latents' decoder rows, summed over sources.
    """

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]
    penalty: Float[Tensor, ""]
    excess: Float[Tensor, "rows d_out"]
    latents: Float[Tensor, " entries"] | Float[Tensor, "rows d_sae"]
    columns: Int64[Tensor, " entries"] | None
    decoder_norm: Float[Tensor, " entries"] | Float[Tensor, " d_sae"] | Float[Tensor, ""]

    @property
    def residual(self) -> Float[Tensor, "rows d_out"]:
        """y - ŷ, which the reconstruction leaves."""
        return -self.excess

    @property
    def active(self) -> int:
        """How many latents of all rows are above zero."""
        return int(self.latents.count_nonzero())

    @property
    def selected(self) -> int:
        """How many entries the sparse products would touch, about."""
        return self.active if self.columns is None else len(self.columns)

    @property
    def smallest(self) -> Float[Tensor, ""]:
        """The least that a latent above zero is worth, value times decoder norm; infinite where
        none is."""
        worth = torch.where(self.latents > 0, self.latents * self.decoder_norm, torch.inf)
        return worth.min() if worth.numel() else worth.new_tensor(torch.inf)

    def fired(self) -> Int64[Tensor, " n_fired"]:
        """Latents that are above zero on some row; one may be named more than once."""
        if self.columns is None:
            return self.latents.any(dim=0).nonzero()[:, 0]
        return self.columns[self.latents > 0]


class _MeanSquare(torch.autograd.Function):
    """The mean of squares and its gradient, in one pass over the numbers each."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.linalg.vector_norm(values).square() / values.numel()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return values * (2 / values.numel() * gradient)


def mean_square(values: Tensor) -> Float[Tensor, ""]:
    """The mean of squares of all numbers."""
    return _MeanSquare.apply(values)  # type: ignore[no-untyped-call]
