"""Activations of items at any hooks, pass by pass: a model runs up to the last hook and no
further."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from math import isfinite
from threading import local

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.activations.exclusion import kept_positions
from saeflow.activations.sources import Source
from saeflow.activations.store import ActivationRows, torch_dtype
from saeflow.config.sections import Activations
from saeflow.errors import SaeflowError
from saeflow.threads import lone_threads

# Fixed, since sums of a matrix product may depend on how many rows it has. On a CPU few enough that
# what one layer gives is still in the cache when the next one reads it; an accelerator wants many.
TOKENS_PER_PASS, _TOKENS_ON_ACCELERATOR = 1024, 4096


def capture_rows(
    source: Source,
    hooks: Sequence[str],
    settings: Activations,
    excluded: Collection[int] = (),
    first_block: int = 0,
) -> Iterator[dict[str, ActivationRows]]:
    """The rows of all items in their order, at every hook the same positions.

    On a CPU every thread that torch has takes passes of its own.

    Args:
        source: the items and their model.
        hooks: where to read; all are read in the same forward passes.
        settings: the dtype to store, and the norm above which a position is left out.
        excluded: tokens whose positions are left out.
        first_block: index of the first item in its split.

    Yields:
        Per hook the rows of one forward pass.

    Raises:
        SaeflowError: there is no such hook, the model gives NaN, or the dtype cannot hold the
            activations.
    """
    n_items, n_positions = source.tokens.shape
    together = TOKENS_PER_PASS if source.device.type == "cpu" else _TOKENS_ON_ACCELERATOR
    items = max(1, together // n_positions)

    def rows_of(source: Source, part: slice) -> dict[str, ActivationRows]:
        tokens = source.tokens[part]
        read = source.activations(part, hooks)
        for hook, activations in read.items():
            if not _finite(activations):
                raise SaeflowError(
                    f"activations: the model gives NaN or infinity at {hook} in blocks "
                    f"{first_block + part.start} to {first_block + part.stop - 1}; check its "
                    "weights, or set model.dtype to bfloat16 or float32"
                )
        kept = kept_positions(tokens, excluded, read.values(), settings.exclude_norm_above)
        blocks, positions = (place.astype(np.int32) for place in kept.nonzero())
        blocks += first_block + part.start
        rows = torch.from_numpy(np.flatnonzero(kept))
        return {
            hook: ActivationRows(
                _stored(hook, activations, rows, settings), tokens[kept], positions, blocks
            )
            for hook, activations in read.items()
        }

    parts = [slice(start, min(start + items, n_items)) for start in range(0, n_items, items)]
    yield from _side_by_side(source, rows_of, parts)


def _side_by_side(
    source: Source,
    rows_of: Callable[[Source, slice], dict[str, ActivationRows]],
    parts: Sequence[slice],
) -> Iterator[dict[str, ActivationRows]]:
    """What passes over the parts give, in their order; a pass for every thread on a CPU, else one
    at a time.

    Threads that share a pass of so few tokens wait for each other at each of its operations, and
    for whatever else keeps one of them, such as the writing of shards.
    """
    if source.device.type != "cpu" or torch.get_num_threads() == 1:
        yield from (rows_of(source, part) for part in parts)
        return
    threads = max(1, min(torch.get_num_threads(), len(parts)))
    mine, twins = local(), [source.twin() for _ in range(threads)]

    def begin() -> None:
        mine.source = twins.pop()

    with lone_threads(threads, "saeflow-capture", begin) as workers:
        ahead: deque[Future[dict[str, ActivationRows]]] = deque()
        try:
            for part in parts:
                ahead.append(workers.submit(lambda part: rows_of(mine.source, part), part))
                # More than run, or one waits while the first are being written.
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


def _stored(
    hook: str, activations: Float[Tensor, "items pos width"], rows: Tensor, settings: Activations
) -> Float[Tensor, "rows width"]:
    chosen = activations.flatten(0, 1).index_select(0, rows.to(activations.device))
    stored = chosen.to(torch_dtype(settings.dtype)).cpu()
    if stored.dtype != chosen.dtype and not _finite(stored):
        raise SaeflowError(
            f"activations: values at {hook} do not fit {settings.dtype}; set activations.dtype to "
            "bfloat16 or float32"
        )
    return stored


def _finite(tensor: Tensor) -> bool:
    """No NaN and no infinity; the extremes tell in one reading, fifteen times faster than asking
    every number."""
    return not tensor.numel() or all(isfinite(extreme) for extreme in torch.aminmax(tensor))
