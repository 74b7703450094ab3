"""Weights in the middle of a training, and what one batch gives, by either way."""

from __future__ import annotations

import torch
from torch import Tensor

from saeflow.config.sections import SAETraining
from saeflow.saes.architectures import architecture_of
from saeflow.saes.dictionary import Dictionary, DictionaryShape
from saeflow.saes.objective import Outcome


def initial_weights(
    settings: SAETraining, d_in: int, generator: torch.Generator, n_sources: int = 1
) -> Dictionary:
    """Weights before the first step, ready for gradients."""
    shape = DictionaryShape(settings.d_sae, d_in, n_sources=n_sources)
    return architecture_of(settings).initial_weights(shape, generator).to("cpu")


def outcome(x: Tensor, weights: Dictionary, settings: SAETraining, sparse: bool) -> Outcome:
    """What a batch that rebuilds itself gives, by sparse or by dense products."""
    architecture = architecture_of(settings)
    way = architecture.by_sparse_products if sparse else architecture.by_dense_products
    return way(x, x, weights)
