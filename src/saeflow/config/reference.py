"""The reference of the config for the docs, generated from the sections.

``python -m saeflow.kinds [REPOSITORY]`` writes it and the JSON schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_origin

from pydantic.fields import FieldInfo

from saeflow.config.goal import Goal
from saeflow.config.hooks import HOOK
from saeflow.config.schema import json_schema, prose
from saeflow.config.section import (
    DIGEST,
    NAME,
    NOT_BLANK,
    REPOSITORY,
    Section,
    section_in,
)

REFERENCE = Path("docs/reference-config.md")
OPENING = """\
<!-- Generated from the sections of saeflow.config by `python -m saeflow.kinds`; edit those. -->

# Reference: the config

A study is one YAML file. `config.yaml` in the repository is the default study; `snakemake
--configfile my-study.yaml` runs another in its place. A second file after it is merged over the
first, key by key; what `--config` says stands over all files. Keys that are left out take the
defaults below, so a config holds what makes the study different. Before anything runs, the config
is checked as a whole: an unknown key, a value of another type or out of its range, and keys that
contradict each other are refused, each with one line that names the key and the reason.

Four things to know about the values. Text is never taken for a number: write `3.0e-4`, since YAML
reads `3e-4` as text. `null` means none, and undoes a key of an earlier file (`train: null`). In
paths of this machine `${NAME}` is replaced by the environment variable, and `~/` at the beginning
by the home folder. Threads, devices and batch sizes of a machine are no part of a study: they are
set by Snakemake's options and profiles.
"""
KIND_OPENING = """\
A config with `kind: {kind}` has these keys, closed as the others are.
`workflow/studies/{kind}.yaml` is such a study.
"""
GOAL_OPENING = """\
Each goal of [`steering.goals.names`](#steeringgoals) is described by a file `<name>.yaml` in
`steering.goals.directory`. Latents are numbered from 0: `latents: {main: {17: 1.0, 203: 0.5}}`.
"""
PATTERNS = {
    NAME: "name",
    HOOK: "hook",
    REPOSITORY: "owner/name",
    NOT_BLANK: "text",
    DIGEST: "SHA-256",
}
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}


class Place(NamedTuple):
    """A section, and where the config holds it."""

    paths: list[str]
    section: type[Section]
    kind: str
    """What is said of a section that only another kind of study has."""

    @property
    def heading(self) -> str:
        """Its paths, such as ```effects.sampling`, `steering.sampling```."""
        return ", ".join(f"`{path}`" for path in self.paths) + self.kind

    @property
    def anchor(self) -> str:
        """What Markdown makes of the heading."""
        return re.sub(r"[^\w -]", "", self.heading).replace(" ", "-").lower()


def reference(kinds: Mapping[str, type[Section]]) -> str:
    """The page: a table of key, type, default and meaning per section, in the order of the config.

    Args:
        kinds: the whole config of every kind of study; a section that several have is told once.
    """
    parts = [OPENING]
    places: list[Place] = []
    for kind, study in kinds.items():
        own = _places(study, f" of {kind}" if places else "", places)
        if places:
            parts += [f"## A study of {kind}\n", KIND_OPENING.format(kind=kind)]
        places = places + own
        parts.append(_table(study, "", places))
        for place in own:
            table = _table(place.section, place.paths[0], places)
            parts.append(f"## {place.heading}\n\n{prose(str(place.section.__doc__))}\n\n{table}")
    parts += ["## Goal files\n", GOAL_OPENING, _table(Goal, "", [])]
    return "\n".join(parts)


def _places(study: type[Section], kind: str, earlier: list[Place]) -> list[Place]:
    """Every section below a study that no earlier one has, once, with all its paths."""
    places: dict[type[Section], Place] = {}
    for path, section in _walk(study, ""):
        if section not in [place.section for place in earlier]:
            places.setdefault(section, Place([], section, kind)).paths.append(path)
    return list(places.values())


def _walk(section: type[Section], path: str) -> Iterator[tuple[str, type[Section]]]:
    for key, field in section.model_fields.items():
        if held := section_in(field.annotation):
            name = ".<name>" if get_origin(field.annotation) is dict else ""
            below = f"{path}.{key}{name}".strip(".")
            yield below, held
            yield from _walk(held, below)


def _table(section: type[Section], path: str, places: list[Place]) -> str:
    schema = json_schema(section)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        held = section_in(field.annotation)
        link = next(
            (f"[{place.heading}](#{place.anchor})" for place in places if place.section is held),
            None,
        )
        kind = (
            _linked(schema["properties"][key], link) if link else _type(schema["properties"][key])
        )
        meaning = prose(field.description or str((section_in(field.annotation) or Section).__doc__))
        cells = [f"`{key}`", kind, _default(field, link), meaning]
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _linked(schema: dict[str, Any], link: str) -> str:
    """A key that holds a section, or a list whose items may be plain or hold it."""
    plain = [
        _type(option)
        for option in schema.get("items", {}).get("oneOf", [])
        if option.get("type") != "array"
    ]
    return f"list of {' or '.join(plain)} or list of {link}" if plain else link


def _default(field: FieldInfo, link: str | None) -> str:
    if field.is_required():
        return "required"
    if link and field.default is not None and not isinstance(field.default, list):
        return "its defaults"
    return f"`{json.dumps(field.default, ensure_ascii=False)}`"


def _type(schema: dict[str, Any]) -> str:
    """A key's schema in words: ``integer ≥ 1 or null``."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(option) for option in reversed(options))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        least = f", at least {schema['minItems']}" if "minItems" in schema else ""
        return f"list of {_type(schema['items'])}{least}"
    if schema["type"] == "object":
        if named := schema.get("patternProperties"):
            return f"by name: {_type(next(iter(named.values())))}"
        return f"by latent: {_type(schema['additionalProperties'])}"
    if schema["type"] == "string":
        return PATTERNS.get(schema.get("pattern", ""), schema.get("format", "text"))
    bounds = [words.format(schema[bound]) for bound, words in BOUNDS.items() if bound in schema]
    return " ".join([schema["type"], ", ".join(bounds)]).strip()
