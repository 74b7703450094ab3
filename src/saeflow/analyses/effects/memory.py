"""How many rollouts run side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saeflow.decoding.rollouts import BATCH_ROWS

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

SHARE = 0.7  # of the free memory of a GPU; the rest is for what is held only for a moment
FEWEST, MOST = 16, 8192


def rows_that_fit(lm: LanguageModel, length: int) -> int:
    """Rows of a decode batch for texts of a length: as many as a GPU's free memory holds, a power
    of two.

    On a CPU the number is fixed: more rows make products no faster there.
    """
    if lm.device.type != "cuda":
        return BATCH_ROWS
    free, _ = torch.cuda.mem_get_info(lm.device)
    return power_of_two_in(int(free * SHARE), bytes_per_row(lm, length))


def power_of_two_in(free: int, per_row: int) -> int:
    """The largest power of two of rows that fits, between `FEWEST` and `MOST`."""
    rows = max(1, free // per_row)
    return min(max(1 << (rows.bit_length() - 1), FEWEST), MOST)


def bytes_per_row(lm: LanguageModel, length: int) -> int:
    """Memory that one rollout holds: keys and values, residual stream read, logits and their
    float32 distribution."""
    config = lm.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or lm.d_model // config.num_attention_heads
    itemsize = lm.dtype.itemsize
    cache = 2 * lm.n_layers * heads * width * length * itemsize
    return cache + 2 * length * lm.d_model * itemsize + lm.d_vocab * (itemsize + 3 * 4)
