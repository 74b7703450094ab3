"""What a model that reads says of labels, for the endpoint on loopback: it compares words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

WORD = re.compile(r"[a-z]{4,}")
LISTED = re.compile(r"(\d+)\. (.*)")
MARKED = re.compile(r"<<(.*?)>>")


def words_of(text: str) -> set[str]:
    """The words of a text that may mean something."""
    return set(WORD.findall(text.lower()))


def answer_of(asked: dict[str, Any], label: str, passages: Sequence[str]) -> dict[str, Any] | None:
    """The answer to a question about a label, by the key that its schema names; None where it is
    about something else.

    Args:
        asked: properties of the schema.
        label: empty where none is told.
        passages: texts.
    """
    meant = words_of(label)
    if "marks" in asked:
        marked = [" ".join(MARKED.findall(text)) or text for text in passages]
        return {"marks": [int(bool(meant & words_of(text))) for text in marked]}
    if "strengths" in asked:
        listed = (LISTED.match(line) for text in passages for line in text.split("\n"))
        return {"strengths": [[int(line[1]), 10] for line in listed
                              if line and meant & words_of(line[2])]}  # fmt: skip
    if "intruder" in asked:
        shared = Counter(word for text in passages for word in words_of(text))
        common = [max((shared[word] for word in words_of(text)), default=0) for text in passages]
        return {"intruder": common.index(min(common)) + 1}
    if "explanation" in asked:
        said = Counter(word for text in passages for word in MARKED.findall(text))
        return {"explanation": ", ".join(word for word, _ in said.most_common(3))}
    if "passage" in asked:
        return {"passage": " ".join(sorted(meant))}
    return None
