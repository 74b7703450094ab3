"""The loss of one batch, by sparse or by dense products; both give the same value and the same gradients."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.config.sections import SAETraining
from saeflow.saes.architectures import ARCHITECTURES
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.sparse import Entries, decoded, encoded, scan, scan_dense

SPARSE_BELOW = 0.15  # share of selected entries under which the sparse products are the faster ones, as measured


class Outcome(NamedTuple):
    """What one batch gives.

    Attributes:
        error: mean squared error as a share of the activations' variance (mean over rows of |x - x̂|² / d_model).
        penalty: sparsity term, per row.
        residual: x - x̂, without gradient.
        entries: the selected pre-activations.
        active: for every entry, whether its latent is above zero.
    """

    error: Float[Tensor, ""]
    penalty: Float[Tensor, ""]
    residual: Float[Tensor, "rows d_model"]
    entries: Entries
    active: Tensor


def outcome(x: Float[Tensor, "rows d_model"], weights: Dictionary, settings: SAETraining, sparse: bool) -> Outcome:
    """Reconstruct a batch and price it.

    Args:
        x: normalised activations.
        sparse: which products to use.
    """
    forward = _sparse if sparse else _dense
    architecture = ARCHITECTURES[settings.architecture]
    reconstruction, penalty, entries = forward(x, weights, settings)
    difference = x - reconstruction - weights.b_dec
    with torch.no_grad():
        threshold = _at(weights.threshold, entries)
        active = architecture.activation(entries.values, threshold, settings) > 0
    return Outcome(
        error=difference.square().sum() / difference.numel(),
        penalty=penalty / len(x),
        residual=difference.detach(),
        entries=entries,
        active=active,
    )


def _sparse(x: Tensor, weights: Dictionary, settings: SAETraining) -> tuple[Tensor, Tensor, Entries]:
    architecture = ARCHITECTURES[settings.architecture]
    find = partial(scan, x, weights.encoder, weights.b_enc)
    entries = architecture.select(find, weights.threshold, settings, len(x))
    pre = encoded(x, weights.encoder, weights.b_enc, entries)
    threshold = _at(weights.threshold, entries)
    latents = architecture.activation(pre, threshold, settings)
    return decoded(latents, entries, weights.decoder), architecture.penalty(pre, threshold, settings), entries


def _dense(x: Tensor, weights: Dictionary, settings: SAETraining) -> tuple[Tensor, Tensor, Entries]:
    architecture = ARCHITECTURES[settings.architecture]
    pre = torch.addmm(weights.b_enc, x, weights.encoder.T)
    entries = architecture.select(partial(scan_dense, pre), weights.threshold, settings, len(x))
    selected = torch.zeros_like(pre).index_put_((entries.rows, entries.columns), pre.new_ones(()))
    latents = architecture.activation(pre, weights.threshold, settings) * selected
    return latents @ weights.decoder, architecture.penalty(pre, weights.threshold, settings), entries


def _at(threshold: Tensor, entries: Entries) -> Tensor:
    """The threshold of every entry's latent."""
    return threshold[entries.columns] if threshold.ndim else threshold
