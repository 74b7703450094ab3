"""Threads that compute alone, each on a core of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def lone_threads(
    count: int, name: str, begin: Callable[[], object] | None = None
) -> Iterator[ThreadPoolExecutor]:
    """Threads whose torch operations do not spread over others; when the block ends they have
    ended.

    For independent pieces of work: threads that share an operation wait for each other at its end,
    these never do, and what they compute does not depend on how many there are.

    Args:
        count: how many.
        name: theirs begin with it.
        begin: what each does first.
    """
    usual = torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)
        if begin:
            begin()

    try:
        with ThreadPoolExecutor(count, name, alone) as threads:
            yield threads
    finally:
        # Threads to come begin with what was set last, wherever it was.
        torch.set_num_threads(usual)


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this thread's torch operations do not spread over others: no sum depends on
    how many there are.

    For work that is short beside what made its input, of which every bit is to be the same on any
    machine of a kind.
    """
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
