"""Text of a data set of a hub."""

from __future__ import annotations

from collections.abc import Set
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.artifacts import atomic, write_sealed_json
from saeflow.config.text_files import KINDS_IN_WORDS, texts_among
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
        named = (name for name in names if any(fnmatchcase(name, each) for each in dataset.files))
        if chosen := texts_among(named):
            return chosen
        texts = texts_among(names)
        offered = ", ".join(texts[:_SHOWN]) + (
            f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
        )
        raise SaeflowError(
            f"{key}.files: {', '.join(dataset.files)} matches no file of text "
            f"({KINDS_IN_WORDS}) of {dataset.published.where}, which has {offered or 'none'}; "
            "correct the patterns or the revision"
        )

    fetched = fetch(dataset.published, key, wanted)
    with atomic(directory) as temporary:
        for name in fetched.names:
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            place(fetched.folder / name, target)
        write_sealed_json(temporary / RECORD, fetched.record)
