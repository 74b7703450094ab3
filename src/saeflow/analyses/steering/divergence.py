"""How far steering moves a model: the KL divergence of its next-token distribution from the
unsteered model's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.analyses.steering.summary_io import DIVERGENCE_SCHEMA
from saeflow.judging.losses import continuation_tokens
from saeflow.judging.scores import completions_in
from saeflow.models.hooks import parse_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import not_finite, position_chunks, run_prefix, suffix_states, unembed


@torch.no_grad()
def divergences(
    lm: LanguageModel,
    hook: str,
    vector: Float[Tensor, " d_model"],
    completions: pl.DataFrame,
    batch: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """KL(steered ‖ unsteered) on each completion's own tokens, the mean over those of its
    continuation.

    Where the model ended the text itself, the place at which it did is one of them.

    Args:
        lm: the unsteered model.
        hook: where the vector is added, at all positions; a ``hook_resid_post``.
        vector: unit norm.
        completions: columns completion_id, prompt, text, scale (absolute); as a rule prompt_ids,
            continuation_ids and ended, too: a text without them is tokenised.
        batch: completions per pass.
        progress: called with (done, total) after every pass.

    Returns:
        The columns of `DIVERGENCE_SCHEMA`; ``kl`` in nats per token, null where there is no
        continuation to measure.

    Raises:
        SaeflowError: a model's logits are not numbers.
    """
    layer = parse_hook(hook)[0]
    rows = [
        continuation_tokens(lm, row)
        for row in completions_in(completions.with_columns(pl.col("text").fill_null("")))
    ]
    ended = (
        completions["ended"].to_list() if "ended" in completions.columns else [False] * len(rows)
    )
    # equal lengths together: little padding
    order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]))
    scales, kl = completions["scale"].to_list(), [math.nan] * len(rows)
    for first in range(0, len(order), batch):
        chunk = order[first : first + batch]
        padded = _padded(lm, [rows[row][0] for row in chunk])
        resid = run_prefix(lm, padded, layer)
        addition = torch.tensor([scales[row] for row in chunk])[:, None] * vector.cpu().float()
        steered = resid + addition[:, None].to(resid)
        divergence = _divergence(
            lm, suffix_states(lm, steered, layer), suffix_states(lm, resid, layer)
        )
        for place, row in enumerate(chunk):
            tokens, start = rows[row]
            # at i the token i + 1 is drawn
            steps = divergence[place, start - 1 : len(tokens) - 1 + ended[row]]
            if len(steps):
                kl[row] = float(steps.mean())
                if not math.isfinite(kl[row]):
                    raise not_finite(lm, "divergence: a next-token distribution", scales[row])
        if progress:
            progress(first + len(chunk), len(order))
    return pl.DataFrame(
        {"completion_id": completions["completion_id"], "kl": kl}, schema=DIVERGENCE_SCHEMA
    ).fill_nan(None)


def _padded(lm: LanguageModel, rows: Sequence[list[int]]) -> Int[Tensor, "rows pos"]:
    """Padding stands on the right, where a causal model's earlier positions do not see it."""
    width = max(map(len, rows))
    return torch.tensor(
        [tokens + [lm.bos_id] * (width - len(tokens)) for tokens in rows], device=lm.device
    )


def _divergence(
    lm: LanguageModel,
    steered: Float[Tensor, "rows pos d_model"],
    unsteered: Float[Tensor, "rows pos d_model"],
) -> Float[Tensor, "rows pos"]:
    """From final states, a part of the logits at a time."""
    chunks = []
    for part in position_chunks(lm, unsteered.shape[:2].numel()):
        moved, usual = (
            unembed(lm, states.flatten(0, 1)[part]).float().log_softmax(-1)
            for states in (steered, unsteered)
        )
        chunks.append((moved.exp() * (moved - usual)).sum(-1).double().clamp_min(0).cpu())
    return torch.cat(chunks).view(unsteered.shape[:2])
