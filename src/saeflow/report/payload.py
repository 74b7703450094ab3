"""Data for the report's scripts, in files that a browser loads from a disk as readily as from a
server.

A page that was opened from a disk may not fetch its neighbours, but it may load them as scripts. So
every piece of data is a script of one call, ``saeflow.receive(name, payload)``, whose payload is
JSON, deflated, in base64. The file is ASCII without a single ``<``, whatever text it holds.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 6  # of deflate: 9 takes twice the time for a hundredth of the size


def script(name: str, value: Any) -> str:
    """The script that hands a value to the page.

    Args:
        name: what the page asks for, a path without suffix.
        value: anything that JSON can hold; numbers that are not finite are refused.
    """
    # Escapes all but ASCII, lone surrogates too.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(text.encode("ascii")) + packer.flush()
    return f'saeflow.receive({json.dumps(name)},"{base64.b64encode(packed).decode("ascii")}");\n'


def value_of(text: str) -> Any:
    """What a script hands over: the inverse of ``script``."""
    packed = base64.b64decode(text.split('"')[3])
    return json.loads(zlib.decompress(packed, -zlib.MAX_WBITS))


def write_script(folder: Path, name: str, value: Any) -> None:
    """Write ``<folder>/data/<name>.js``."""
    path = folder / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(name, value), encoding="ascii")


def half_floats(values: NDArray[np.floating[Any]]) -> str:
    """Numbers as base64 of little-endian float16: three digits, which is what a table shows.

    Numbers beyond ±65504 are brought to that; those that are not known (NaN) stay so.
    """
    return _bytes(np.clip(values, -65504, 65504).astype("<f2"))


def integers(values: NDArray[np.integer[Any]]) -> str:
    """Natural numbers as base64 of little-endian uint32."""
    return _bytes(values.astype("<u4"))


def _bytes(values: NDArray[Any]) -> str:
    """Base64 of the first bytes of all values, then of the second bytes: high bytes repeat, and so
    deflate better."""
    planes = (
        np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize).T
    )
    return base64.b64encode(planes.tobytes()).decode("ascii")
