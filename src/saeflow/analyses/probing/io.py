"""The cached rows of a set, whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import sparse

from saeflow import seals
from saeflow.analyses.probing.rows import Representations
from saeflow.artifacts import sealed
from saeflow.errors import DamagedError, SaeflowError
from saeflow.seals import stamp

_ACTIVATIONS, _LATENTS = "activations.", "latents."


def save_representations(path: Path, rows: Representations) -> None:
    """Write activations by hook, and latents by SAE as compressed sparse rows."""
    arrays = {_ACTIVATIONS + hook: np.ascontiguousarray(x) for hook, x in rows.activations.items()}
    for name, latents in rows.latents.items():
        arrays |= {
            f"{_LATENTS}{name}.data": latents.data.astype(np.float32),
            f"{_LATENTS}{name}.indices": latents.indices.astype(np.int32),
            f"{_LATENTS}{name}.indptr": latents.indptr.astype(np.int64),
            f"{_LATENTS}{name}.shape": np.array(latents.shape, np.int64),
        }
    with sealed(path) as temporary:
        save_file(arrays, temporary, metadata=dict(stamp()))


def load_representations(path: Path) -> Representations:
    """Read what `save_representations` wrote.

    Raises:
        SaeflowError: the file is absent or damaged.
    """
    try:
        seals.check(path)
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; make it first") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedError(f"{path}: holds no rows to probe ({error})", [path]) from None
    names = [
        name.removeprefix(_LATENTS).removesuffix(".data")
        for name in arrays
        if name.startswith(_LATENTS) and name.endswith(".data")
    ]
    return Representations(
        {
            name.removeprefix(_ACTIVATIONS): array
            for name, array in arrays.items()
            if name.startswith(_ACTIVATIONS)
        },
        {
            name: sparse.csr_array(
                tuple(arrays[f"{_LATENTS}{name}.{key}"] for key in ("data", "indices", "indptr")),
                shape=tuple(arrays[f"{_LATENTS}{name}.shape"].tolist()),
            )
            for name in names
        },
    )
