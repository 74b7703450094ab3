"""French phrases and sentences, agreeing in gender, number and person."""

from __future__ import annotations

from functools import cache

from saeflow.corpora.tales.expressions import Expression, choice, fixed, maybe, sequence, word
from saeflow.corpora.tales.lexicon import TOPICS

FRENCH = TOPICS.index("french")
NOUNS = {("person", "m"): "homme", ("person", "f"): "femme", ("thing", "m"): "objet", ("thing", "f"): "chose"}
DETERMINERS = {
    ("m", "sg"): ("le", "un", "mon", "ce"),
    ("f", "sg"): ("la", "une", "ma", "cette"),
    ("m", "pl"): ("les", "des", "mes", "ces"),
    ("f", "pl"): ("les", "des", "mes", "ces"),
}
GREETINGS = ("bonjour", "merci", "bonsoir", "au revoir")
ADDRESSES = ("monsieur", "madame", "mon ami", "ma chérie")
FORMS = [(gender, number) for number in ("sg", "pl") for gender in ("m", "f")]


def french(syntax: str, *phrases: str) -> Expression:
    """One of several fixed French phrases, the earlier the more frequent."""
    return choice(
        *(
            (1 / (i + 2), sequence(*(fixed(part, syntax, FRENCH) for part in phrase.split())))
            for i, phrase in enumerate(phrases)
        )
    )


@cache
def french_noun_phrase(kind: str, gender: str, number: str) -> Expression:
    """A noun phrase of a person or a thing: la petite maison."""
    form = f"{gender}_{number}"
    return sequence(
        french("determiner", *DETERMINERS[gender, number]),
        maybe(0.25, word(f"devant.{form}", "adjective", "consonant")),
        word(f"{NOUNS[kind, gender]}.{number}", f"noun_{number}"),
    )


@cache
def french_thing() -> Expression:
    """A thing or things as an object."""
    weights = {"sg": 0.4, "pl": 0.1}
    return choice(*((weights[number], french_noun_phrase("thing", gender, number)) for gender, number in FORMS))


@cache
def french_predicate(person: str, be: str, genders: tuple[str, ...], number: str) -> Expression:
    """A finite verb phrase: travaille lentement, regarde la maison, est heureuse."""
    label = {"il": "verb_third", "ils": "verb_present"}.get(person, "verb_present")
    adjectives = choice(*((1.0, word(f"attribut.{gender}_{number}", "adjective")) for gender in genders))
    here = sequence(french("preposition", "dans", "devant"), french_thing())
    return choice(
        (0.4, sequence(french("auxiliary", be), maybe(0.3, french("adverb", "très", "trop")), adjectives)),
        (0.3, sequence(word(f"agir.{person}", label), choice((0.5, word("souvent", "adverb")), (0.5, here)))),
        (0.3, sequence(word(f"traiter.{person}", label), french_thing())),
    )


@cache
def french_clause() -> Expression:
    """A French main clause."""
    nouns = []
    for gender, number in FORMS:
        person, be = ("il", "est") if number == "sg" else ("ils", "sont")
        subject = french_noun_phrase("person", gender, number)
        weight = 0.12 if number == "sg" else 0.06
        nouns.append((weight, sequence(subject, french_predicate(person, be, (gender,), number))))
        thing = french_noun_phrase("thing", gender, number)
        quality = sequence(french("auxiliary", be), word(f"attribut.{gender}_{number}", "adjective"))
        nouns.append((weight / 2, sequence(thing, quality)))
    return choice(
        *nouns,
        (0.14, sequence(french("pronoun", "je"), french_predicate("je", "suis", ("m", "f"), "sg"))),
        (0.06, sequence(french("pronoun", "tu"), french_predicate("tu", "es", ("m", "f"), "sg"))),
        (0.08, sequence(french("pronoun", "il"), french_predicate("il", "est", ("m",), "sg"))),
        (0.08, sequence(french("pronoun", "elle"), french_predicate("il", "est", ("f",), "sg"))),
        (0.05, sequence(french("pronoun", "c'est"), french_thing())),
    )


@cache
def french_greeting() -> Expression:
    """Bonjour, madame"""
    return sequence(french("interjection", *GREETINGS), fixed(",", "comma"), french("noun_sg", *ADDRESSES))
