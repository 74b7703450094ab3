"""The largest numbers of every row, and those above a floor, in one pass over each row.

Compiled (numba): half a training step's time besides the encoder's product went into finding them
with torch, whose reference is in `sparse`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import BFloat16, Float, Int16, Int64
from torch import Tensor

from saeflow.compiling import compiled

# numbers that are looked at together first, by vector instructions: most blocks hold nothing above
# a floor
BLOCK = 32


def largest_positive(
    pre: BFloat16[Tensor, "rows n"], k: int, groups: int
) -> Int64[Tensor, "rows k"] | None:
    """Places of the ``k`` largest numbers of every row, in no order.

    Args:
        pre: on the CPU.
        k: how many.
        groups: that a row is looked at in, more than ``k``; they divide it.

    Returns:
        None if a row has fewer than ``k`` groups with a number above zero.
    """
    # Positive floats are in the order of their bits.
    bits = pre.contiguous().view(torch.int16).numpy()
    places = np.empty((len(bits), k), np.int64)
    parts = _parts(len(bits))
    complete = _workers(len(parts)).map(
        lambda part: _select(bits[part], places[part], groups), parts
    )
    return torch.from_numpy(places) if all(list(complete)) else None


def places_above(pre: Float[Tensor, "rows n"], floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Row and column of every number above ``floor``, row after row.

    Args:
        pre: float32 or bfloat16, on the CPU; n is a multiple of `BLOCK`.
        floor: a number, or one per column.
    """
    floors = torch.as_tensor(floor, dtype=torch.float32).detach().expand(pre.shape[1]).contiguous()
    if pre.dtype == torch.bfloat16 and not (floors < 0).any():
        # What is above a floor is above the nearest number of 16 bits below it; positive floats are
        # ordered as bits.
        values = pre.contiguous().view(torch.int16)
        least = (floors.view(torch.int32) >> 16).to(torch.int16)
    else:
        values, least = pre.float().contiguous(), floors
    numbers, lowest = values.detach().numpy(), least.numpy()

    def find(part: slice) -> tuple[Tensor, Tensor]:
        # Only what is written takes memory.
        rows, columns = np.empty((2, numbers[part].size), np.int64)
        held = _fill_above(numbers[part], lowest, rows, columns, part.start)
        return torch.from_numpy(rows[:held].copy()), torch.from_numpy(columns[:held].copy())

    parts = _parts(len(numbers))
    rows, columns = zip(*_workers(len(parts)).map(find, parts), strict=True)
    return torch.cat(rows), torch.cat(columns)


def _parts(rows: int) -> list[slice]:
    """The rows of every thread."""
    bounds = np.linspace(0, rows, max(1, min(torch.get_num_threads(), rows)) + 1).astype(int)
    return [slice(int(first), int(last)) for first, last in pairwise(bounds)]


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "selection")


@compiled
def _select(
    bits: Int16[np.ndarray, "rows n"], largest: Int64[np.ndarray, "rows k"], groups: int
) -> bool:
    """Fill ``largest``; false if a row has too few numbers above zero.

    At least k numbers are no smaller than the k-th largest of all groups' maxima, and hardly more
    than these.
    """
    rows, n = bits.shape
    k = largest.shape[1]
    best = np.empty(groups, np.int16)
    values, places = np.empty(n, np.int16), np.empty(n, np.int64)
    for row in range(rows):
        line = bits[row]
        best[:] = line[:groups]
        for start in range(groups, n, groups):
            part = line[start : start + groups]
            for group in range(groups):
                best[group] = max(best[group], part[group])
        floor = _kth(best, groups, k)
        if floor == 0:
            return False
        held = 0
        for group in range(groups):
            if best[group] >= floor:
                for place in range(group, n, groups):
                    if line[place] >= floor:
                        values[held], places[held] = line[place], place
                        held += 1
        least = _kth(values, held, k)
        to = 0
        for at in range(held):
            if values[at] > least:
                largest[row, to] = places[at]
                to += 1
        for at in range(held):
            if values[at] == least and to < k:
                largest[row, to] = places[at]
                to += 1
    return True


@compiled
def _kth(numbers: Int16[np.ndarray, " room"], held: int, k: int) -> int:
    """The k-th largest of the first ``held`` numbers, or zero if it is not above that.

    Halving the range of 15 bits takes as many counts, which are vector instructions without a
    branch: a fifth of the time of a selection that moves numbers.
    """
    least, most = 0, 2**15 - 1
    while least < most:
        middle = (least + most + 1) // 2
        floor, count = np.int16(middle), 0
        for place in range(held):
            count += numbers[place] >= floor
        if count >= k:
            least = middle
        else:
            most = middle - 1
    return least


@compiled
def _fill_above(
    numbers: np.ndarray[Any, Any],
    floors: np.ndarray[Any, Any],
    rows: Int64[np.ndarray, " room"],
    columns: Int64[np.ndarray, " room"],
    first: int,
) -> int:
    """Write down where ``numbers [rows, n]`` exceed ``floors [n]``; how many do."""
    held = 0
    for row in range(len(numbers)):
        line = numbers[row]
        for start in range(0, len(line), BLOCK):
            part, floor = line[start : start + BLOCK], floors[start : start + BLOCK]
            count = 0
            for place in range(BLOCK):
                count += part[place] > floor[place]
            if count:
                for place in range(BLOCK):
                    if part[place] > floor[place]:
                        rows[held], columns[held] = first + row, start + place
                        held += 1
    return held
