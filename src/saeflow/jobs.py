"""A job replaces nothing that another job has written since it began.

Snakemake that is killed leaves its jobs alive. Started again with another config, it makes the same files, and what an
old job wrote over them in the end would pass for the new.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saeflow.errors import SaeflowError

_begun: list[float] = []  # when this process began its job, if it is one
_own: dict[Path, int] = {}  # what this process wrote, and when: `st_ctime_ns`, which a rename sets


@contextmanager
def job() -> Iterator[None]:
    """While the block runs, this process is a job."""
    _begun[:] = [time.time()]
    _own.clear()
    try:
        yield
    finally:
        _begun.clear()


def is_by_another(path: Path) -> bool:
    """Whether a file or folder has been written by another process since this job began."""
    try:
        there = path.lstat()
    except OSError:
        return False
    return bool(_begun) and there.st_ctime > _begun[0] and there.st_ctime_ns != _own.get(path)


def note_as_own(path: Path) -> None:
    """Remember that this process has just written a file or folder."""
    with suppress(OSError):
        _own[path] = path.lstat().st_ctime_ns


def outlived(path: Path) -> SaeflowError:
    """What is said where the content of the other differs."""
    return SaeflowError(
        f"{path}: another job has written it since this one began, perhaps with other settings; it is kept, start "
        "again and it is made anew where that is needed"
    )
