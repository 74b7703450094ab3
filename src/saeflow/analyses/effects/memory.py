"""How many rollouts run side by side, and what happens when they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch

from saeflow.decoding.rollouts import BATCH_ROWS
from saeflow.models.exhaustion import halved

if TYPE_CHECKING:
    from saeflow.analyses.effects.measure import Experiment
    from saeflow.models.language_model import LanguageModel

T = TypeVar("T")

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


def with_memory(experiment: Experiment, measure: Callable[[Experiment], T]) -> tuple[T, Experiment]:
    """Measure, with half the rows each time that memory runs out.

    Args:
        experiment: whose batches may be too large.
        measure: what to do with it; done anew after a failure.

    Returns:
        What was measured, and the experiment that did fit, to go on with.

    Raises:
        SaeflowError: not even the smallest batch fits.
    """
    complaint = (
        "effects: memory runs out with {size} rollouts side by side; lower new_tokens, take a "
        "narrower dtype, "
        "or free the device"
    )

    def with_rows(rows: int) -> T:
        return measure(replace(experiment, batch_rows=rows))

    measured, rows = halved(experiment.batch_rows, with_rows, FEWEST, complaint)
    return measured, replace(experiment, batch_rows=rows)
