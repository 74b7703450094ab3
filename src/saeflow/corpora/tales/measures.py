"""What the grammar says of any text: how much of it is well formed, and what it is about."""

from __future__ import annotations

from functools import cache, lru_cache

from saeflow.corpora.tales.automaton import WordInfo, automaton
from saeflow.corpora.tales.expressions import RETURN
from saeflow.corpora.tales.lexicon import TOPICS
from saeflow.corpora.tales.probabilities import (
    Place,
    continuations,
    next_place,
    symbols_of_words,
    word_ids,
)
from saeflow.corpora.tales.tokenization import split_tokens

ENDS = (".", "?", "!")
REMEMBERED = 200_000  # transitions and sentences kept
PARTIAL = 0.5  # credit per token of a sentence that goes wrong later

Places = frozenset[Place]


@cache
def sentence_start() -> Places:
    """Where a sentence may start: at the start of a story, or after any sentence of any
    protagonist."""
    return frozenset(Place(distribution, RETURN) for distribution in automaton().sentences)


@lru_cache(maxsize=REMEMBERED)
def _step(places: Places, word: int) -> Places:
    reached: dict[Place, None] = {}
    symbols = symbols_of_words()[word]
    for place in places:
        following = continuations(place.after)
        for symbol in symbols.keys() & following.keys():
            for node, _ in following[symbol]:
                reached[next_place(place, node)] = None
    return frozenset(reached)


@lru_cache(maxsize=REMEMBERED)
def parse_sentence(tokens: tuple[str, ...]) -> tuple[int, bool]:
    """Parse one sentence, of any topics and any protagonist.

    Returns:
        The length in tokens of the longest prefix that begins a sentence of the grammar, and
        whether the tokens are a whole sentence of it.
    """
    places, index = sentence_start(), word_ids()
    for viable, token in enumerate(tokens):
        places = _step(places, index[token]) if token in index else frozenset()
        if not places:
            return viable, False
    return len(tokens), bool(tokens) and not places.isdisjoint(sentence_start())


def split_sentences(tokens: list[str]) -> list[tuple[str, ...]]:
    """Cut tokens into sentences.

    A sentence ends with ``.`` (or with the ``”`` right after it), and with ``?`` or ``!`` outside
    quotes. What is left at the end of the text is a sentence too.
    """
    sentences, first, within = [], 0, False
    for place, token in enumerate(tokens):
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        ends = (token == "." and following != "”") or (
            token in ENDS and token != "." and not within
        )
        if token in "“”":
            within = token == "“"
            ends = token == "”" and place > first and tokens[place - 1] == "."
        if ends:
            sentences.append(tuple(tokens[first : place + 1]))
            first, within = place + 1, False
    return [*sentences, tuple(tokens[first:])] if first < len(tokens) else sentences


def coherence(text: str) -> float:
    """The share of a text that the grammar can produce, in [0, 1].

    The text is cut into sentences (`split_sentences`); each has as much weight as it has tokens. A
    sentence of the grammar counts 1, as does a last one, cut off, that begins a sentence of the
    grammar. Any other counts half the share of its tokens that lie in its longest prefix that
    begins a sentence of the grammar. Each sentence is judged by itself: topic, tense and
    protagonist may change from one to the next.

    Returns:
        0 for a text without tokens.
    """
    tokens = split_tokens(text)
    if not tokens:
        return 0.0
    sentences = split_sentences(tokens)
    credit = 0.0
    for place, sentence in enumerate(sentences):
        viable, whole = parse_sentence(sentence)
        last = place == len(sentences) - 1
        if whole or (last and viable == len(sentence)):
            credit += len(sentence)
        else:
            credit += PARTIAL * viable
    return credit / len(tokens)


@cache
def _known_words() -> dict[str, WordInfo]:
    source = automaton()
    infos: dict[str, WordInfo] = {}
    for text, topic, content in zip(
        source.words, source.word_topic, source.word_content, strict=True
    ):
        infos[text.lower()] = WordInfo(int(topic), bool(content))
    return infos


def topic_words(topic: str) -> frozenset[str]:
    """The words of a topic that `behaviour` counts for it, in small letters."""
    place = TOPICS.index(topic)
    words = _known_words().items()
    return frozenset(word for word, info in words if info.topic == place and info.content)


def behaviour(text: str) -> dict[str, float]:
    """How much of a text is about each of the nine topics: the topic's words over all content
    words, in [0, 1].

    Content words are the words of any topic, and the neutral nouns, full verbs, adjectives, adverbs
    of manner and names of towns. Function words, names of people, adverbials of time and unknown
    words do not count.

    Returns:
        One share per topic, without ``neutral``; all 0 for a text without content words.
    """
    words = _known_words()
    infos = [words[token.lower()] for token in split_tokens(text) if token.lower() in words]
    counts = [0] * len(TOPICS)
    for info in infos:
        counts[info.topic] += info.content
    total = sum(counts)
    return {
        topic: count / total if total else 0.0
        for topic, count in list(zip(TOPICS, counts, strict=True))[1:]
    }
