"""Functions compiled to machine code, for what NumPy and torch would need many passes over memory
for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function at its first call; later processes find it on disk. Threads may run it
    side by side."""
    return njit(nogil=True, cache=True)(function)
