"""NumPy arrays as columns of Arrow tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def column(values: np.ndarray[Any, Any]) -> pa.Array:
    """The same numbers as an Arrow array, not copied.

    ``pyarrow.array`` gives the same, but imports pandas to see whether it was handed some, which
    takes 0.3 s of a job.

    Args:
        values: one-dimensional, of a type that Arrow has, and not changed afterwards.
    """
    contiguous = np.ascontiguousarray(values)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(contiguous.dtype), len(contiguous), [None, pa.py_buffer(contiguous)]
    )
