"""What stands in a study's config, as digests by which a file tells what it was made with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from saeflow.config.any_study import AnyStudy
from saeflow.config.section import Section
from saeflow.provenance import digest


def settings_digests(study: AnyStudy) -> dict[str, dict[str, dict[str, str]]]:
    """Digests of every key of a config, by class of section, place in the config and key."""
    digests: dict[str, dict[str, dict[str, str]]] = {}
    for place, section in _sections(study, ""):
        values = section.model_dump(mode="json")
        keys = {key: digest(value) for key, value in values.items()}
        digests.setdefault(type(section).__name__, {})[place] = keys
    return digests


def _sections(value: Any, place: str) -> Iterator[tuple[str, Section]]:
    """Every section below a value of the config, with its place, as `saes.main.train`."""
    if isinstance(value, Section):
        yield place, value
        inner = {key: getattr(value, key) for key in type(value).model_fields}
    elif isinstance(value, dict):
        inner = value
    elif isinstance(value, list | tuple):
        inner = {str(index): item for index, item in enumerate(value)}
    else:
        inner = {}
    for key, item in inner.items():
        yield from _sections(item, f"{place}.{key}".removeprefix("."))
