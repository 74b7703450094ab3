"""Texts of strangers as a terminal may show them."""

from __future__ import annotations

import unicodedata

_SHOWN = "\n\t"
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of Unicode that steer a terminal or turn the direction of writing, rather than show
something."""


def printable(text: str) -> str:
    """A text with every control and format character spelled out, so that a file cannot steer the
    terminal.

    Line feeds and tabs stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        repr(char)[1:-1] if char not in _SHOWN and unicodedata.category(char) in _HIDDEN else char
        for char in text
    )
