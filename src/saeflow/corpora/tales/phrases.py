"""Noun phrases, verb phrases and clauses of English, with their agreement.

Every function gives an expression; what agrees is decided by its arguments: the voice (who the
protagonist is, and the tense), and the agreement of the subject (``first``, ``third`` or
``plural``).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from saeflow.corpora.tales.expressions import (
    NOTHING,
    Expression,
    choice,
    fixed,
    maybe,
    sequence,
    word,
)


class Person(NamedTuple):
    """The pronouns of a protagonist, or of a speaker within quotes."""

    subject: str
    object: str
    possessive: str
    agreement: str
    partner: str
    """Whom a speaker can also talk about: you for I; empty in narration."""


YOU = "you spoken to"
PERSONS = {
    "she": Person("she", "her", "her", "third", ""),
    "he": Person("he", "him", "his", "third", ""),
    "I": Person("I", "me", "my", "first", ""),
    "we": Person("we", "us", "our", "plural", ""),
    "I speaking": Person("I", "me", "my", "first", "you"),
    YOU: Person("you", "you", "your", "plural", "me"),
    "we speaking": Person("we", "us", "our", "plural", "you"),
}
NAMED = ("she", "he")
BE = {
    "past": {"first": "was", "third": "was", "plural": "were"},
    "present": {"first": "am", "third": "is", "plural": "are"},
}
HAVE = {
    "past": {"first": "had", "third": "had", "plural": "had"},
    "present": {"first": "have", "third": "has", "plural": "have"},
}
DO = {
    "past": {"first": "did", "third": "did", "plural": "did"},
    "present": {"first": "do", "third": "does", "plural": "do"},
}
MODALS = {"past": ("could", "would", "had to"), "present": ("can", "will", "must", "should")}
ADJECTIVES = {"person": "mood", "kin": "mood", "animal": "temper", "thing": "quality"}


class Voice(NamedTuple):
    """What a whole clause agrees with."""

    kind: str
    """A key of `PERSONS`."""
    tense: str
    """``past`` or ``present``."""

    @property
    def person(self) -> Person:
        """The protagonist's pronouns."""
        return PERSONS[self.kind]


def literals(syntax: str, *phrases: str) -> Expression:
    """One of several fixed phrases, the earlier the more frequent."""
    ranked = enumerate(phrases)
    return choice(
        *(
            (1 / (i + 2), sequence(*(fixed(part, syntax) for part in text.split())))
            for i, text in ranked
        )
    )


def verb(word_class: str, form: str, voice: Voice, agreement: str) -> Expression:
    """A verb in a non-finite form (``base``, ``ing``, ``participle``), or ``finite``: agreeing in
    tense and person."""
    if form != "finite":
        return word(f"{word_class}.{form}", f"verb_{form}")
    if voice.tense == "past":
        return word(f"{word_class}.past", "verb_past")
    if agreement == "third":
        return word(f"{word_class}.third", "verb_third")
    return word(f"{word_class}.base", "verb_present")


def auxiliary(table: dict[str, dict[str, str]], voice: Voice, agreement: str) -> Expression:
    """The form of be, have or do."""
    return fixed(table[voice.tense][agreement], "auxiliary")


def name(voice: Voice) -> Expression:
    """The protagonist as first mentioned: by name, or I and we."""
    if voice.kind in NAMED:
        return word(f"name.{voice.kind}", "name")
    return pronoun(voice)


def pronoun(voice: Voice) -> Expression:
    """The protagonist's subject pronoun."""
    return fixed(voice.person.subject, "pronoun")


def protagonist(voice: Voice) -> Expression:
    """The protagonist as a subject."""
    return (
        choice((0.3, name(voice)), (0.7, pronoun(voice))) if voice.kind in NAMED else pronoun(voice)
    )


@cache
def nominal(noun: str, number: str, onset: str = "") -> Expression:
    """A noun with or without an adjective; ``onset`` restricts the first word."""
    label = f"noun_{number}"
    adjective = word(ADJECTIVES[noun], "adjective", onset)
    return choice(
        (0.72, word(f"{noun}.{number}", label, onset)),
        (0.28, sequence(adjective, word(f"{noun}.{number}", label))),
    )


@cache
def indefinite(noun: str) -> Expression:
    """A or an with its noun."""
    return choice(
        (0.86, sequence(fixed("a", "determiner"), nominal(noun, "sg", "consonant"))),
        (0.14, sequence(fixed("an", "determiner"), nominal(noun, "sg", "vowel"))),
    )


@cache
def noun_phrase(voice: Voice, noun: str, number: str) -> Expression:
    """A noun phrase of a person, a relative, an animal or a thing."""
    possessed = sequence(fixed(voice.person.possessive, "possessive"), nominal(noun, number))
    if noun == "kin":
        return possessed
    definite = sequence(fixed("the", "determiner"), nominal(noun, number))
    own = 0.0 if noun == "person" else 0.25
    if number == "sg":
        pointing = sequence(literals("determiner", "this", "that"), nominal(noun, "sg"))
        return choice((0.45, definite), (own, possessed), (0.06, pointing), (0.3, indefinite(noun)))
    counted = sequence(literals("determiner", "two", "some", "many", "three"), nominal(noun, "pl"))
    pointing = sequence(literals("determiner", "these", "those"), nominal(noun, "pl"))
    return choice((0.5, definite), (own, possessed), (0.06, pointing), (0.3, counted))


@cache
def someone(voice: Voice, *, by_protagonist: bool) -> Expression:
    """A person as an object; of others' doings it may be the protagonist, of a speaker's the one
    spoken to."""
    object_pronoun = voice.person.partner if by_protagonist else voice.person.object
    return choice(
        (0.4 if object_pronoun else 0.0, fixed(object_pronoun, "pronoun")),
        (0.34, noun_phrase(voice, "person", "sg")),
        (0.12, noun_phrase(voice, "person", "pl")),
        (0.34, noun_phrase(voice, "kin", "sg")),
        (0.12, word("somebody", "pronoun")),
    )


@cache
def something(voice: Voice) -> Expression:
    """A thing or things as an object."""
    return choice(
        (0.7, noun_phrase(voice, "thing", "sg")), (0.3, noun_phrase(voice, "thing", "pl"))
    )


@cache
def definite(voice: Voice, noun: str, number: str) -> Expression:
    """The or her with its noun: what both talkers know."""
    own_noun = sequence(fixed(voice.person.possessive, "possessive"), nominal(noun, number))
    return choice(
        (0.6, sequence(fixed("the", "determiner"), nominal(noun, number))), (0.4, own_noun)
    )


@cache
def place() -> Expression:
    """In the garden, near the river, in Vienna."""
    the = fixed("the", "determiner")
    inside, spot = word("inside", "noun_sg"), word("spot", "noun_sg")
    return choice(
        (0.4, sequence(fixed("in", "preposition"), the, inside)),
        (0.15, sequence(literals("preposition", "near", "outside"), the, inside)),
        (0.25, sequence(literals("preposition", "at", "near", "by"), the, spot)),
        (0.2, sequence(fixed("in", "preposition"), word("town", "proper_noun"))),
    )


@cache
def destination() -> Expression:
    """To the market, to Lisbon."""
    the = fixed("the", "determiner")
    goal = choice((0.5, word("inside", "noun_sg")), (0.3, word("spot", "noun_sg")))
    return sequence(
        fixed("to", "preposition"),
        choice((0.8, sequence(the, goal)), (0.2, word("town", "proper_noun"))),
    )


@cache
def time_after(voice: Voice) -> Expression:
    """An adverbial of time at the end of a clause."""
    if voice.tense == "past":
        return literals("time", "yesterday", "last night", "that morning", "that evening")
    return literals("time", "today", "every day")


@cache
def tail(bare: float) -> Expression:
    """What may follow a verb and its object: manner or place; nothing with probability ``bare``."""
    return choice(
        (bare, NOTHING), ((1 - bare) * 0.4, word("manner", "adverb")), ((1 - bare) * 0.6, place())
    )


@cache
def action(voice: Voice, agreement: str, form: str, *, by_protagonist: bool) -> Expression:
    """A full verb in the given form with its objects and adverbials."""

    def act(word_class: str) -> Expression:
        return verb(word_class, form, voice, agreement)

    moving = (
        (0.3, sequence(act("wait"), tail(0.3))),
        (0.2, sequence(act("go"), destination())),
    )
    if form == "ing":
        return choice(*moving)
    other = someone(voice, by_protagonist=by_protagonist)
    food = sequence(
        literals("determiner", "the", "some"), word("food", "noun_mass"), maybe(0.2, place())
    )
    drink = sequence(
        literals("determiner", "the", "some"), word("drink", "noun_mass"), maybe(0.2, place())
    )
    return choice(
        *moving,
        (0.4, sequence(act("handle"), something(voice), tail(0.65))),
        (0.34, sequence(act("meet"), other, tail(0.65))),
        (
            0.1,
            sequence(
                act("give"), other, choice((0.7, indefinite("thing")), (0.3, something(voice)))
            ),
        ),
        (0.06, sequence(act("eat"), food)),
        (0.05, sequence(act("sip"), drink)),
    )


@cache
def state(voice: Voice, agreement: str) -> Expression:
    """What follows be: an adjective, a noun or a place."""
    mood = sequence(maybe(0.3, literals("adverb", "very", "so", "too")), word("mood", "adjective"))
    single, many = indefinite("person"), word("person.pl", "noun_pl")
    if voice.kind == YOU and agreement == "plural":
        noun: Expression = choice((0.8, single), (0.2, many))
    else:
        noun = many if agreement == "plural" else single
    return choice((0.65, sequence(mood, maybe(0.1, place()))), (0.13, noun), (0.22, place()))


@cache
def predicate(voice: Voice, agreement: str, *, by_protagonist: bool, depth: str) -> Expression:
    """A finite verb phrase of a person.

    Args:
        voice: of the clause.
        agreement: of the subject.
        by_protagonist: whether the subject is the protagonist, who then is not the object.
        depth: ``main``; ``that``, which holds no that-clause of its own; ``aside``, a plain verb
            phrase.
    """
    be = auxiliary(BE, voice, agreement)
    finite = action(voice, agreement, "finite", by_protagonist=by_protagonist)
    seem = sequence(seeming(voice, agreement), word("mood", "adjective"))
    being = sequence(be, state(voice, agreement))
    doing = sequence(be, action(voice, agreement, "ing", by_protagonist=by_protagonist))
    feeling = sequence(feel(voice, agreement), word("feeling", "noun_mass"))
    if depth == "aside":
        return choice((0.62, finite), (0.2, being), (0.05, seem), (0.08, doing), (0.05, feeling))
    plain = action(voice, agreement, "base", by_protagonist=by_protagonist)
    done = sequence(
        auxiliary(HAVE, voice, agreement),
        verb("handle", "participle", voice, agreement),
        something(voice),
    )
    # In talk, the bare present is rarer: I will find the key.
    talk = voice.person.partner and voice.tense == "present"
    return choice(
        (
            0.2 if talk else 0.5,
            sequence(finite, maybe(0.1, sequence(fixed("and", "conjunction"), finite))),
        ),
        (0.18, being),
        (0.05, seem),
        (0.2 if talk else 0.06, sequence(literals("auxiliary", *MODALS[voice.tense]), plain)),
        (
            0.1 if talk else 0.05,
            sequence(verb("want", "finite", voice, agreement), fixed("to", "particle"), plain),
        ),
        (
            0.1 if talk else 0.05,
            sequence(auxiliary(DO, voice, agreement), fixed("not", "negation"), plain),
        ),
        (0.1 if talk else 0.06, doing),
        (0.04, feeling),
        (0.04, done),
        (
            0.1 if depth == "main" else 0.0,
            thought(voice, agreement) if depth == "main" else NOTHING,
        ),
    )


def thought(voice: Voice, agreement: str) -> Expression:
    """Thinks that the house is empty."""
    that = maybe(0.5, fixed("that", "conjunction"))
    return sequence(verb("think", "finite", voice, agreement), that, clause(voice, depth="that"))


def seeming(voice: Voice, agreement: str) -> Expression:
    """The verbs seem and look, agreeing."""
    if voice.tense == "past":
        return literals("verb_past", "seemed", "looked")
    if agreement == "third":
        return literals("verb_third", "seems", "looks")
    return literals("verb_present", "seem", "look")


def feel(voice: Voice, agreement: str) -> Expression:
    """The verb feel, agreeing."""
    if voice.tense == "past":
        return fixed("felt", "verb_past")
    return fixed("feels", "verb_third") if agreement == "third" else fixed("feel", "verb_present")


@cache
def thing_predicate(voice: Voice, agreement: str) -> Expression:
    """A finite verb phrase of a thing: a quality, an event, a passive, a place."""
    be = auxiliary(BE, voice, agreement)
    by = sequence(fixed("by", "preposition"), someone(voice, by_protagonist=False))
    passive = sequence(
        verb("handle", "participle", voice, agreement),
        choice((0.4, by), (0.6, maybe(0.5, place()))),
    )
    return choice(
        (
            0.4,
            sequence(
                be,
                maybe(0.3, literals("adverb", "very", "so", "too")),
                word("quality", "adjective"),
            ),
        ),
        (0.25, sequence(verb("appear", "finite", voice, agreement), maybe(0.55, place()))),
        (0.25, sequence(be, passive)),
        (0.1, sequence(be, place())),
    )


@cache
def others(voice: Voice, *, depth: str) -> Expression:
    """A clause whose subject is not the protagonist; ``depth`` as in `predicate`."""
    third = predicate(voice, "third", by_protagonist=False, depth=depth)
    plural = predicate(voice, "plural", by_protagonist=False, depth=depth)
    who = sequence(fixed("who", "relative"), action(voice, "third", "finite", by_protagonist=False))
    relative = sequence(fixed("that", "relative"), pronoun(voice))
    relative = sequence(relative, verb("handle", "finite", voice, voice.person.agreement))
    return choice(
        (0.2, sequence(noun_phrase(voice, "person", "sg"), maybe(0.12, who), third)),
        (0.16, sequence(noun_phrase(voice, "kin", "sg"), third)),
        (0.1, sequence(noun_phrase(voice, "person", "pl"), plural)),
        (0.05, sequence(word("somebody", "pronoun"), third)),
        (0.06, sequence(noun_phrase(voice, "animal", "sg"), animal_predicate(voice, "third"))),
        (0.03, sequence(noun_phrase(voice, "animal", "pl"), animal_predicate(voice, "plural"))),
        (
            0.15,
            sequence(
                noun_phrase(voice, "thing", "sg"),
                maybe(0.15, relative),
                thing_predicate(voice, "third"),
            ),
        ),
        (0.08, sequence(noun_phrase(voice, "thing", "pl"), thing_predicate(voice, "plural"))),
        (0.06, weather(voice)),
        (0.07, scene(voice)),
        (0.06, there_is(voice)),
        (0.05, it_is(voice)),
    )


@cache
def animal_predicate(voice: Voice, agreement: str) -> Expression:
    """A finite verb phrase of an animal."""
    return choice(
        (0.6, sequence(verb("appear", "finite", voice, agreement), maybe(0.55, place()))),
        (
            0.4,
            sequence(
                auxiliary(BE, voice, agreement),
                choice((0.6, word("temper", "adjective")), (0.4, place())),
            ),
        ),
    )


@cache
def weather(voice: Voice) -> Expression:
    """The wind stopped. The fog was cold."""
    cold = sequence(auxiliary(BE, voice, "third"), word("sky", "adjective"))
    blew = sequence(verb("blow", "finite", voice, "third"), maybe(0.15, time_after(voice)))
    return sequence(
        fixed("the", "determiner"), word("weather", "noun_mass"), choice((0.5, cold), (0.5, blew))
    )


@cache
def scene(voice: Voice) -> Expression:
    """The garden was quiet. The library was near the river."""
    near = sequence(
        fixed("near", "preposition"), fixed("the", "determiner"), word("spot", "noun_sg")
    )
    subject = sequence(
        fixed("the", "determiner"), word("inside", "noun_sg"), auxiliary(BE, voice, "third")
    )
    return sequence(subject, choice((0.7, word("scene", "adjective")), (0.3, near)))


@cache
def there_is(voice: Voice) -> Expression:
    """There was a letter in the garden. There was music in Vienna."""
    singular, plural = auxiliary(BE, voice, "third"), auxiliary(BE, voice, "plural")
    single = choice((0.6, indefinite("thing")), (0.4, indefinite("person")))
    several = choice((0.6, nominal("thing", "pl")), (0.4, nominal("person", "pl")))
    counted = sequence(literals("determiner", "two", "some", "many", "three"), several)
    there = choice(
        (0.45, sequence(singular, single)),
        (0.25, sequence(plural, counted)),
        (0.3, sequence(singular, word("air", "noun_mass"))),
    )
    return sequence(fixed("there", "pronoun"), there, place())


@cache
def it_is(voice: Voice) -> Expression:
    """It was easy to find the key. It was strange that she slept."""
    to_do = sequence(fixed("to", "particle"), action(voice, "plural", "base", by_protagonist=True))
    that = sequence(fixed("that", "conjunction"), own(voice, pronoun(voice), depth="that"))
    opening = sequence(
        fixed("it", "pronoun"), auxiliary(BE, voice, "third"), word("fact", "adjective")
    )
    return sequence(opening, choice((0.6, to_do), (0.4, that)))


@cache
def own(voice: Voice, subject: Expression, *, depth: str) -> Expression:
    """A clause whose subject is the protagonist, mentioned as given; ``depth`` as in
    `predicate`."""
    return sequence(
        subject, predicate(voice, voice.person.agreement, by_protagonist=True, depth=depth)
    )


@cache
def clause(voice: Voice, *, depth: str) -> Expression:
    """Any clause; the protagonist as a pronoun; ``depth`` as in `predicate`."""
    return choice((0.5, own(voice, pronoun(voice), depth=depth)), (0.5, others(voice, depth=depth)))
