"""Token blocks as one safetensors file: ``tokens``, ``labels.<name>``, and the classes' names as
metadata."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from saeflow import seals
from saeflow.artifacts import sealed
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import DamagedError, SaeflowError
from saeflow.seals import stamp

_LABEL = "labels."


def save_blocks(path: Path, blocks: TokenBlocks) -> None:
    """Write token blocks atomically."""
    arrays = {
        "tokens": blocks.tokens,
        **{_LABEL + name: values for name, values in blocks.labels.items()},
    }
    metadata = {"label_names": json.dumps(blocks.label_names, sort_keys=True), **stamp()}
    with sealed(Path(path)) as temporary:
        save_file(arrays, temporary, metadata=metadata)


def load_blocks(path: Path, which: slice = slice(None)) -> TokenBlocks:
    """Read token blocks, once the file is found as it was written.

    Args:
        path: of the file.
        which: of the blocks; the others are not read.

    Raises:
        SaeflowError: the file is absent, holds something else, or has no such blocks.
    """
    try:
        seals.check(path)
        with safe_open(path, framework="numpy") as file:
            start, stop, _ = which.indices(count := file.get_slice("tokens").get_shape()[0])
            if start >= stop:
                raise SaeflowError(
                    f"{path}: has {count} blocks; there are none from block {start} on"
                )
            arrays = {name: file.get_slice(name)[start:stop] for name in file.keys()}  # noqa: SIM118  (a handle, not a dict)
            label_names = json.loads((file.metadata() or {})["label_names"])
        return TokenBlocks(
            tokens=arrays["tokens"],
            labels={
                name.removeprefix(_LABEL): array
                for name, array in arrays.items()
                if name.startswith(_LABEL)
            },
            label_names=label_names,
        )
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedError(f"{path}: is not a file of token blocks ({error})", [path]) from None


def count_blocks(path: Path) -> int:
    """How many blocks a file holds, from its header.

    Raises:
        SaeflowError: the file is absent or holds something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return int(file.get_slice("tokens").get_shape()[0])
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise DamagedError(f"{path}: is not a file of token blocks ({error})", [path]) from None
