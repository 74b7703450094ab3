"""Pydantic's complaints in a newcomer's words: the dotted key and one reason."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, get_origin

import yaml
from pydantic import ValidationError

from saeflow.config.section import IN_WORDS, Complaint, ContradictionError, Section, section_in
from saeflow.counting import counted


def complaints_of(error: ValidationError) -> Iterator[Complaint]:
    """Each thing that is wrong, as its dotted key ("" is the whole) and the reason.

    Args:
        error: what a section raised.
    """
    sections = {section.__name__: section for section in _below(Section)}
    for item in error.errors():
        # "[key]" marks a complaint about a key rather than its value; "[text]", "[messages]" a kind
        # of prompt.
        place = tuple(part for part in item["loc"] if not str(part).startswith("["))
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ContradictionError):
            yield from ((_dotted(*place, key), reason) for key, reason in cause.complaints)
        else:
            yield _dotted(*place), _reason(item, sections[error.title], place)


def _below(section: type[Section]) -> Iterator[type[Section]]:
    """Every section there is: some are built on others."""
    for derived in section.__subclasses__():
        yield derived
        yield from _below(derived)


def _dotted(*place: Any) -> str:
    return ".".join(str(part) for part in place if part != "")


def _reason(item: Any, section: type[Section], place: tuple[Any, ...]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            if meant := _meant(section, place):
                top = " at the top" if meant == [place[-1]] else ""
                return f"is not a known key; did you mean {' or '.join(map(repr, meant))}{top}?"
            keys = _section_at(section, place[:-1]).model_fields
            return f"is not a known key; known here: {', '.join(keys)}"
        case "invalid_key":
            return f"a key must be text; got {shown(value)}{_hint(kind, value)}"
        case "value_error":
            return str(context["error"])
        case "string_pattern_mismatch":
            return f"{IN_WORDS[context['pattern']]}; got {shown(value)}"
        case "too_short":
            least, length = context["min_length"], context["actual_length"]
            return f"must hold at least {counted(least, 'item')}; it holds {length}"
        case "model_type" | "dict_type":
            return f"must hold keys and values; got {shown(value)}"
        case "list_type":
            return f"must be a list; got {shown(value)}{_hint(kind, value)}"
    rule = re.sub(r"^(Input|String|List|Dictionary) should ", "must ", item["msg"])
    return f"{rule}; got {shown(value)}{_hint(kind, value, str(context.get('expected', '')))}"


def shown(value: Any) -> str:
    """A value as YAML users know it, cut to fit a line."""
    text = "nothing" if value is None else repr(value)
    if isinstance(value, bool):
        text = text.lower()
    return text if len(text) < 60 else text[:57] + "..."


def _hint(kind: str, value: Any, expected: str = "") -> str:
    """What to write instead, for the traps of YAML."""
    if kind == "list_type" and isinstance(value, str):
        return f" (write [{value}])" if len(value) < 40 else ""
    if (
        kind in ("string_type", "invalid_key")
        and value is not None
        and not isinstance(value, (list, dict))
    ):
        return ' (put it in quotes: "...")'
    if kind == "literal_error" and isinstance(value, str):
        near = difflib.get_close_matches(value, re.findall(r"'([^']+)'", expected), n=1)
        return f"; did you mean {near[0]!r}?" if near else ""
    if kind not in ("int_type", "float_type") or not isinstance(value, (str, float)):
        return ""
    try:
        number = float(value)
        if kind == "int_type":
            return f" (write {int(number)})" if number.is_integer() else ""
        written = yaml.safe_dump(number).split()[0]
    except (ValueError, OverflowError):
        return ""
    why = f"YAML reads {value} as text: " if "e" in str(value).lower() else ""
    return f" ({why}write {written})"


MOST_MEANT = 3


def _meant(section: type[Section], place: tuple[Any, ...]) -> list[str]:
    """What an unknown key may mean: one beside it by its own name, one elsewhere by all names.

    Nearest is a key of its name further down, as where sections were divided; then one beside it
    that is spelt alike; then one of its name that stands further up, or in a single place.
    """
    *above, key = map(str, place)
    here = _section_at(section, place[:-1])
    below = [".".join([*above, *path]) for path in _paths(here) if len(path) > 1]
    if 0 < len(same := _named(key, below)) <= MOST_MEANT:
        return same
    if close := difflib.get_close_matches(key, here.model_fields, n=1):
        return close
    if part := [name for name in here.model_fields if key in name.split("_")]:
        return part[:1]
    names = [path.rpartition(".")[2] for path in below]
    if above and (close := difflib.get_close_matches(key, names, n=2)):
        return [path for name in close for path in _named(name, below)][:MOST_MEANT]
    around = [place[:depth] for depth in reversed(range(len(above)))]
    for outer in around:
        if key in _section_at(section, outer).model_fields:
            return [_dotted(*outer, key)]
    everywhere = _named(key, map(".".join, _paths(section)))
    return everywhere if len(everywhere) == 1 else []


def _named(name: str, paths: Iterable[str]) -> list[str]:
    """The dotted keys whose last part is a name, the shortest first."""
    return sorted((path for path in paths if path.rpartition(".")[2] == name), key=_depth)


def _depth(path: str) -> int:
    return path.count(".")


@cache
def _paths(section: type[Section]) -> tuple[list[str], ...]:
    """Every key of a section and of those within it; NAME stands for the names of several."""
    paths: list[list[str]] = []
    for key, field in section.model_fields.items():
        paths.append([key])
        held = field.annotation
        if get_origin(held) is not list and (inner := section_in(held)):
            several = ["NAME"] if get_origin(held) is dict else []
            paths += ([key, *several, *path] for path in _paths(inner))
    return tuple(paths)


def _section_at(section: type[Section], place: tuple[Any, ...]) -> type[Section]:
    """The section at a place of the config."""
    parts = iter(place)
    for part in parts:
        if isinstance(part, int):  # the number of one of a list
            continue
        held = section.model_fields[part].annotation
        if get_origin(held) is dict:
            next(parts, None)  # the name of one of several, such as an SAE's
        section = section_in(held) or section
    return section
