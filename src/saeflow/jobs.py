"""A job replaces nothing that another job has written since it began.

Snakemake that is killed leaves its jobs alive. Started again with another config, it makes the same
files, and what an old job wrote over them in the end would pass for the new.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saeflow.errors import SaeflowError

_TICK = 0.02  # seconds to which the start of a process is known
_begun: list[float] = []  # when this process began its job, if it is one
_own: dict[Path, int] = {}  # what this process wrote, and when: `st_ctime_ns`, which a rename sets


def process_start() -> float:
    """When this process was started, in seconds since the epoch, to some hundredths; now, where no
    system tells it.

    A process that is stopped while it still imports has begun all the same.
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.time()
    return time.time() - age + _TICK


@contextmanager
def job(begun: float | None = None) -> Iterator[None]:
    """While the block runs, this process is a job; it began when its process did, or now."""
    _begun[:] = [time.time() if begun is None else begun]
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
        f"{path}: another job has written it since this one began, perhaps with other settings; it "
        "is kept, start again and it is made anew where that is needed"
    )
