"""Tests by exchanging what a hypothesis says is alike, and their correction where many are made."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

PERMUTATIONS = 99_999
EXACT_UNITS = 17  # up to this many units all exchanges are made, 2**16 of them by symmetry
ALPHA = 0.05
"""Of all claims of a study together, the chance that any is false."""
_CHUNK = 4096  # exchanges held in memory at a time
_TIE = 1e-12  # differences that are equal but for rounding count as equal


def exchanges(
    units: int, generator: np.random.Generator, permutations: int = PERMUTATIONS
) -> Iterator[Bool[np.ndarray, "chunk units"]]:
    """Which units are exchanged between two groups, a chunk of permutations at a time.

    Up to `EXACT_UNITS` units: every way once, up to exchanging all, which only turns the sign of a
    difference. More: the unexchanged one, then random ones.
    """
    if units <= EXACT_UNITS:
        ways = np.arange(2 ** max(units - 1, 0))
        for start in range(0, len(ways), _CHUNK):
            yield (ways[start : start + _CHUNK, None] >> np.arange(units)) % 2 == 1
        return
    yield np.zeros((1, units), dtype=bool)
    for start in range(0, permutations, _CHUNK):
        yield generator.integers(0, 2, size=(min(_CHUNK, permutations - start), units)).astype(bool)


def as_large(
    difference: Float[np.ndarray, " pairs"], exchanged: Float[np.ndarray, "chunk pairs"]
) -> Float[np.ndarray, " pairs"]:
    """How many exchanged differences are as large as the measured one, whatever their sign."""
    with np.errstate(invalid="ignore"):
        return (np.abs(exchanged) >= np.abs(difference) - _TIE).sum(axis=0).astype(np.float64)


def smallest_p(units: int, permutations: int = PERMUTATIONS) -> float:
    """The smallest two-sided p-value that exchanging so many units can give."""
    return 2.0 ** -max(units - 1, 0) if units <= EXACT_UNITS else 1 / (permutations + 1)


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """p-values corrected so that the chance of any false rejection keeps the level.

    NaN, where a test could not be made, is no test and stays NaN.

    Source: Holm, Scand. J. Statist. 6 (1979).
    """
    corrected = np.full(len(p_values), np.nan)
    made = np.flatnonzero(~np.isnan(p_values))
    order = made[np.argsort(p_values[made], kind="stable")]
    stepwise = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(stepwise), 1.0)
    return corrected
