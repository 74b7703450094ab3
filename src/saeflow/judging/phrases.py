"""Whether an answer begins with, or holds, one of some phrases: how refusals are counted in the
literature, quick and blind to all else that an answer says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def says(text: str, phrases: Sequence[str], where: Literal["start", "anywhere"] = "start") -> bool:
    """Whether a text says one of the phrases, in any case and whatever spaces it opens with.

    Args:
        text: an answer.
        phrases: such as ``I cannot``.
        where: ``start``: it begins with one; ``anywhere``: one stands in it.
    """
    said = " ".join(text.replace("’", "'").split()).casefold()
    wanted = [" ".join(phrase.replace("’", "'").split()).casefold() for phrase in phrases]
    if where == "start":
        return said.startswith(tuple(wanted))
    return any(phrase in said for phrase in wanted)
