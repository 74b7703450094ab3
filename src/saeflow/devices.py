"""Accelerators of this machine, leased: one process at a time on each.

Snakemake's ``--resources gpu=K`` limits how many GPU jobs run at once, but tells no job which
device is its own. So each takes an advisory lock on a device's file, which the kernel drops when
the process ends, however it ends: no lease outlives its holder. Inside a SLURM job the devices are
those that SLURM gave it, and only processes of that job share them out.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from saeflow.errors import SaeflowError

DEVICES = "SAEFLOW_DEVICES"
"""Environment variable that names the devices where they cannot be found, as ``0,1``: other makes,
and tests."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_GRANTED = (
    "SAEFLOW_DEVICE_GRANTED"  # for processes that this one starts: they compute on what it has
)
_POLL_SECONDS = 0.2
_held: list[int] = []  # open lock files: closing one gives its device up


def present() -> list[str]:
    """The devices that this process may use, by the name that ``CUDA_VISIBLE_DEVICES`` has for
    them."""
    listed = os.environ.get(VISIBLE)
    if listed is None and "SLURM_JOB_ID" not in os.environ:
        listed = os.environ.get(DEVICES)
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip()]
    if "SLURM_JOB_ID" in os.environ:
        return []
    # CUDA counts the devices it finds, whatever numbers their files have: in a container 0 may be
    # /dev/nvidia3.
    files = [file for file in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    return [str(number) for number in range(len(files))]


def lease(count: int = 1) -> list[str]:
    """Wait for free devices and make them the only visible ones, until this process ends.

    Must be called before torch is imported. Where there are no devices nothing happens, and the
    process computes on the CPU; in a process that was started by one with a lease nothing happens
    either.

    Args:
        count: how many.

    Returns:
        The devices' names; empty where there are none.

    Raises:
        SaeflowError: fewer devices are there than asked for.
    """
    if _GRANTED in os.environ:
        return []
    devices = present()
    if 0 < len(devices) < count:
        raise SaeflowError(
            f"devices: {count} were asked for and there are {len(devices)} ({', '.join(devices)})"
        )
    names = _locked(devices, count) if devices else []
    os.environ[_GRANTED] = "1"
    if names:
        os.environ[VISIBLE] = ",".join(names)
        print(f"device {', '.join(names)} of {', '.join(devices)}", file=sys.stderr, flush=True)
    return names


def granted() -> bool:
    """Whether this process, or the one that started it, has asked for devices; one that has not
    leaves them alone."""
    return _GRANTED in os.environ


def _locked(devices: Sequence[str], count: int) -> list[str]:
    """The first devices that are free, all at once, so that nobody waits while holding some."""
    announced = False
    while True:
        locks: dict[str, int] = {}
        for name in devices:
            if len(locks) < count and (lock := _try(name)) is not None:
                locks[name] = lock
        if len(locks) == count:
            _held.extend(locks.values())
            return list(locks)
        for lock in locks.values():
            os.close(lock)
        if not announced:
            print(
                f"waiting for a free device among {', '.join(devices)}", file=sys.stderr, flush=True
            )
            announced = True
        time.sleep(_POLL_SECONDS)


def _try(name: str) -> int | None:
    """The lock of a device; None while another process holds it."""
    lock = _open(_folder() / re.sub(r"[^\w.-]", "_", name))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _folder() -> Path:
    """Where the lock files lie, for all users of a machine, and apart for each SLURM job, which
    counts from 0 anew."""
    job = os.environ.get("SLURM_JOB_ID")
    folder = Path(tempfile.gettempdir(), f"saeflow-devices-{job}" if job else "saeflow-devices")
    folder.mkdir(exist_ok=True)
    try:
        # Opened without following a link, which anyone may have planted here before us.
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise SaeflowError(
            f"devices: {folder} is a link or no folder, and leases would lie elsewhere; remove it "
            "or set TMPDIR"
        ) from None
    with suppress(PermissionError):  # another user's, who has done this
        os.fchmod(opened, 0o1777)
    os.close(opened)
    return folder


def _open(path: Path) -> int:
    """Open a lock file; made if need be, and readable for all: a lock needs no more.

    Kernels refuse to open another user's file in such a folder with O_CREAT, even one that is
    there.
    """
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
