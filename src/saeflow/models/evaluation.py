"""How well a model predicts text."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from saeflow.models.language_model import LanguageModel
from saeflow.models.running import final_states, next_token_losses, not_finite

TOKENS_PER_PASS = 4096


def block_losses(
    lm: LanguageModel, tokens: Int[np.ndarray, "blocks pos"], batch: int | None = None
) -> NDArray[np.float64]:
    """The model's loss on every token of every block but the first, in nats.

    Args:
        lm: the model.
        tokens: ``[blocks, pos]``.
        batch: blocks per forward pass; without, as many as a few thousand tokens.

    Returns:
        ``[blocks, pos - 1]``.

    Raises:
        SaeflowError: a loss is not a number.
    """
    batch = batch or max(1, TOKENS_PER_PASS // tokens.shape[1])
    rows: list[Float[torch.Tensor, "batch pos"]] = []
    for start in range(0, len(tokens), batch):
        chunk = torch.as_tensor(tokens[start : start + batch], dtype=torch.long, device=lm.device)
        rows.append(next_token_losses(lm, final_states(lm, chunk), chunk).double().cpu())
    losses = torch.cat(rows).numpy()
    if not np.isfinite(losses).all():
        raise not_finite(lm, "models: the loss")
    return losses
