"""The unembedding as a direction of the residual stream meets it: the final norm folded in,
centred, normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.models.language_model import LanguageModel

Unembedding = Float[Tensor, "d_vocab d_model"]


class FinalNorm(NamedTuple):
    """The norm between the last layer and the unembedding."""

    path: str
    """Of its module."""
    offset: float = 0.0
    """What is added to its weight before it multiplies."""
    centres: bool = False
    """Whether it takes the mean over dimensions away first (LayerNorm)."""


FINAL_NORMS = {
    "llama": FinalNorm("model.norm"),
    "mistral": FinalNorm("model.norm"),
    "qwen2": FinalNorm("model.norm"),
    "qwen3": FinalNorm("model.norm"),
    "gemma": FinalNorm("model.norm", offset=1.0),
    "gemma2": FinalNorm("model.norm", offset=1.0),
    "gemma3_text": FinalNorm("model.norm", offset=1.0),
    "gpt2": FinalNorm("transformer.ln_f", centres=True),
    "gpt_neox": FinalNorm("gpt_neox.final_layer_norm", centres=True),
}


def _final_norm(lm: LanguageModel, rows: Unembedding) -> Unembedding:
    """What a direction adds to the logits once the residual stream's length is given: the norm's
    weights folded in."""
    norm = FINAL_NORMS[lm.model.config.model_type]
    weight = lm.model.get_submodule(norm.path).weight
    folded = rows * (weight.detach().float() + norm.offset)
    return folded - folded.mean(dim=1, keepdim=True) if norm.centres else folded


def _centred(lm: LanguageModel, rows: Unembedding) -> Unembedding:
    """Without the mean over tokens, which changes no probability."""
    return rows - rows.mean(dim=0)


def _cosine(lm: LanguageModel, rows: Unembedding) -> Unembedding:
    """Every token's row of length 1, so that rare tokens with long rows do not come first."""
    return normalize(rows, dim=1)


STEPS: dict[str, Callable[[LanguageModel, Unembedding], Unembedding]] = {
    "final_norm": _final_norm,
    "centred": _centred,
    "cosine": _cosine,
}


@torch.no_grad()
def unembedding(lm: LanguageModel, ids: Sequence[int], steps: Sequence[str]) -> Unembedding:
    """The rows of the unembedding that belong to some tokens.

    Args:
        lm: the model.
        ids: the tokens; the others count in no mean.
        steps: of `STEPS`, done in this order.

    Returns:
        float32, a row per token, on the model's device.
    """
    rows = (
        lm.model.get_output_embeddings()
        .weight.detach()[torch.as_tensor(ids, device=lm.device)]
        .float()
    )
    for step in steps:
        rows = STEPS[step](lm, rows)
    return rows.contiguous()
