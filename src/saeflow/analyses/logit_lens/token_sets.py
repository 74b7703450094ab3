"""Token sets of a vocabulary: by form, spelling, part of speech, and those of the user."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from saeflow.config import TokenSet
from saeflow.errors import SaeflowError
from saeflow.models.vocabulary import Vocabulary

Members = Int32[np.ndarray, " members"]
Test = Callable[[str], bool]
_BROKEN = re.compile(r"(?:\\x[0-9a-f]{2})+")
_LENGTHS = range(1, 6)
_DIGITS = range(1, 5)


class MemberSet(NamedTuple):
    """Some of a vocabulary's tokens."""

    name: str
    kind: str
    description: str
    members: Members
    """Places in the vocabulary, increasing."""
    left_out: str | None = None
    """Why it is not looked at, where it is not."""


class Spelling(NamedTuple):
    """A built-in set: the tokens whose word passes a test. The word is the text without the one
    space before it."""

    kind: str
    description: str
    holds: Test


def _all_of(category: str) -> Test:
    return lambda word: all(unicodedata.category(letter).startswith(category) for letter in word)


def _any_of(category: str) -> Test:
    return lambda word: any(unicodedata.category(letter).startswith(category) for letter in word)


def _only(letters: str) -> Test:
    return lambda word: set(word) <= set(letters)


def _digits(count: int) -> Test:
    return lambda word: word.isascii() and word.isdigit() and len(word) == count


def _letters(count: int) -> Test:
    return lambda word: word.isalpha() and len(word) == count


def _opening(letter: str) -> Test:
    return lambda word: word[0].lower() == letter and word.isalpha()


SPELLINGS: dict[str, Spelling] = {
    "starts_with_capital": Spelling(
        "form", "first letter is a capital", lambda word: word[0].isupper()
    ),
    "starts_with_lower": Spelling(
        "form", "first letter is lower case", lambda word: word[0].islower()
    ),
    "all_caps": Spelling(
        "form", "two or more letters, all capitals", lambda word: len(word) > 1 and word.isupper()
    ),
    "whitespace": Spelling(
        "form", "nothing but blanks and line breaks", lambda word: word.isspace()
    ),
    "not_ascii": Spelling("form", "letters or signs beyond ASCII", lambda word: not word.isascii()),
    "broken_bytes": Spelling(
        "form", "bytes that are no whole character", lambda word: bool(_BROKEN.fullmatch(word))
    ),
    "digits": Spelling(
        "digits", "nothing but digits", lambda word: word.isascii() and word.isdigit()
    ),
    **{f"digits_{n}": Spelling("digits", f"a number of {n} digits", _digits(n)) for n in _DIGITS},
    "punctuation": Spelling("punctuation", "nothing but punctuation marks", _all_of("P")),
    "sentence_end": Spelling(
        "punctuation", "full stop, question or exclamation mark", _only(".!?…。！？")
    ),
    "pause": Spelling("punctuation", "comma, semicolon or colon", _only(",;:，、；：")),
    "quotes": Spelling("punctuation", "quotation marks and apostrophes", _only("\"'`“”‘’„«»‹›")),
    "dashes": Spelling("punctuation", "hyphens and dashes", _all_of("Pd")),
    "symbols": Spelling("punctuation", "signs of mathematics, currency and others", _all_of("S")),
    "open_bracket": Spelling("punctuation", "an opening bracket in it", _any_of("Ps")),
    "close_bracket": Spelling("punctuation", "a closing bracket in it", _any_of("Pe")),
    **{f"length_{n}": Spelling("length", f"a word of {n} letters", _letters(n)) for n in _LENGTHS},
    "length_6_up": Spelling(
        "length", "a word of six letters or more", lambda word: word.isalpha() and len(word) > 5
    ),
    **{
        f"letter_{x}": Spelling("first letter", f"a word that begins with {x}", _opening(x))
        for x in string.ascii_lowercase
    },
}


def token_sets(
    vocabulary: Vocabulary,
    kinds: Sequence[str],
    smallest: int,
    files: Mapping[str, Mapping[str, TokenSet]],
) -> list[MemberSet]:
    """All token sets of a vocabulary: those built in, in a fixed order, then those of the user.

    Args:
        vocabulary: the vocabulary.
        kinds: of built-in sets.
        smallest: built-in sets with fewer members are left out, and say so.
        files: the user's sets by name, by the file they stand in.

    Raises:
        SaeflowError: a set of the user has no member in the vocabulary, holds all of it, or has the
            name of another.
    """
    words = [word_of(text) for text in vocabulary.texts]
    ordinary = np.flatnonzero(~vocabulary.special).tolist()
    built_in = [
        member_set
        for member_set in _built_in(vocabulary, words, ordinary)
        if member_set.kind in kinds
    ]
    listed = [
        member_set if member_set.left_out else _of_use(member_set, smallest, len(words))
        for member_set in built_in
    ]
    names = {member_set.name for member_set in listed}
    for file, sets in files.items():
        for name, described in sets.items():
            if name in names:
                raise SaeflowError(
                    f"{file}: sets.{name}: there is another set of that name; choose another"
                )
            names.add(name)
            listed.append(_of_user(f"{file}: sets.{name}", name, described, vocabulary))
    return listed


def word_of(text: str) -> str:
    """The text of a token without the one space before it."""
    return text[1:] if text[:1] == " " and len(text) > 1 else text


def holder(described: TokenSet) -> Test:
    """What tells whether the text of a token, with the space before it, is of a set of the user."""
    exact = {word.strip() for word in described.words}
    folded = {word for word in exact if word == word.lower()}
    pattern = re.compile(described.pattern) if described.pattern is not None else None

    def holds(text: str) -> bool:
        word = word_of(text)
        listed = word in exact or word.lower() in folded
        return listed or (pattern is not None and pattern.search(text) is not None)

    return holds


def _of_use(member_set: MemberSet, smallest: int, tokens: int) -> MemberSet:
    """The set, or in its place the reason why it is left out."""
    if smallest <= len(member_set.members) < tokens:
        return member_set
    size = (
        "all tokens"
        if len(member_set.members) == tokens
        else f"{len(member_set.members)} tokens, fewer than {smallest}"
    )
    return member_set._replace(members=member_set.members[:0], left_out=size)


def _built_in(vocabulary: Vocabulary, words: list[str], ordinary: list[int]) -> Iterator[MemberSet]:
    if vocabulary.marks_space:
        spaced = [place for place in ordinary if vocabulary.texts[place] != words[place]]
        yield _set("starts_with_space", "form", "opens a word: a space before it", spaced)
        bare = [
            place
            for place in ordinary
            if vocabulary.texts[place] == words[place] and words[place].isalpha()
        ]
        yield _set(
            "continues", "form", "letters that go on with a word: no space before them", bare
        )
    yield _set("special", "form", "special tokens", np.flatnonzero(vocabulary.special).tolist())
    texts = [(place, words[place]) for place in ordinary if words[place]]
    for name, (kind, description, holds) in SPELLINGS.items():
        yield _set(name, kind, description, [place for place, word in texts if holds(word)])
    whole = [
        (place, word)
        for place, word in texts
        if word.isalpha() and not (vocabulary.marks_space and vocabulary.texts[place] == word)
    ]
    yield from _tagged(whole)
    yield from _names(whole)


def _tagged(words: list[tuple[int, str]]) -> Iterator[MemberSet]:
    """Sets by the Penn Treebank tag of each word alone; one set that is left out where nltk or its
    data is absent."""
    try:
        import nltk

        by_tag: dict[str, list[int]] = defaultdict(list)
        tags: dict[str, str] = {}
        for place, word in words:
            if word not in tags:
                tags[word] = nltk.pos_tag([word])[0][1]
            by_tag[tags[word]].append(place)
    except (ImportError, LookupError) as error:
        yield _absent("part_of_speech", "part of speech", "words by part of speech", error)
        return
    for tag in sorted(by_tag):
        yield _set(
            f"tag_{tag}",
            "part of speech",
            f"words that nltk tags {tag} when they stand alone",
            by_tag[tag],
        )


def _names(words: list[tuple[int, str]]) -> Iterator[MemberSet]:
    """First names by gender, from nltk's list; a name of both genders is in both sets."""
    try:
        from nltk.corpus import names

        lists = {gender: set(names.words(f"{gender}.txt")) for gender in ("female", "male")}
    except (ImportError, LookupError) as error:
        yield _absent("first_names", "name", "first names", error)
        return
    for gender, listed in lists.items():
        places = [place for place, word in words if word in listed]
        yield _set(f"{gender}_names", "name", f"{gender} first names of nltk's list", places)


def _absent(name: str, kind: str, description: str, error: Exception) -> MemberSet:
    missing = (
        "nltk is not installed"
        if isinstance(error, ImportError)
        else "nltk's data is not installed"
    )
    return MemberSet(name, kind, description, np.empty(0, np.int32), missing)


def _set(name: str, kind: str, description: str, places: Sequence[int]) -> MemberSet:
    return MemberSet(name, kind, description, np.array(places, np.int32))


def _of_user(where: str, name: str, described: TokenSet, vocabulary: Vocabulary) -> MemberSet:
    holds = holder(described)
    places = [
        place
        for place, text in enumerate(vocabulary.texts)
        if not vocabulary.special[place] and holds(text)
    ]
    if not places:
        raise SaeflowError(
            f"{where}: {_nothing(described)}; a word must be one token of the model's vocabulary"
        )
    if len(places) == len(vocabulary.texts):
        raise SaeflowError(f"{where}: holds every token of the vocabulary; narrow it")
    description = described.description or _meaning(described)
    return _set(name, "user", description, places)


def _nothing(described: TokenSet) -> str:
    parts = []
    if described.words:
        parts.append(
            f"none of its {len(described.words)} words is a token ('{described.words[0]}' …)"
        )
    if described.pattern is not None:
        parts.append(f"no token matches {described.pattern!r}")
    return " and ".join(parts)


def _meaning(described: TokenSet) -> str:
    listed = ", ".join(described.words[:3]) + (" …" if len(described.words) > 3 else "")
    return " or ".join(
        part for part in (listed, described.pattern and f"matches {described.pattern}") if part
    )
