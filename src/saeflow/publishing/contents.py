"""Which files of a study are published, under the names that they have in the study."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from saeflow.analyses import Study
from saeflow.config.section import Section, names_places
from saeflow.errors import SaeflowError

ALWAYS = ("config.yaml", "provenance.json")
CORE = {
    "saes": ("saes/*/cfg.json", "saes/*/sae_weights.safetensors", "saes/*/metrics.json"),
    "figures": ("figures/*.png", "figures/*.svg", "figures/*.csv"),
}
"""What `publish.contents` may name beside analyses, and the files that belong to it."""


class Item(NamedTuple):
    """One file to publish."""

    name: str
    """In the repository, as in the study's folder."""
    path: Path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


class Packed(NamedTuple):
    """What of a study is published."""

    items: list[Item]
    left_out: list[str]
    """Patterns of what was asked for and is not there: it was fetched, and lies elsewhere, or is
    not made yet."""


def packed(root: Path, study: Study, contents: Iterable[str] | None) -> Packed:
    """The files of a study's folder that are published.

    Args:
        root: the study's folder.
        study: whose folder it is.
        contents: keys of `CORE` and of analyses; None is all.

    Raises:
        SaeflowError: nothing that is asked for is there.
    """
    patterns = CORE | {own.key: tuple(own.publishes) for own, _ in study.asked if own.publishes}
    wanted = [content for content in contents or patterns if content in patterns]
    by_pattern = {
        pattern: sorted(root.glob(pattern)) for content in wanted for pattern in patterns[content]
    }
    items = [
        Item(path.relative_to(root).as_posix(), path)
        for files in by_pattern.values()
        for path in files
    ]
    if not items:
        raise SaeflowError(
            f"publish.contents: {root} has no {', '.join(wanted)} of its own; make them first"
        )
    return Packed(items, [pattern for pattern, files in by_pattern.items() if not files])


def without_places(study: Study) -> Study:
    """The config with nothing that tells of this machine: of paths the last name is kept, of
    endpoints none."""
    bare: Study = _without_places(study)
    return bare.model_copy(update={"calls": study.calls.model_copy(update={"base_url": None})})


def _without_places(value: Any, is_place: bool = False) -> Any:
    if isinstance(value, Section):
        fields = type(value).model_fields
        return value.model_copy(
            update={name: _without_places(item, names_places(fields[name])) for name, item in value}
        )
    if isinstance(value, list):
        return [_without_places(item, is_place) for item in value]
    if isinstance(value, dict):
        return {name: _without_places(item, is_place) for name, item in value.items()}
    if is_place and isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
