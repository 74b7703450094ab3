"""The loss of one batch, by sparse or by dense products; both give the same value and the same gradients."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saeflow.config.sections import SAETraining
from saeflow.saes.architectures import ARCHITECTURES
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.sparse import decoded, encoded, scan, scan_dense

SPARSE_BELOW = 0.1  # share of selected entries below which sparse products were faster, at d_model 96 and 512


class Outcome(NamedTuple):
    """What one batch gives.

    Attributes:
        error: mean squared error as a share of the activations' variance (mean over rows of |x - x̂|² / d_model).
        penalty: sparsity term, per row.
        residual: x - x̂, without gradient.
        latents: of the selected entries after sparse products, of all after dense ones; without gradient.
        columns: the latent of each selected entry; None after dense products.
    """

    error: Float[Tensor, ""]
    penalty: Float[Tensor, ""]
    residual: Float[Tensor, "rows d_model"]
    latents: Float[Tensor, " entries"] | Float[Tensor, "rows d_sae"]
    columns: Int64[Tensor, " entries"] | None

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
        """The smallest latent above zero; infinite where none is."""
        return torch.where(self.latents > 0, self.latents, torch.inf).min()

    def fired(self) -> Int64[Tensor, " n_fired"]:
        """Latents that are above zero on some row; one may be named more than once."""
        if self.columns is None:
            return self.latents.any(dim=0).nonzero()[:, 0]
        return self.columns[self.latents > 0]


def outcome(x: Float[Tensor, "rows d_model"], weights: Dictionary, settings: SAETraining, sparse: bool) -> Outcome:
    """Reconstruct a batch and price it.

    Args:
        x: normalised activations.
        sparse: which products to use.
    """
    forward = _sparse if sparse else _dense
    reconstruction, penalty, latents, columns = forward(x, weights, settings)
    difference = x - reconstruction - weights.b_dec
    return Outcome(
        error=difference.square().sum() / difference.numel(),
        penalty=penalty / len(x),
        residual=difference.detach(),
        latents=latents.detach(),
        columns=columns,
    )


def _sparse(x: Tensor, weights: Dictionary, settings: SAETraining) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    architecture = ARCHITECTURES[settings.architecture]
    find = partial(scan, x, weights.encoder, weights.b_enc)
    entries = architecture.select(find, weights.threshold, settings, len(x))
    pre = encoded(x, weights.encoder, weights.b_enc, entries)
    threshold = weights.threshold[entries.columns] if weights.threshold.ndim else weights.threshold
    latents = architecture.activation(pre, threshold, settings)
    penalty = architecture.penalty(pre, threshold, settings)
    return decoded(latents, entries, weights.decoder), penalty, latents, entries.columns


def _dense(x: Tensor, weights: Dictionary, settings: SAETraining) -> tuple[Tensor, Tensor, Tensor, None]:
    architecture = ARCHITECTURES[settings.architecture]
    pre = torch.addmm(weights.b_enc, x, weights.encoder.T)
    latents = architecture.activation(pre, weights.threshold, settings)
    if architecture.competitive:
        entries = architecture.select(partial(scan_dense, pre), weights.threshold, settings, len(x))
        latents = latents * torch.zeros_like(pre).index_put_((entries.rows, entries.columns), pre.new_ones(()))
    penalty = architecture.penalty(pre, weights.threshold, settings)
    return latents @ weights.decoder, penalty, latents, None
