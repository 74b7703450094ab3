"""Checkpoints of trainings: written whole or not at all, and never resumed from when a byte of one
has changed."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

from saeflow.artifacts import atomic
from saeflow.errors import DamagedError


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write the state of a training atomically.

    Args:
        path: of the file.
        identity: a hash of everything that the training is determined by.
        state: tensors, numbers, and containers of them.
    """
    import torch

    with atomic(Path(path)) as temporary:
        torch.save({"identity": identity, "state": state}, temporary)


def check_archive(path: Path) -> None:
    """Compare every part of what `torch.save` wrote with its checksum; `torch.load` does not.

    Raises:
        DamagedError: a part has other bytes than were written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError) as error:
        raise DamagedError(f"{path}: is no whole checkpoint ({error})", [path]) from None
    if damaged:
        raise DamagedError(f"{path}: is damaged (the checksum of {damaged} differs)", [path])


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The state of the training with this identity, on the CPU; None where there is none or it is
    damaged."""
    import torch

    if not Path(path).is_file():
        return None
    try:
        check_archive(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
        return content["state"] if content["identity"] == identity else None
    # damage makes the libraries fail in any way, and training anew is the remedy for all
    except Exception as error:
        reason = (
            error.problem
            if isinstance(error, DamagedError)
            else f"{path}: {' '.join(str(error).split())}"
        )
        print(f"{reason}; the training starts anew", file=sys.stderr)
        return None
