"""What is done when memory runs out: the same work, in batches of half the size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from saeflow.errors import SaeflowError

T = TypeVar("T")


def halve_batch_on_oom(
    size: int, work: Callable[[int], T], least: int, complaint: str
) -> tuple[T, int]:
    """Work in batches of a size, and of half of it each time that memory runs out.

    Args:
        size: of a batch, at first.
        work: what to do, given the size; done anew after a failure.
        least: the smallest size that is tried.
        complaint: what to say if not even that fits; ``{size}`` stands for it.

    Returns:
        What the work gave, and the size that did fit, to go on with.

    Raises:
        SaeflowError: not even the smallest batch fits.
    """
    while True:
        try:
            return work(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # outside of the handler, whose traceback would hold on to the memory
        if size <= least:
            raise SaeflowError(complaint.format(size=size))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = max(least, size // 2)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: a GPU's allocator and numpy have a class for it, the allocator of
    torch's CPU and oneDNN have only words."""
    words = ("allocate memory", "could not create a primitive")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        part in str(error) for part in words
    )
