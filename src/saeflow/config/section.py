"""What every section of the config is built from: a closed base, kinds of text, and contradictions that name keys."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

T = TypeVar("T")
Complaint = tuple[str, str]  # the key, relative to the section that complains ("" is the section itself), and a reason

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+$"
HOOK = (
    r"^blocks\.(0|[1-9][0-9]*)\."
    r"(hook_resid_pre|hook_resid_mid|hook_resid_post|hook_mlp_out|hook_attn_out|mlp\.hook_in|attn\.hook_z)$"
)
CHESS_HOOK = r"^blocks\.(0|[1-9][0-9]*)\.(attn|attn_out|mlp|resid_post)$"
NOT_BLANK = r"\S"
DIGEST = r"^[0-9a-f]{64}$"

# What a complaint says in place of each pattern.
IN_WORDS = {
    NAME: "must open with a letter or digit and hold only letters, digits, '_', '.' and '-'; it is part of file names",
    REPOSITORY: "must name a hub repository as owner/name",
    HOOK: "must be a TransformerLens name such as blocks.2.hook_resid_post",
    CHESS_HOOK: "must be attn, attn_out, mlp or resid_post of a block, such as blocks.1.resid_post",
    NOT_BLANK: "must not be blank",
    DIGEST: "must be a SHA-256 as 64 digits 0-9 and a-f",
}


class Section(BaseModel):
    """A closed section: an unknown key is an error, a value is never coerced from another type's text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a key holds, also where it may be null or is one of several by name; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


class ContradictionError(ValueError):
    """Keys that deny each other, all told at once.

    Args:
        complaints: keys and reasons.
    """

    def __init__(self, *complaints: Complaint) -> None:
        super().__init__("; ".join(f"{key}: {reason}" if key else reason for key, reason in complaints))
        self.complaints = complaints


def refuse(complaints: list[Complaint]) -> None:
    """Raise a `ContradictionError` if there is anything to complain about."""
    if complaints:
        raise ContradictionError(*complaints)


def _unique(items: list[T]) -> list[T]:
    if twice := [repr(item) for index, item in enumerate(items) if items.index(item) < index]:
        raise ValueError(f"{', '.join(dict.fromkeys(twice))} appears twice; keep one")
    return items


def _without_wildcards(path: str) -> str:
    if re.search(r"\{.*\}", path):
        raise ValueError(f"{path!r} holds braces, which Snakemake takes for wildcards; move it, or name a link to it")
    return path


Name = Annotated[str, Field(pattern=NAME, max_length=64)]
HookName = Annotated[str, Field(pattern=HOOK)]
Text = Annotated[str, Field(pattern=NOT_BLANK)]
InputPath = Annotated[Text, AfterValidator(_without_wildcards)]  # of what rules name among their inputs
Names = Annotated[list[Name], AfterValidator(_unique)]
Examples = Annotated[list[Text], Field(min_length=2), AfterValidator(_unique)]
Unique = AfterValidator(_unique)
