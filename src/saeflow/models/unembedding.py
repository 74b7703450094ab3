"""The unembedding as a direction of the residual stream meets it: the final norm folded in,
centred, normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel
from saeflow.models.norms import centres, gain

Unembedding = Float[Tensor, "d_vocab d_model"]


def final_norm(lm: LanguageModel) -> nn.Module:
    """The norm between the last layer and the unembedding.

    Raises:
        SaeflowError: the model has none.
    """
    try:
        return lm.model.get_submodule(lm.family.final_norm or "none")
    except AttributeError:
        raise SaeflowError(
            f"models: this {lm.model.config.model_type} model has no norm before its unembedding; "
            "leave final_norm out of logit_lens.projection.unembedding"
        ) from None


def _final_norm(lm: LanguageModel, rows: Unembedding) -> Unembedding:
    """What a direction adds to the logits once the residual stream's length is given: the norm's
    weights folded in."""
    norm = final_norm(lm)
    folded = rows * gain(norm, lm.d_model).to(rows.device)
    return folded - folded.mean(dim=1, keepdim=True) if centres(norm, lm.d_model) else folded


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
    if (scale := _logit_scale(lm)) != 1:
        rows = rows * scale
    for step in steps:
        rows = STEPS[step](lm, rows)
    return rows.contiguous()


def _logit_scale(lm: LanguageModel) -> float:
    """What a model multiplies its logits by (Cohere), or divides them by (Granite)."""
    config = lm.model.config
    times = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    return (times or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
