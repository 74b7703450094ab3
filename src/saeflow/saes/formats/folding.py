"""From the weights as a library keeps them to an `SAE` in the activations' own units; nothing
changes but the units.

Weights here are a dictionary with the names of `SAE`'s fields, changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.saes.sae import SAE

Weights = dict[str, Tensor]

# How far a norm may lie from 1 and still count as unit: rows that were normalised, then stored in
# bf16.
_UNIT = 2**-8
_IN_UNITS_OF_LATENTS = ("W_enc", "b_enc", "threshold", "b_gate", "b_mag")


def fold_input_bias(weights: Weights, bias: Tensor) -> None:
    """Move the subtraction of a bias from the input into ``b_enc``: ``(x - b) W_enc = x W_enc - b
    W_enc``."""
    weights["b_enc"] = weights["b_enc"] - bias.double() @ weights["W_enc"].double()


def fold_decoder_norms(weights: Weights) -> None:
    """Bring decoder rows to unit norm, and what is in the latents' units to the units that this
    leaves them."""
    norms = torch.linalg.vector_norm(weights["W_dec"], dim=1, dtype=torch.float64)
    norms = torch.where(norms > 0, norms, 1.0)
    weights["W_dec"] = (weights["W_dec"].double() / norms[:, None]).float()
    for name in weights.keys() & set(_IN_UNITS_OF_LATENTS):
        weights[name] = (weights[name] * norms).to(weights[name].dtype)


def fold_scales(weights: Weights, read: float, written: float) -> None:
    """Fold an input that was multiplied by `read` and an output by `written`; latents come to the
    input's units.

    With pre-activations ``s x W_enc + b_enc``: ``b_enc/s`` and ``threshold/s`` give latents divided
    by s, and a decoder times ``s/written`` writes the same.
    """
    for name in weights.keys() & {"b_enc", "b_gate", "b_mag", "threshold"}:
        weights[name] = weights[name] / read
    weights["W_dec"] = weights["W_dec"] * (read / written)
    weights["b_dec"] = weights["b_dec"] / written


def finished(
    architecture: str,
    weights: Weights,
    metadata: Mapping[str, Any],
    k: int | None = None,
    *,
    free_rows: bool = True,
    per_token: str | None = None,
) -> SAE:
    """The SAE of folded weights, in fp32.

    Args:
        architecture: of `SAE`.
        weights: ``W_enc``, ``W_dec``, ``b_dec``, ``b_enc``, and what the architecture has besides.
        metadata: of the SAE.
        k: of a ``topk`` SAE.
        free_rows: the norms of decoder rows may be folded. Not so where ``topk`` ranks latents by
            their values: other values would be other ranks, so those rows stay as they are.
        per_token: of `SAE`.

    Raises:
        SaeflowError: a transcoder that normalises each token's activation, which nobody publishes.
    """
    if free_rows and ((weights["W_dec"].norm(dim=1) - 1).abs() > _UNIT).any():
        fold_decoder_norms(weights)
    tensors: dict[str, Any] = {
        name: tensor.float().contiguous() for name, tensor in weights.items()
    }
    sae = SAE(
        architecture=architecture, k=k, per_token=per_token, metadata=dict(metadata), **tensors
    )
    if per_token and sae.is_transcoder:
        raise SaeflowError(
            f"sae: is a transcoder that normalises each token's activation ('{per_token}'), which "
            "is not known here; choose another"
        )
    return sae


def for_uncentred(sae: SAE) -> SAE:
    """An SAE of activations less their mean over the width, made to read activations as they are.

    TransformerLens centres what layers write that a layer norm reads, which that norm does not
    notice; SAEs were trained on that. With ``x - mean(x)`` in place of ``x``, ``x W_enc`` is x
    times W_enc less the mean of its rows, and so it is with ``W_skip``. What the SAE writes has no
    mean, as before, and is measured against what has none.
    """
    if sae.centred:
        return sae
    skip = sae.W_skip
    return replace(
        sae,
        W_enc=sae.W_enc - sae.W_enc.mean(0),
        W_skip=None if skip is None else skip - skip.mean(1, keepdim=True),
        metadata={**sae.metadata, "centred": True},
    )


def without_input_bias(sae: SAE) -> Tensor:
    """``b_enc`` for a library that subtracts ``b_dec`` from the input, so that its latents are the
    same."""
    return (sae.b_enc.double() + sae.b_dec.double() @ sae.W_enc.double()).float()
