"""Which positions of a text count: SAEs are trained on these rows, and measured on these alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from saeflow.config.sections import Activations
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture


def excluded_tokens(lm: LanguageModel, settings: Activations) -> set[int]:
    """The tokens whose positions are left out."""
    special = {lm.bos_id, *lm.tokenizer.all_special_ids}
    return {"nothing": set(), "bos": {lm.bos_id}, "special": special}[settings.exclude]


def kept_positions(
    tokens: Integer[np.ndarray, "items pos"],
    excluded: Collection[int],
    activations: Iterable[Float[Tensor, "items pos width"]],
    norm_above: float | None,
) -> Bool[np.ndarray, "items pos"]:
    """The positions that are not left out, neither for their token nor for their norm.

    Args:
        tokens: of the positions.
        excluded: tokens that are left out.
        activations: at every hook whose norms count.
        norm_above: a position is left out where any of its norms exceeds this multiple of the
            median of its item, over the positions that are not left out for their token. The median
            is the item's own, so that what is left out does not depend on shards or passes.
    """
    kept: Bool[np.ndarray, "items pos"] = ~np.isin(tokens, list(excluded))
    if not norm_above:
        return kept
    usual = np.ones_like(kept)
    for tensor in activations:
        norms = tensor.float().norm(dim=-1).cpu()
        among = norms.masked_fill(torch.from_numpy(~kept), torch.nan)
        usual &= (norms <= norm_above * among.nanmedian(dim=1, keepdim=True).values).numpy()
    return kept & usual


def capture_kept(
    lm: LanguageModel,
    tokens: Int[Tensor, "blocks pos"],
    hooks: Sequence[str],
    settings: Activations,
    cached: Sequence[str] = (),
) -> tuple[dict[str, Float[Tensor, "blocks pos width"]], Bool[Tensor, "blocks pos"]]:
    """Activations of blocks of text, and the positions whose rows a cache of the same hooks would
    hold.

    Args:
        lm: the model.
        tokens: on its device.
        hooks: where to read.
        settings: what is left out of the study's caches.
        cached: hooks of the study's caches of this model; their norms, and those at ``hooks``, tell
            what is left out.
    """
    wanted = dict.fromkeys([*hooks, *(cached if settings.exclude_norm_above else ())])
    read = capture(lm, tokens, list(wanted))
    excluded = excluded_tokens(lm, settings)
    kept = kept_positions(
        tokens.cpu().numpy(), excluded, read.values(), settings.exclude_norm_above
    )
    return {hook: read[hook] for hook in hooks}, torch.from_numpy(kept).to(lm.device)
