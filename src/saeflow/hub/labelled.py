"""Files of labelled texts from hubs and packages; their texts are read, and nothing is run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from saeflow.artifacts import atomic, write_sealed_json
from saeflow.config.section import Section
from saeflow.config.sections.published import DataPackage, Published, below
from saeflow.hub.files import RECORD, fetch, place
from saeflow.hub.packages import fetch_files

F = TypeVar("F", DataPackage, Published)


class Wanted(Section):
    """Files of one source: of a package, or of a repository at one revision."""

    key: str
    """Of the config, under which they are named; for messages."""
    packages: list[DataPackage] = Field(default=[])
    published: list[Published] = Field(default=[])


def fetch_labelled(wanted: Wanted, output: Path) -> None:
    """Fetch files to the paths that they have there, with the record of where they came from.

    Args:
        wanted: which.
        output: the folder in which they lie.

    Raises:
        SaeflowError: as `saeflow.hub.files.fetch` and `saeflow.hub.packages.fetch_files` do.
    """
    with atomic(output) as temporary:
        temporary.mkdir()
        records: list[object] = []
        if wanted.packages:
            files = fetch_files(wanted.packages, wanted.key, temporary)
            records = [record for _, record in files]
        for published in wanted.published:
            fetched = fetch(published, wanted.key)
            target = temporary / below(published.file or "")
            target.parent.mkdir(parents=True, exist_ok=True)
            place(fetched.path, target)
            records.append(fetched.record)
        write_sealed_json(temporary / RECORD, {"files": records})


def sources_of(
    packages: Sequence[DataPackage], published: Sequence[Published], key: str
) -> dict[str, Wanted]:
    """What is fetched together, by the name of the folder for it.

    Args:
        packages: files of packages.
        published: files of repositories.
        key: of the config, under which they are named.
    """
    each = [
        *((package_folder(file), Wanted(key=key, packages=[file])) for file in packages),
        *((published_folder(file), Wanted(key=key, published=[file])) for file in published),
    ]
    return together(each)


def together(sources: Iterable[tuple[str, Wanted]]) -> dict[str, Wanted]:
    """What is fetched into one folder, by its name: a file that is wanted twice once."""
    wanted: dict[str, Wanted] = {}
    for name, more in sources:
        so_far = wanted.get(name, Wanted(key=more.key))
        wanted[name] = Wanted(
            key=so_far.key,
            packages=_once([*so_far.packages, *more.packages]),
            published=_once([*so_far.published, *more.published]),
        )
    return wanted


def _once(files: Sequence[F]) -> list[F]:
    return list({file.model_dump_json(): file for file in files}.values())


def package_folder(package: DataPackage) -> str:
    """The folder for all files of a package."""
    return package.model_copy(update={"file": "", "sha256": None}).folder("labelled")


def published_folder(published: Published) -> str:
    """The folder for all files of a repository at a revision."""
    return published.model_copy(update={"file": None, "sha256": None}).folder("labelled")
