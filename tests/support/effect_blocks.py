"""Blocks of effects that tell their vector, and whether two are equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from saeflow.analyses.effects.measure import EffectBlock


def block_of(ids: Sequence[int]) -> EffectBlock:
    """Effects that tell their vector."""
    n, number = len(ids), np.array(ids)
    return EffectBlock(
        torch.full((n, 3), 1.0) * torch.from_numpy(number)[:, None],
        torch.from_numpy(number).float()[:, None].expand(n, 5) + torch.arange(5) / 10,
        (torch.from_numpy(number)[:, None] / 8 + torch.arange(5)).half(),
        number * 2.0,
        (number % 4).astype(np.uint8),
        number.astype(np.int64),
        number + 0.25,
        np.full(n, 12, dtype=np.int64),
    )


def same(first: EffectBlock, other: EffectBlock) -> bool:
    return all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(first, other, strict=True)
    )
