"""Word lists: which words of a text a goal's list names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

from saeflow.errors import SaeflowError

WORD = re.compile(r"\w+(?:['’]\w+)*")
UNIT = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # a word or one punctuation mark
# An entry may be followed by a possessive ('s) but by no other letters: "can" is not in "can't".
_END = r"(?!\w)(?!['’](?!s\b)\w)"


def folded(text: str) -> str:
    """Text as it is compared: composed accents, no case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def word_pattern(entries: Iterable[str]) -> re.Pattern[str]:
    """Compile a goal's word list.

    An entry is a word or a phrase of words separated by white space; a trailing ``*`` stands for
    any further letters of its last word. Entries match whole words, whatever their case.

    Returns:
        A pattern for folded text that matches, with zero width, wherever an entry begins; its group
        1 is the entry.

    Raises:
        SaeflowError: an entry is empty or has a ``*`` elsewhere than at its end.
    """
    phrases = [entry.split() for entry in entries]
    alternatives = [
        _alternative(phrase) for phrase in sorted(phrases, key=lambda words: (-len(words), words))
    ]
    if not alternatives:
        raise SaeflowError("words: the list is empty; name the words that show the behaviour")
    # A look-ahead, so that phrases may overlap ("wedding dress" and "dress shop"); longer phrases
    # are tried first.
    return re.compile(rf"(?<!\w)(?=((?:{'|'.join(alternatives)})))")


def _alternative(phrase: list[str]) -> str:
    entry = " ".join(phrase)
    stem = entry.removesuffix("*")
    if not stem or "*" in stem or stem.endswith(" "):
        raise SaeflowError(
            f"words: '{entry}' is not an entry; write words, with at most one * at the very end"
        )
    pattern = r"\s+".join(re.escape(word) for word in folded(stem).split())
    return pattern + (r"\w*" if entry.endswith("*") else "") + _END


def matched_share(text: str, pattern: re.Pattern[str]) -> float:
    """Share of a text's words that belong to an entry of a compiled list; 0 for a text without
    words.

    Every word of a matched phrase counts, and none counts twice.
    """
    text = folded(text)
    words = [match.span() for match in WORD.finditer(text)]
    entries = [match.span(1) for match in pattern.finditer(text)]
    named = sum(
        any(start < end_ and start_ < end for start_, end_ in entries) for start, end in words
    )
    return named / len(words) if words else 0.0


def units(text: str) -> list[str]:
    """The words and punctuation marks of a text, folded, in order."""
    return UNIT.findall(folded(text))


def distinct_bigram_share(sequence: Sequence[str]) -> float:
    """Distinct bigrams divided by bigrams; 1 where there are none. Falls towards 0 in a loop."""
    bigrams = list(pairwise(sequence))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0
