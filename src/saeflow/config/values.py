"""What no config may hold, whichever key it stands at: values without end, and values that files
cannot keep."""

from __future__ import annotations

from typing import Any

from saeflow.config.section import Complaint
from saeflow.errors import SaeflowError

MOST_VALUES = 200_000
"""A YAML file of a kilobyte can stand for billions, by names for values that hold one another."""
DEEPEST = 50
LARGEST = 2**63 - 1


def refuse_endless(values: Any, source: str) -> None:
    """Refuse what can be read and not walked through: values that hold themselves, or very deep or
    very many ones.

    Raises:
        SaeflowError: which of these they are.
    """
    sizes: dict[int, int] = {}

    def size(value: Any, depth: int) -> int:
        if not isinstance(value, (dict, list, tuple, set)):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = 0  # as long as it is walked through
            if depth > DEEPEST:
                raise SaeflowError(
                    f"{source}: is nested deeper than {DEEPEST} levels; a study is not"
                )
            parts = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size(part, depth + 1) for part in parts)
        if not sizes[id(value)]:
            raise SaeflowError(f"{source}: holds a value that holds itself; write it out")
        return sizes[id(value)]

    if (count := size(values, 0)) > MOST_VALUES:
        raise SaeflowError(
            f"{source}: stands for {count} values; the most that a study may hold is {MOST_VALUES}"
        )


def unwritable(value: Any, key: str = "") -> list[Complaint]:
    """What no file or command could be given, as the dotted key and the reason.

    Args:
        value: what `refuse_endless` lets pass.
        key: where it stands.
    """
    if isinstance(value, dict):
        return [
            fault
            for name, held in value.items()
            for fault in unwritable(held, f"{key}.{name}".strip("."))
        ]
    if isinstance(value, (list, tuple)):
        return [
            fault
            for place, held in enumerate(value)
            for fault in unwritable(held, f"{key}.{place}".strip("."))
        ]
    if isinstance(value, int) and abs(value) > LARGEST:
        return [(key, f"must be a number of at most 64 bits, {LARGEST}")]
    if isinstance(value, str) and "\0" in value:
        return [(key, "holds the character NUL, which no path and no command can hold; remove it")]
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return [
            (
                key,
                (
                    "holds half of a character (a lone surrogate), which no file can hold; write "
                    "the whole one"
                ),
            )
        ]
    return []
