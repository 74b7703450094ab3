"""Files that are whole or absent: atomic writing, checksums, JSON."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from saeflow import jobs, provenance, seals
from saeflow.errors import DamagedError, SaeflowError

CHECKSUMS = "checksums.json"
"""Stands in every folder that is written whole: the SHA-256 of its files."""
SNAKEMAKE_TIMESTAMP = ".snakemake_timestamp"
_LARGEST_JSON = 64 << 20
_DEEPEST_JSON = 100


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file (or a folder) under a temporary name and move it into place when the block ends
    well.

    The temporary name lies in the same folder, so the move is one rename; a process that dies
    leaves only a dot-file that nothing reads, and that the next process to write into the folder
    removes. A folder is written with `CHECKSUMS` of its files, and takes the place of an older one
    whole; for the moment between two renames there is neither.

    Raises:
        SaeflowError: the disk is full, the folder cannot be written or holds foreign files, or see
            `saeflow.jobs` and `saeflow.provenance`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    claim: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        claim = _claim(temporary)
        yield temporary
        if temporary.is_dir():
            write_checksums(
                temporary / CHECKSUMS, [file for file in temporary.rglob("*") if file.is_file()]
            )
            check_replaceable(path)
        to_disk(temporary)
        provenance.refuse_to_write(path)
        if jobs.is_by_another(path) and _content(path) not in (None, _content(temporary)):
            raise jobs.outlived(path)
        _move(temporary, path)
        jobs.note_as_own(path)
    except Exception as error:
        reason = _mishap(error, path)
        _discard(temporary)
        if not reason:
            raise
        raise SaeflowError(f"{path}: {reason}") from None
    except BaseException:
        _discard(temporary)
        raise
    finally:
        if claim is not None:
            _discard(_claim_of(temporary))
            os.close(claim)


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """As `atomic`, for a file whose metadata hold `seals.stamp`: it is sealed before it is moved
    into place."""
    with atomic(path) as temporary:
        yield temporary
        seals.seal(temporary)


def _content(path: Path) -> str | None:
    file = path / CHECKSUMS if path.is_dir() else path
    return sha256(file) if file.is_file() else None


def check_replaceable(folder: Path) -> None:
    """See that a folder that would be replaced is absent, empty, or an earlier result with nothing
    beside it.

    Raises:
        SaeflowError: it holds a file that its `CHECKSUMS` do not name.
    """
    while folder.is_dir():
        with suppress(FileNotFoundError):  # another writer has just replaced it: look again
            looked_at = folder.stat().st_ino
            if not (foreign := _foreign_files(folder)):
                return
            if folder.stat().st_ino == looked_at:
                raise SaeflowError(
                    f"{folder}: holds {foreign[0]}, which was not written there by this command, "
                    "and would be replaced; move it away or name another folder"
                )


def _foreign_files(folder: Path) -> list[str]:
    """Names of the files in a folder that its `CHECKSUMS` do not name."""
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    return sorted(
        names - {CHECKSUMS, SNAKEMAKE_TIMESTAMP} - read_checksums(folder / CHECKSUMS).keys()
    )


def write_checksums(path: Path, files: Iterable[Path]) -> None:
    """Write the SHA-256 of files beside or below ``path``, for kinds of files that have no room for
    a seal."""
    folder = path.parent
    write_sealed_json(
        path, {file.relative_to(folder).as_posix(): sha256(file) for file in sorted(files)}
    )


_ATTEMPTS = 5


def read_checksums(path: Path) -> dict[str, str]:
    """SHA-256 by name, relative to the folder of ``path``; nothing where there is no such file.

    Raises:
        DamagedError: the file is damaged.
    """
    for attempt in range(_ATTEMPTS):
        try:
            sums = read_object(path)
            break
        except SaeflowError:  # another writer may just have replaced the folder
            if not path.is_file():
                return {}
            if attempt == _ATTEMPTS - 1:
                raise
    if not all(isinstance(value, str) for value in sums.values()):
        raise DamagedError(f"{path}: holds no checksums", [path])
    return sums


def check_checksums(
    path: Path, names: Iterable[str] | None = None, also: Sequence[Path] = ()
) -> None:
    """Compare files with the checksums beside them; a file that is not named there is taken as it
    is.

    Args:
        path: from `write_checksums`; where it is absent, nothing is checked.
        names: of the files to look at; default is all.
        also: what must be gone, beside a damaged file, for the workflow to make it again.

    Raises:
        DamagedError: a file is absent or has other bytes than were written.
    """
    sums = read_checksums(path)
    for name in sums.keys() & set(sums if names is None else names):
        file = inside(path.parent, name)
        if not file.is_file():
            raise DamagedError(f"{file}: is absent", [path, *also])
        if sha256(file) != sums[name]:
            raise DamagedError(
                f"{file}: is not as {path.name} says (damaged, or edited)", [file, *also]
            )


def inside(folder: Path, name: str) -> Path:
    """A file that another file names, which may be a stranger's: it must lie in the folder.

    Raises:
        SaeflowError: the name is absolute, leads out of the folder, or is none.
    """
    parts = PurePosixPath(str(name)).parts
    if not parts or ".." in parts or parts[0] == "/" or {"\\", "\0"} & set(str(name)):
        raise SaeflowError(
            f"{folder}: a file in it names {str(name)!r}, which lies outside of it; get it anew"
        )
    return folder.joinpath(*parts)


def _claim_of(temporary: Path) -> Path:
    """The file that is locked as long as the process lives that writes under a temporary name."""
    return temporary.with_suffix(".writer")


def _claim(temporary: Path) -> int | None:
    """Mark a temporary name as in use, however this process ends; None where the file system knows
    no locks."""
    file = _claim_of(temporary)
    lock = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        _discard(file)
        os.close(lock)
        return None
    return lock


@cache
def _sweep(folder: Path) -> None:
    """Remove what dead writers left in a folder, once per process. One whose lock cannot be had may
    be alive."""
    for claim in folder.glob(".*.writer"):
        with suppress(OSError):
            lock = os.open(claim, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for suffix in (".part", ".old", ".writer"):
                    _discard(claim.with_suffix(suffix))
            finally:
                os.close(lock)


def _mishap(error: Exception, path: Path) -> str | None:
    """What befell the disk or the folder of `path`, in words; None if the error is of another
    kind."""
    code = getattr(error, "errno", None)
    full = code in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
    # Some libraries tell of a full disk without saying so (torch, NumPy): then the disk itself is
    # asked.
    unclear = isinstance(error, (OSError, RuntimeError)) and code is None
    if full or (unclear and _is_full(path.parent)):
        return "the disk is full; make space and start again, finished files are kept"
    if (
        not isinstance(error, OSError)
        or Path(str(error.filename or path)).parent not in path.parents
    ):
        return None
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"may not be written; check the permissions of {path.parent}"
    if code in (errno.EEXIST, errno.ENOTDIR):
        return "cannot be written; a file stands where a folder must be, move it away"
    if code == errno.EISDIR:
        return "cannot be written; a folder stands where the file must be, move it away"
    return None


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < 4096
    except OSError:
        return False


def to_disk(path: Path) -> None:
    """Wait until the disk has a file, or every file of a folder."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def _move(temporary: Path, path: Path) -> None:
    """Rename, also over a folder that is not empty, which the system's rename refuses."""
    aside = temporary.with_suffix(".old")
    try:
        while not _renamed(temporary, path):
            _discard(aside)
            with suppress(FileNotFoundError):  # another writer has just moved it aside
                os.replace(path, aside)
    except BaseException:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        raise
    _discard(aside)


def _renamed(temporary: Path, path: Path) -> bool:
    """Rename; False if a folder that is not empty stands in the way."""
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):  # what went wrong before is what the user must hear of
        path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, sorted and indented, so that equal values are equal bytes."""
    with atomic(Path(path)) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """As `write_json`, with a checksum of all that is in it; for files that other jobs compute
    with."""
    write_json(path, seals.sealed_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file, and check its seal where it has one.

    Raises:
        SaeflowError: the file is absent, too large or deep, not JSON, not as it was sealed, or made
            with other settings than the study has.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise SaeflowError(f"{path}: is a folder, and a JSON file is needed; correct its path")
        seals.refuse_pointer(path)
        if path.stat().st_size > _LARGEST_JSON:
            raise SaeflowError(
                f"{path}: has more than {_LARGEST_JSON >> 20} MB, too many for JSON; get it again"
            )
        value = seals.unsealed_json(path, json_of(path.read_bytes(), path))
        provenance.refuse_other_settings(path)
        return value
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file") from None
    except ValueError as error:
        raise DamagedError(f"{path}: is not JSON ({error})", [path]) from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold names and values, as every config does; raises as `read_json`
    does otherwise."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise SaeflowError(
            f"{path}: holds a {type(value).__name__} where names and values are needed; get it "
            "again"
        )
    return value


def json_of(text: str | bytes, where: Path | str) -> Any:
    """A JSON text as a value that is safe to walk through: no deeper than anyone nests by hand.

    Args:
        text: anybody's.
        where: it stands, for messages.

    Raises:
        ValueError: it is no JSON; the message says why.
        SaeflowError: it is nested deeper than `_DEEPEST_JSON`.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise SaeflowError(f"{where}: its JSON is nested too deep; get it again") from None
    waiting = [(value, 1)] if isinstance(value, dict | list) else []
    while waiting:
        holder, depth = waiting.pop()
        if depth > _DEEPEST_JSON:
            raise SaeflowError(
                f"{where}: its JSON is nested deeper than {_DEEPEST_JSON}; get it again"
            )
        inner = holder.values() if isinstance(holder, dict) else holder
        waiting.extend((item, depth + 1) for item in inner if isinstance(item, dict | list))
    return value


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
