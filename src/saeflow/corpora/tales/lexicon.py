"""The words of the grammar: classes of inflected words, each word belonging to one topic or to
neutral."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

TOPICS: tuple[str, ...] = (
    "neutral",
    "anger",
    "christian_evangelist",
    "conspiracy",
    "french",
    "london",
    "love",
    "praise",
    "want_to_die",
    "wedding",
)

NOUNS = ("person", "kin", "animal", "thing")
VERBS = (
    "wait",
    "go",
    "handle",
    "meet",
    "give",
    "say",
    "think",
    "want",
    "eat",
    "sip",
    "appear",
    "blow",
)
FRENCH_NOUNS = ("homme", "femme", "objet", "chose", "jardin", "maison")
FRENCH_ADJECTIVES = ("devant", "humeur", "couleur")
FRENCH_VERBS = ("agir", "traiter")
CLOSED = ("somebody", "outcry")  # neutral words of these classes are function words

NOUN_FORMS = ("sg", "pl")
VERB_FORMS = ("base", "third", "past", "ing", "participle")
FRENCH_ADJECTIVE_FORMS = ("m_sg", "f_sg", "m_pl", "f_pl")
FRENCH_VERB_FORMS = ("je", "tu", "il", "ils")


class Entry(NamedTuple):
    """One inflected word of a class."""

    word: str
    topic: int
    """Index into `TOPICS`."""
    weight: float
    """Relative frequency among the words of its class and topic."""


def _regular_noun(base: str) -> list[str]:
    if base.endswith(("s", "x", "ch", "sh")):
        return [base, base + "es"]
    if base.endswith("y") and base[-2] not in "aeiou":
        return [base, base[:-1] + "ies"]
    return [base, base + "s"]


def _regular_verb(base: str) -> list[str]:
    if base.endswith("e"):
        return [base, base + "s", base + "d", base[:-1] + "ing"]
    if base.endswith("y") and base[-2] not in "aeiou":
        return [base, base[:-1] + "ies", base[:-1] + "ied", base + "ing"]
    third = base + ("es" if base.endswith(("s", "x", "ch", "sh")) else "s")
    return [base, third, base + "ed", base + "ing"]


def _regular_french_adjective(base: str) -> list[str]:
    feminine = base if base.endswith("e") else base + "e"
    return [base, feminine, base + "s", feminine + "s"]


def _regular_french_verb(first: str) -> list[str]:
    return [first, first + "s", first, first + "nt"]


def inflect(word_class: str, entry: str) -> dict[str, str]:
    """The forms of one entry of a lexicon file, by form name; an uninflected word has the one form
    ``""``.

    Args:
        word_class: the key of the file under which the entry stands; it decides the part of speech.
        entry: a base form, or all forms with slashes between them.
    """
    forms = entry.split("/")
    irregular = len(forms) > 1
    if word_class in NOUNS:
        return dict(zip(NOUN_FORMS, forms if irregular else _regular_noun(entry), strict=True))
    if word_class in VERBS:
        forms = forms if irregular else _regular_verb(entry)
        return dict(zip(VERB_FORMS, forms if len(forms) == 5 else [*forms, forms[2]], strict=True))
    if word_class in FRENCH_NOUNS:
        return dict(zip(NOUN_FORMS, forms if irregular else [entry, entry + "s"], strict=True))
    if word_class in FRENCH_ADJECTIVES:
        forms = forms if irregular else _regular_french_adjective(entry)
        return dict(zip(FRENCH_ADJECTIVE_FORMS, forms, strict=True))
    if word_class in FRENCH_VERBS:
        forms = forms if irregular else _regular_french_verb(entry)
        return dict(zip(FRENCH_VERB_FORMS, forms, strict=True))
    return {"": entry}


@cache
def lexicon() -> dict[str, list[Entry]]:
    """All classes of inflected words: ``"person.pl"`` → neighbours, teachers, …, of all topics.

    Within a class and a topic, the word at place ``i`` has weight ``1 / (i + 3)``: skewed, but
    every word is met often enough to be learnt.
    """
    classes: dict[str, list[Entry]] = {}
    for topic, name in enumerate(TOPICS):
        path = Path(__file__).parent / "lexicon" / f"{name}.yaml"
        for word_class, entries in yaml.load(path.read_text("utf-8"), yaml.BaseLoader).items():
            for place, entry in enumerate(entries):
                for form, word in inflect(word_class, entry).items():
                    key = f"{word_class}.{form}" if form else word_class
                    classes.setdefault(key, []).append(Entry(word, topic, 1 / (place + 3)))
    return classes


def is_content(word_class: str, topic: int) -> bool:
    """Whether a word of this class and topic counts as a content word."""
    return topic != 0 or word_class.split(".")[0] not in CLOSED
