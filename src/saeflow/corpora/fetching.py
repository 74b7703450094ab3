"""Text of a data set of a hub."""

from __future__ import annotations

from collections.abc import Set
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from saeflow.artifacts import atomic, write_sealed_json
from saeflow.corpora.text import READERS
from saeflow.errors import SaeflowError
from saeflow.hub.files import RECORD, fetch, place

if TYPE_CHECKING:
    from saeflow.config.sections import Dataset

_SHOWN = 8


def fetch_text(dataset: Dataset, key: str, directory: Path) -> None:
    """Fetch the files of a data set that hold text, with the record of where they came from.

    Args:
        dataset: the repository, and which files.
        key: of the config, for messages.
        directory: where the files go, under the names that they have there.

    Raises:
        SaeflowError: what `saeflow.hub.files.fetch` raises, or no file of a known kind matches.
    """

    def wanted(names: Set[str], _: object) -> list[str]:
        texts = sorted(name for name in names if PurePosixPath(name).suffix in READERS)
        if chosen := [
            name for name in texts if any(fnmatchcase(name, pattern) for pattern in dataset.files)
        ]:
            return chosen
        offered = ", ".join(texts[:_SHOWN]) + (
            f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
        )
        raise SaeflowError(
            f"{key}.files: {', '.join(dataset.files)} matches no {', '.join(READERS)} file of "
            f"{dataset.published.where}, which has {offered or 'none'}; correct the patterns or "
            "the revision"
        )

    fetched = fetch(dataset.published, key, wanted)
    with atomic(directory) as temporary:
        for name in fetched.names:
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            place(fetched.folder / name, target)
        write_sealed_json(temporary / RECORD, fetched.record)
