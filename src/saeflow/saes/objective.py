"""The loss of one batch, by sparse or by dense products; both give the same value and the same
gradients."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saeflow.config.sections import SAETraining
from saeflow.config.sections.saes import COMPETITIVE
from saeflow.saes.architectures import ARCHITECTURES, Fit, Own, Step
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.parallel import ALONE, Share
from saeflow.saes.sparse import Entries, decoded, encoded, scan, scan_dense

SPARSE_BELOW = (
    0.1  # share of selected entries below which sparse products were faster, at d_model 96 and 512
)


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
        price: of a unit of each of these latents.
    """

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]
    penalty: Float[Tensor, ""]
    excess: Float[Tensor, "rows d_out"]
    latents: Float[Tensor, " entries"] | Float[Tensor, "rows d_sae"]
    columns: Int64[Tensor, " entries"] | None
    price: Float[Tensor, " entries"] | Float[Tensor, " d_sae"] | Float[Tensor, ""]

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
        """The least that a latent above zero is worth, value times price; infinite where none
        is."""
        worth = torch.where(self.latents > 0, self.latents * self.price, torch.inf)
        return worth.min() if worth.numel() else worth.new_tensor(torch.inf)

    def fired(self) -> Int64[Tensor, " n_fired"]:
        """Latents that are above zero on some row; one may be named more than once."""
        if self.columns is None:
            return self.latents.any(dim=0).nonzero()[:, 0]
        return self.columns[self.latents > 0]


class _Sparse(NamedTuple):
    """Pre-activations of the selected entries."""

    entries: Entries
    pre: Float[Tensor, " entries"]

    def decode(self, latents: Tensor, decoder: Tensor, part: slice) -> Tensor:
        if part == slice(None):
            return decoded(latents, self.entries, decoder)
        mask = (self.entries.columns >= part.start) & (self.entries.columns < part.stop)
        return decoded(latents[mask], self.entries.keep(mask), decoder)


class _Dense(NamedTuple):
    """All pre-activations, and which of them may be active."""

    pre: Float[Tensor, "rows d_sae"]

    def decode(self, latents: Tensor, decoder: Tensor, part: slice) -> Tensor:
        return (latents[:, part] @ decoder[part]).float()


def outcome(
    x: Float[Tensor, "rows d_in"],
    target: Float[Tensor, "rows d_out"],
    weights: Dictionary,
    settings: SAETraining,
    sparse: bool,
    share: Share = ALONE,
) -> Outcome:
    """Reconstruct a batch and price it.

    Args:
        x: what is read, normalised.
        target: what is rebuilt, normalised; ``x`` itself unless it is a transcoder.
        sparse: which products to use.
    """
    forward = _sparse if sparse else _dense
    return forward(x, target, weights, Step(weights.own(), settings, share))


def _sparse(x: Tensor, target: Tensor, weights: Dictionary, step: Step) -> Outcome:
    architecture = ARCHITECTURES[step.settings.architecture]
    dtype = getattr(torch, step.settings.compute_dtype)
    entries = architecture.select(
        partial(scan, x, weights.encoder, weights.b_enc, dtype=dtype), step
    )
    pre = encoded(x, weights.encoder, weights.b_enc, entries)
    local = step._replace(
        own=Own(*(value[entries.columns] if value.ndim else value for value in step.own))
    )
    latents = architecture.activation(pre, local)
    penalty = architecture.penalty(pre, local, len(x))
    fit = architecture.fit(
        _Sparse(entries, pre), latents, target, weights.decoder, weights.b_dec, local
    )
    return _outcome(fit, penalty, latents, entries.columns, local.own.price)


def _dense(x: Tensor, target: Tensor, weights: Dictionary, step: Step) -> Outcome:
    architecture, settings = ARCHITECTURES[step.settings.architecture], step.settings
    narrow = settings.compute_dtype == "bfloat16"
    with torch.autocast(x.device.type, torch.bfloat16) if narrow else nullcontext():
        pre = torch.addmm(weights.b_enc, x, weights.encoder.T).float()
        latents = architecture.activation(pre, step)
        if settings.architecture in COMPETITIVE:
            entries = architecture.select(partial(scan_dense, pre), step)
            latents = latents * torch.zeros_like(pre).index_put_(
                (entries.rows, entries.columns), pre.new_ones(())
            )
        penalty = architecture.penalty(pre, step, len(x))
        fit = architecture.fit(_Dense(pre), latents, target, weights.decoder, weights.b_dec, step)
    return _outcome(fit, penalty, latents, None, step.own.price)


def _outcome(
    fit: Fit, penalty: Tensor, latents: Tensor, columns: Tensor | None, price: Tensor
) -> Outcome:
    loss = fit.loss + penalty
    return Outcome(
        loss,
        fit.error.detach(),
        penalty.detach(),
        fit.excess,
        latents.detach(),
        columns,
        price.detach(),
    )
