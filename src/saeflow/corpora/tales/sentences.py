"""The kinds of sentences, and how often each opens or continues a story of a topic."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from saeflow.corpora.tales.expressions import (
    Expression,
    Quote,
    Word,
    capitalised,
    choice,
    fixed,
    maybe,
    sequence,
    word,
)
from saeflow.corpora.tales.french import french_clause, french_greeting, french_thing
from saeflow.corpora.tales.phrases import (
    BE,
    DO,
    NAMED,
    YOU,
    Voice,
    action,
    auxiliary,
    clause,
    definite,
    indefinite,
    literals,
    name,
    noun_phrase,
    others,
    own,
    pronoun,
    protagonist,
    time_after,
    verb,
)

COMMA = fixed(",", "comma")
STOP = fixed(".", "stop")
QUESTION = fixed("?", "question_mark")
EXCLAMATION = fixed("!", "exclamation_mark")
OPEN_QUOTE = fixed("“", "quote_open")
CLOSE_QUOTE = fixed("”", "quote_close")
TENSES = ("past", "present")
SPEAKERS = {"I speaking": 0.5, YOU: 0.15, "we speaking": 0.1}


def conjunction(*words: str) -> Expression:
    """One of several conjunctions."""
    return literals("conjunction", *words)


@cache
def ending(voice: Voice) -> Expression:
    """What follows a main clause: mostly the full stop, sometimes another clause before it."""
    also, aside = clause(voice, depth="that"), clause(voice, depth="aside")
    return choice(
        (0.74, STOP),
        (0.12, sequence(COMMA, conjunction("and", "but"), also, STOP)),
        (0.14, sequence(conjunction("because", "while", "when", "after", "before"), aside, STOP)),
    )


@cache
def time_before(voice: Voice, *, opening: bool) -> Expression:
    """An adverbial of time at the start of a sentence, with or without a comma."""
    if voice.tense == "past":
        times = ["last night", "yesterday", "one evening", "last week"] + (
            [] if opening else ["later", "then"]
        )
    else:
        times = ["every morning", "today", "every day"] + ([] if opening else ["now"])
    return sequence(literals("time", *times), maybe(0.6, COMMA))


@cache
def statement(voice: Voice, *, opening: bool) -> Expression:
    """A statement about the protagonist or, later in a story, about others."""
    subject = name(voice) if opening else protagonist(voice)
    about_protagonist = own(voice, subject, depth="main")
    later = maybe(0.1, time_after(voice))
    when = conjunction("when", "while", "although", "because", "if", "after")
    aside, main = own(voice, subject, depth="aside"), clause(voice, depth="that")
    acting = action(voice, voice.person.agreement, "finite", by_protagonist=True)
    about_others = 0.0 if opening else 1.0
    return choice(
        (0.5, sequence(about_protagonist, later, ending(voice))),
        (0.16, sequence(time_before(voice, opening=opening), about_protagonist, ending(voice))),
        (0.1, sequence(when, aside, COMMA, main, STOP)),
        (0.05, sequence(word("manner", "adverb"), COMMA, subject, acting, STOP)),
        (about_others * 0.3, sequence(others(voice, depth="main"), ending(voice))),
        (
            about_others * 0.04,
            sequence(time_before(voice, opening=False), others(voice, depth="that"), STOP),
        ),
        (
            about_others * 0.03,
            sequence(fixed("what", "question_word"), indefinite("thing"), EXCLAMATION),
        ),
        (about_others * 0.03, sequence(word("air", "noun_mass"), filled(voice), ending(voice))),
    )


@cache
def filled(voice: Voice) -> Expression:
    """Filled the house, of music."""
    verb_form = (
        fixed("filled", "verb_past") if voice.tense == "past" else fixed("fills", "verb_third")
    )
    return sequence(verb_form, fixed("the", "determiner"), word("inside", "noun_sg"))


@cache
def question(voice: Voice) -> Expression:
    """A question about the protagonist, a person or a thing, without its mark."""
    agreement = voice.person.agreement
    do, be = auxiliary(DO, voice, agreement), auxiliary(BE, voice, agreement)
    asked_why = literals("question_word", "why", "when", "how")
    doing = action(voice, agreement, "base", by_protagonist=True)
    third, plural = auxiliary(BE, voice, "third"), auxiliary(BE, voice, "plural")
    where = fixed("where", "question_word")
    return choice(
        (0.25, sequence(asked_why, do, pronoun(voice), doing)),
        (0.15, sequence(do, pronoun(voice), doing)),
        (0.15, sequence(be, pronoun(voice), word("mood", "adjective"))),
        (0.12, sequence(where, third, definite(voice, "thing", "sg"))),
        (0.06, sequence(where, plural, definite(voice, "thing", "pl"))),
        (0.1, sequence(where, third, noun_phrase(voice, "kin", "sg"))),
        (0.1, sequence(third, definite(voice, "thing", "sg"), word("quality", "adjective"))),
        (
            0.1,
            sequence(
                fixed("who", "question_word"),
                action(voice, "third", "finite", by_protagonist=False),
            ),
        ),
    )


@cache
def quoted_statement() -> Expression:
    """What someone says, without its mark; of now more often than of the past."""
    now, past = Voice("I speaking", "present"), Voice("I speaking", "past")
    spoken = [
        (share * weight, own(Voice(kind, tense), pronoun(Voice(kind, tense)), depth="main"))
        for kind, weight in SPEAKERS.items()
        for tense, share in {"present": 0.65, "past": 0.35}.items()
    ]
    plea = sequence(
        fixed("please", "interjection"), action(now, "first", "base", by_protagonist=False)
    )
    about = [(0.1, now), (0.06, past), (0.05, Voice(YOU, "present"))]
    said = choice(
        *spoken, *((weight, others(voice, depth="that")) for weight, voice in about), (0.05, plea)
    )
    return choice((0.85, said), (0.15, sequence(word("outcry", "interjection"), COMMA, said)))


@cache
def quoted_question() -> Expression:
    """What someone asks, without its mark."""
    return choice(
        (0.7, question(Voice(YOU, "present"))), (0.3, question(Voice("I speaking", "present")))
    )


@cache
def quoted_cry() -> Expression:
    """What someone cries, without its mark."""
    thing = sequence(fixed("what", "question_word"), indefinite("thing"))
    outcry = word("outcry", "interjection")
    doing = choice(
        *(
            (0.5, own(Voice("I speaking", tense), fixed("I", "pronoun"), depth="that"))
            for tense in TENSES
        )
    )
    return choice((0.4, thing), (0.3, outcry), (0.2, doing), (0.1, sequence(outcry, COMMA, doing)))


@cache
def speaker(voice: Voice, said: str, *, opening: bool) -> Expression:
    """Who speaks, after a quote: she said, said Anna, said the teacher; ``said`` is ``say`` or a
    verb's three forms."""

    def saying(agreement: str) -> Expression:
        if said == "say":
            return verb("say", "finite", voice, agreement)
        past, third, base = said.split("/")
        if voice.tense == "past":
            return fixed(past, "verb_past")
        return fixed(third, "verb_third") if agreement == "third" else fixed(base, "verb_present")

    agreement = voice.person.agreement
    named = voice.kind in NAMED
    someone = choice(
        (0.6, noun_phrase(voice, "kin", "sg")), (0.4, noun_phrase(voice, "person", "sg"))
    )
    later = 0.0 if opening else 1.0
    return choice(
        (0.3 if named else 0.0, sequence(saying("third"), name(voice))),
        (0.2, sequence(name(voice), saying(agreement))),
        (later * 0.3, sequence(pronoun(voice), saying(agreement))),
        (later * 0.1, sequence(saying("third"), someone)),
        (later * 0.1, sequence(someone, saying("third"))),
    )


@cache
def quoted(speech: Callable[[], Expression], mark: Word) -> Expression:
    """Speech within quotes, with the mark before the closing quote."""
    return Quote(OPEN_QUOTE, sequence(capitalised(speech()), mark, CLOSE_QUOTE))


@cache
def quotation(voice: Voice, *, opening: bool) -> Expression:
    """A sentence with direct speech."""
    subject = name(voice) if opening else protagonist(voice)
    say = verb("say", "finite", voice, voice.person.agreement)
    said, asked, cried = (
        sequence(speaker(voice, verbs, opening=opening), STOP)
        for verbs in ("say", "asked/asks/ask", "cried/cries/cry")
    )
    return choice(
        (0.45, sequence(quoted(quoted_statement, COMMA), said)),
        (0.2, sequence(quoted(quoted_question, QUESTION), asked)),
        (0.12, sequence(quoted(quoted_cry, EXCLAMATION), cried)),
        (0.23, sequence(subject, say, COMMA, quoted(quoted_statement, STOP))),
    )


@cache
def french_sentence(voice: Voice, *, opening: bool) -> Expression:
    """A sentence with French words: in English narration, in quotes, or wholly French."""
    subject = name(voice) if opening else protagonist(voice)
    agreement = voice.person.agreement
    mixed = sequence(
        subject, verb("handle", "finite", voice, agreement), french_thing(), ending(voice)
    )
    tag = speaker(voice, "say", opening=opening)
    said = sequence(
        choice((0.75, quoted(french_clause, COMMA)), (0.25, quoted(french_greeting, COMMA))),
        tag,
        STOP,
    )
    say = verb("say", "finite", voice, agreement)
    pure = sequence(french_clause(), STOP)
    return choice(
        (0.4, mixed),
        (0.2, said),
        (0.1, sequence(subject, say, COMMA, quoted(french_clause, STOP))),
        (0.0 if opening else 0.3, pure),
    )


@cache
def opinion(voice: Voice) -> Expression:
    """I think the house is empty: how many stories in the first person open."""
    now = Voice(voice.kind, "present")
    think = sequence(
        pronoun(now), fixed("think", "verb_present"), maybe(0.5, fixed("that", "conjunction"))
    )
    return sequence(
        think,
        choice((0.4, own(voice, pronoun(voice), depth="that")), (0.6, others(voice, depth="that"))),
        STOP,
    )


@cache
def first_sentence(voice: Voice, topic: str) -> Expression:
    """The sentence that opens a story and names its protagonist."""
    return capitalised(
        choice(
            (0.8, statement(voice, opening=True)),
            (0.15, quotation(voice, opening=True)),
            (0.0 if voice.kind in NAMED else 0.4, opinion(voice)),
            (1.2 if topic == "french" else 0.0, french_sentence(voice, opening=True)),
        )
    )


@cache
def next_sentence(voice: Voice, topic: str) -> Expression:
    """A sentence later in a story."""
    asked = sequence(question(voice), QUESTION)
    return capitalised(
        choice(
            (0.62, statement(voice, opening=False)),
            (0.26, quotation(voice, opening=False)),
            (0.08, asked),
            (0.0 if voice.kind in NAMED else 0.05, opinion(voice)),
            (1.4 if topic == "french" else 0.0, french_sentence(voice, opening=False)),
        )
    )
