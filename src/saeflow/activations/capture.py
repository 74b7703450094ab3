"""One shard of the cache: a part of the corpus through the model, up to the hook and no further."""

from __future__ import annotations

import numpy as np
import torch

from saeflow.activations.store import ActivationShard, n_shards, torch_dtype
from saeflow.config.sections import Activations
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture


def capture_shard(
    lm: LanguageModel, blocks: TokenBlocks, shard: int, hook: str, settings: Activations, batch: int
) -> ActivationShard:
    """Activations of one shard's blocks of text.

    Args:
        lm: the model.
        blocks: all blocks of the split.
        shard: index of the shard.
        hook: where to read.
        settings: how many blocks a shard holds, in which dtype, and whether BOS is left out.
        batch: blocks per pass; does not change the result.

    Raises:
        SaeflowError: there is no such shard, or the dtype cannot hold the activations.
    """
    shards = n_shards(blocks.tokens.size, blocks.tokens.shape[1], settings.blocks_per_shard)
    if not 0 <= shard < shards:
        raise SaeflowError(
            f"activations: shard {shard} does not exist; the split fills {shards} shards (0..{shards - 1})"
        )
    first = shard * settings.blocks_per_shard
    tokens = blocks.tokens[first : first + settings.blocks_per_shard]
    skipped = int(settings.exclude_bos)
    dtype = torch_dtype(settings.dtype)
    parts = []
    for start in range(0, len(tokens), batch):
        ids = torch.from_numpy(tokens[start : start + batch]).long().to(lm.device)
        read = capture(lm, ids, [hook])[hook][:, skipped:]
        parts.append(read.flatten(0, 1).to(dtype).cpu())
    activations = torch.cat(parts)
    if not activations.isfinite().all():
        raise SaeflowError(
            f"activations: values at {hook} do not fit {settings.dtype}; set activations.dtype to bfloat16 or float32"
        )
    places = np.indices(tokens.shape, dtype=np.int32)[:, :, skipped:]
    return ActivationShard(
        activations, tokens[:, skipped:].ravel(), places[1].ravel(), places[0].ravel() + np.int32(first)
    )
