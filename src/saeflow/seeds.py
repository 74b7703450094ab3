"""Random draws that depend on what they are for, never on when or where they are made.

Every draw of a study is named by ``(study seed, purpose, item)``. The name is hashed to a seed, so
a result does not change with the number of shards, the batch a row was in, or an interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64's increment: 2**64 / golden ratio, odd


def seed_for(study_seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one named draw.

    Args:
        study_seed: the study's ``seed``.
        purpose: what the draw is for, from coarse to fine: ``("sae", "main", "weights")``.
    """
    name = "\x1f".join(str(part) for part in (study_seed, *purpose))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(study_seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one named draw."""
    return np.random.Generator(np.random.PCG64(seed_for(study_seed, *purpose)))


def torch_generator(study_seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU torch generator for one named draw (move the numbers to the device, not the
    generator)."""
    import torch

    return torch.Generator().manual_seed(seed_for(study_seed, *purpose))


def row_keys(
    study_seed: int, purpose: str, items: Iterable[tuple[str | int, ...]]
) -> NDArray[np.uint64]:
    """One 64-bit key per row of a batch, shape ``[rows]``; equal items have equal keys."""
    return np.array([seed_for(study_seed, purpose, *item) for item in items], dtype=np.uint64)


def uniforms(keys: NDArray[np.uint64], steps: int, first: int = 0) -> NDArray[np.float64]:
    """Counter-based uniform numbers in [0, 1), shape ``[rows, steps]``: number ``i`` of a row is a
    hash of (key, i).

    The generator is splitmix64 (Steele, Lea, Flood 2014) with the row's key as its state; any step
    of any row can be had without the ones before it.

    Args:
        keys: ``[rows]`` from `row_keys`.
        steps: how many numbers per row.
        first: index of the first number.
    """
    counter = np.arange(first + 1, first + steps + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        state = keys[:, None] + counter[None, :] * _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
