"""French phrases and sentences, agreeing in gender, number and person."""

from __future__ import annotations

from functools import cache

from saeflow.corpora.tales.expressions import Expression, choice, fixed, maybe, sequence, word
from saeflow.corpora.tales.lexicon import TOPICS

FRENCH = TOPICS.index("french")
NOUNS = {
    ("person", "m"): "homme",
    ("person", "f"): "femme",
    ("thing", "m"): "objet",
    ("thing", "f"): "chose",
    ("place", "m"): "jardin",
    ("place", "f"): "maison",
}
DETERMINERS = {("m", "sg"): ("le", "un", "ce"), ("f", "sg"): ("la", "une", "cette")}
POSSESSIVES = {
    ("m", "sg"): ("mon",),
    ("f", "sg"): ("ma",),
    ("m", "pl"): ("mes",),
    ("f", "pl"): ("mes",),
}
SUBJECTS = {
    "je": ("suis", ("m", "f"), 0.16),
    "tu": ("es", ("m", "f"), 0.07),
    "il": ("est", ("m",), 0.08),
    "elle": ("est", ("f",), 0.08),
}
GREETINGS = ("bonjour", "merci", "bonsoir", "au revoir")
ADDRESSES = ("monsieur", "madame", "mon ami", "ma chérie")
FORMS = [(gender, number) for number in ("sg", "pl") for gender in ("m", "f")]


def french(syntax: str, *phrases: str) -> Expression:
    """One of several fixed French phrases, the earlier the more frequent."""
    ranked = enumerate(phrases)
    return choice(
        *(
            (1 / (i + 2), sequence(*(fixed(part, syntax, FRENCH) for part in text.split())))
            for i, text in ranked
        )
    )


@cache
def french_noun_phrase(kind: str, gender: str, number: str) -> Expression:
    """A noun phrase of a person, a thing or a place: la petite fille, des livres, de petits
    livres."""
    noun = word(f"{NOUNS[kind, gender]}.{number}", f"noun_{number}")
    described = sequence(word(f"devant.{gender}_{number}", "adjective"), noun)
    plain: Expression
    before_adjective: Expression
    if number == "sg":
        plain = before_adjective = french("determiner", *DETERMINERS[gender, number])
    else:
        both = french("determiner", "les", "ces")
        plain = choice((0.7, both), (0.3, french("determiner", "des")))
        before_adjective = choice((0.7, both), (0.3, french("determiner", "de")))
    if kind == "person":
        own = french("determiner", *POSSESSIVES[gender, number])
        plain = choice((0.75, plain), (0.25, own))
        before_adjective = choice((0.75, before_adjective), (0.25, own))
    return choice((0.72, sequence(plain, noun)), (0.28, sequence(before_adjective, described)))


@cache
def french_thing() -> Expression:
    """A thing or things as an object."""
    weights = {"sg": 0.38, "pl": 0.12}
    return choice(
        *(
            (weights[number], french_noun_phrase("thing", gender, number))
            for gender, number in FORMS
        )
    )


@cache
def french_place() -> Expression:
    """Dans la maison, devant le château."""
    places = choice(*((0.5, french_noun_phrase("place", gender, "sg")) for gender in ("m", "f")))
    return sequence(french("preposition", "dans", "devant"), places)


def french_quality(adjective: str, be: str, genders: tuple[str, ...], number: str) -> Expression:
    """Est très heureuse."""
    forms = choice(
        *((1.0, word(f"{adjective}.{gender}_{number}", "adjective")) for gender in genders)
    )
    return sequence(french("auxiliary", be), maybe(0.3, french("adverb", "très", "trop")), forms)


@cache
def french_predicate(person: str, be: str, genders: tuple[str, ...], number: str) -> Expression:
    """A finite verb phrase: travaille lentement, regarde la lettre, est heureuse."""
    label = "verb_third" if person == "il" else "verb_present"
    manner = choice((0.5, word("souvent", "adverb")), (0.5, french_place()))
    return choice(
        (0.36, french_quality("humeur", be, genders, number)),
        (0.3, sequence(word(f"agir.{person}", label), manner)),
        (0.34, sequence(word(f"traiter.{person}", label), french_thing())),
    )


@cache
def french_clause() -> Expression:
    """A French main clause."""
    clauses = []
    for gender, number in FORMS:
        person, be, weight = ("il", "est", 0.13) if number == "sg" else ("ils", "sont", 0.05)
        someone = french_noun_phrase("person", gender, number)
        something = french_noun_phrase("thing", gender, number)
        clauses.append((weight, sequence(someone, french_predicate(person, be, (gender,), number))))
        clauses.append(
            (weight / 2, sequence(something, french_quality("couleur", be, (gender,), number)))
        )
    for pronoun, (be, genders, weight) in SUBJECTS.items():
        person = "il" if pronoun == "elle" else pronoun
        clauses.append(
            (
                weight,
                sequence(french("pronoun", pronoun), french_predicate(person, be, genders, "sg")),
            )
        )
    return choice(*clauses, (0.05, sequence(french("pronoun", "c'est"), french_thing())))


@cache
def french_greeting() -> Expression:
    """Bonjour, madame"""
    return sequence(
        french("interjection", *GREETINGS), fixed(",", "comma"), french("noun_sg", *ADDRESSES)
    )
