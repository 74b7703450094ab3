"""Files that are whole or absent: atomic writing, checksums, provenance."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saeflow.errors import SaeflowError

RECORDED_PACKAGES = ("saeflow", "torch", "transformers", "numpy", "polars", "pyarrow", "snakemake")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file (or a folder) under a temporary name and move it into place when the block ends well.

    The temporary name lies in the same folder, so the move is one rename; a process that dies leaves only a
    dot-file that nothing reads.

    Raises:
        SaeflowError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        _discard(temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SaeflowError(f"{path}: the disk is full; make space and start again, finished files are kept") from None
        if error.errno in (errno.EACCES, errno.EROFS):
            raise SaeflowError(f"{path}: may not be written; check the permissions of {path.parent}") from None
        raise
    except BaseException:
        _discard(temporary)
        raise


def _to_disk(path: Path) -> None:
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())


def _discard(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _discard(child)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, sorted and indented, so that equal values are equal bytes."""
    with atomic(Path(path)) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SaeflowError: the file is absent or not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SaeflowError(f"{path}: is not JSON ({error}); delete it and it is made again") from None


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance() -> dict[str, Any]:
    """Versions, commit and machine of this process, for a file's metadata.

    Holds no time and no path, so that equal runs on equal machines write equal bytes.
    """
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The git commit of the source this runs from, with ``+dirty`` if it was edited; None outside a checkout."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain", "--", str(source)) else "")
    except (OSError, subprocess.SubprocessError):
        return None
