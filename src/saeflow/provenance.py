"""Where a file comes from: settings, versions, commit and machine, told in the file itself.

The settings are told as digests, in one text that stands unchanged within the metadata of every
format: `saeflow-settings: Steering.samples=5feceb66 …;`. When the workflow starts, it writes down
the digests that the config of the study gives (`declare`). Its jobs compare: whoever reads a file
that was made with others refuses it, and a job that was given others writes nothing. So the job of
a Snakemake that was killed, which ends after the config has changed, does no harm.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from saeflow.errors import SaeflowError

RECORDED_PACKAGES = ("saeflow", "torch", "transformers", "numpy", "polars", "pyarrow", "snakemake")
DECLARED = "SAEFLOW_SETTINGS"
"""Names to the jobs of a workflow the file that `declare` has written, in the folder of the study's
results. A command of a person has none, and compares nothing."""
OPTIONS = ""
"""The section of what is given as an option of its own, such as the seed."""
_MARK = re.compile(rb"saeflow-settings:((?: [\w@.-]+=[0-9a-f]{8})*);")
_SEARCHED = 1 << 22  # bytes at a file's start, and at its end, that hold its metadata


class Key(NamedTuple):
    """One key of the settings that a command is given."""

    section: str
    """The class of the section of the config, or `OPTIONS`."""
    name: str
    """Of what the section is about, where the command is given several of its kind; else empty."""
    key: str


Digests = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Digests by class of section, place in the config and key."""

_given: dict[Key, str] = {}  # digest by key, of this command
_options: dict[str, Any] = {}


def forget() -> None:
    """Begin a command: nothing is given yet."""
    _given.clear()
    _options.clear()


def tell_option(name: str, value: Any) -> None:
    """Note an option that stands in files in clear, too: the seed, the dtype."""
    _options[name] = value
    tell_settings(OPTIONS, {name: value})


def tell_settings(section: str, values: Mapping[str, Any], name: str = "") -> None:
    """Note what this command is given, for the files that it writes.

    Args:
        section: class of the section, or `OPTIONS`.
        values: by key; those that are not given are not told.
        name: of what the section is about, where several of its kind are given.
    """
    _given.update({Key(section, name, key): digest(value) for key, value in values.items()})


def digest(value: Any) -> str:
    """Eight hexadecimal digits that stand for a value of the config."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def declare(path: Path, digests: Digests) -> None:
    """Write down what the study's config says now, for jobs to compare with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(digests), encoding="utf-8")
    os.replace(temporary, path)


def refuse_other_settings(path: Path) -> None:
    """See that a file of this job's study was made with the settings that the study has now.

    A file from elsewhere, or one that tells no settings, is taken as it is.

    Raises:
        SaeflowError: it was made with others.
    """
    if (declared := _declared(path)) and (key := differing_key(path, declared)):
        raise SaeflowError(
            f"{path}: was made with another {key} than the study has now, by a job of an earlier "
            "run that ended late, or it was kept from one; remove the file (or move it away) and "
            "start again, and it is made anew"
        )


def refuse_to_write(path: Path) -> None:
    """See, before a file of this job's study is written, that the study still has the settings that
    the job was given.

    Raises:
        SaeflowError: it was started again with others.
    """
    if (declared := _declared(path)) and (key := next(_differing(_given, declared), None)):
        raise SaeflowError(
            f"{path}: is not written, as the study's {key} has changed since this job began; what "
            "lies there is kept"
        )


def differing_key(path: Path, declared: Digests) -> str | None:
    """A key of the config that differs from what a file was made with, or None.

    Where the config has no such key any more, there is nothing to compare.
    """
    recorded = {
        key: value
        for key, value in settings_of(path).items()
        if not key.name or key.name in path.parts
    }
    return next(_differing(recorded, declared), None)


def settings_of(path: Path) -> dict[Key, str]:
    """The digests that a file tells, by key; none where it tells nothing."""
    with open(path, "rb") as file:
        text = file.read(_SEARCHED)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(len(text), size - _SEARCHED))
        text += file.read()
    marked = _MARK.findall(text)
    return dict(map(_parsed, marked[-1].decode().split())) if marked else {}


def _parsed(text: str) -> tuple[Key, str]:
    place, _, value = text.partition("=")
    holder, _, key = place.rpartition(".")
    section, _, name = holder.partition("@")
    return Key(section, name, key), value


def _differing(digests: Mapping[Key, str], declared: Digests) -> Iterator[str]:
    """Places in the config whose value is another than one of some digests stands for."""
    for (section, name, key), value in digests.items():
        sections = declared.values() if section == OPTIONS else [declared.get(section, {})]
        offered = {
            f"{place}.{key}".removeprefix("."): keys[key]
            for places in sections
            for place, keys in places.items()
            if key in keys and (not name or f".{name}." in f".{place}.")
        }
        if section == OPTIONS and key in offered:  # the study's own, as its seed
            offered = {key: offered[key]}
        if offered and value not in offered.values():
            yield next(iter(offered))


def _declared(path: Path) -> Digests:
    """What the study of this job says of its settings; nothing where the file belongs to no study
    or to another."""
    file = Path(os.environ.get(DECLARED, ""))
    if not file.is_file() or not path.resolve().is_relative_to(file.parent.resolve()):
        return {}
    declared: Digests = json.loads(file.read_text(encoding="utf-8"))
    return declared


def provenance() -> dict[str, Any]:
    """Settings, versions, commit, machine and device of this process, for a file's metadata.

    Holds no time and no path, so that equal runs on equal machines write equal bytes.
    """
    given = (
        f" {section}{f'@{name}' if name else ''}.{key}={value}"
        for (section, name, key), value in sorted(_given.items())
    )
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": _device(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "commit": _commit(),
        "options": dict(sorted(_options.items())),
        "settings": f"saeflow-settings:{''.join(given)};",
    }


def _device() -> str:
    """What this process computes on. A process that has not imported torch computes on the CPU."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else "cpu"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """The git commit of the source this runs from, with ``+dirty`` if it was edited; None outside a
    checkout."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+dirty" if git("status", "--porcelain", "--", str(source)) else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None
