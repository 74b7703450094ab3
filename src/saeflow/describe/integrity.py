"""Compares every file of a study with the checksum that vouches for it, and with the config."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from saeflow import seals
from saeflow.artifacts import CHECKSUMS, check_checksums, read_checksums, read_json
from saeflow.checkpoints import check_archive
from saeflow.errors import DamagedError, SaeflowError
from saeflow.provenance import Digests, differing_key
from saeflow.tables import csv_text, read_table

if TYPE_CHECKING:
    from saeflow.activations.io import ActivationStore

MANIFEST = "manifest.json"
T = TypeVar("T")
PASSED_OVER = {"logs", "benchmarks", "publish"}
"""Folders of what was said, of times, and of what is on a hub already."""


class Verdict(NamedTuple):
    """What is known of one file."""

    path: Path
    fault: str | None
    """A sentence; None where the file is as it was written, or nothing vouches for it."""
    vouched: bool
    """Whether a checksum vouches for every byte."""


def verify(folder: Path, declared: Digests | None = None) -> Iterator[Verdict]:
    """Look at every file of a study, or of any folder of results; removes and changes nothing.

    Args:
        folder: of the study; logs and benchmarks are passed over.
        declared: digests of the study's settings, to compare what files were made with; default is
            none.

    Raises:
        SaeflowError: there is no such folder.
    """
    if not folder.is_dir():
        raise SaeflowError(
            f"verify: {folder} is no folder; name the folder of a study, as results/tales"
        )
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and not _passed_over(file, folder)
    )
    covered = dict(_covered(files))
    for file in files:
        verdict = covered.get(file) or _verdict(file)
        if not verdict.fault and (key := differing_key(file, declared or {})):
            fault = f"{file}: was made with another {key} than the study's config says"
            verdict = verdict._replace(fault=fault)
        yield verdict


def _passed_over(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    return bool(PASSED_OVER & set(parts[:-1])) or any(part.startswith(".") for part in parts)


def _covered(files: list[Path]) -> Iterator[tuple[Path, Verdict]]:
    """Files whose checksums stand in another: of a folder that is written whole, a figure, a
    cache."""
    for file in files:
        if file.name == CHECKSUMS or (file.parent.name == "figures" and file.suffix == ".json"):
            names = _attempt(partial(read_checksums, file))
            for name in names if isinstance(names, dict) else ():
                yield _checked(file.parent / name, partial(check_checksums, file, [name]))
        elif file.name == MANIFEST:
            yield from _shards(file)


def _shards(manifest: Path) -> Iterator[tuple[Path, Verdict]]:
    from saeflow.activations.io import ActivationStore

    store = _attempt(partial(ActivationStore.open, manifest.parent))
    if isinstance(store, ActivationStore):
        for number in range(len(store.shards)):
            yield _checked(
                manifest.parent / str(store.shards[number]["file"]),
                partial(_check_shard, store, number),
            )


def _check_shard(store: ActivationStore, number: int) -> None:
    path = store.path(number)
    if not path.is_file():
        raise SaeflowError(f"{path}: is absent")
    if not store.is_whole(number):
        raise SaeflowError(f"{path}: is damaged (its checksum differs from {MANIFEST})")


def _checked(path: Path, check: Callable[[], object]) -> tuple[Path, Verdict]:
    fault = _attempt(check)
    return path, Verdict(
        path, str(fault) if isinstance(fault, SaeflowError) else None, vouched=True
    )


def _attempt(look: Callable[[], T]) -> T | SaeflowError:
    try:
        return look()
    except DamagedError as error:
        return SaeflowError(error.problem)
    except SaeflowError as error:
        return error


def _verdict(file: Path) -> Verdict:
    """Of a file that nothing beside it vouches for."""
    look = _LOOKS.get(file.suffix)
    vouched = _attempt(partial(look, file)) if look else False
    if isinstance(vouched, SaeflowError):
        return Verdict(file, str(vouched), vouched=True)
    return Verdict(file, None, vouched)


def _sealed(file: Path) -> bool:
    seals.check(file)
    return seals.has_seal(file)


def _json(file: Path) -> bool:
    """A JSON file has its seal beside the rest or, where a format has no room there, among its
    metadata."""
    value = read_json(file)
    seals.unsealed_json(file, value, within="metadata")
    return f'"{seals.KEY}"' in file.read_text(encoding="utf-8", errors="replace")


def _csv(file: Path) -> bool:
    """A CSV table stands beside the Parquet table that it repeats."""
    table = file.with_suffix(".parquet")
    if not table.is_file():
        return False
    if file.read_text(encoding="utf-8", errors="replace") != csv_text(read_table(table)):
        raise DamagedError(f"{file}: differs from {table.name}", [file])
    return True


def _checkpoint(file: Path) -> bool:
    check_archive(file)
    return True


_LOOKS: dict[str, Callable[[Path], bool]] = {
    ".parquet": _sealed,
    ".safetensors": _sealed,
    ".h5": _sealed,
    ".yaml": _sealed,
    ".json": _json,
    ".csv": _csv,
    ".pt": _checkpoint,
}
