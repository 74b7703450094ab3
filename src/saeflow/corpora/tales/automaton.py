"""The grammar as arrays: a hidden Markov model over words whose states are automaton node, topic
and name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from saeflow.corpora.tales.expressions import RETURN, Network, Weighted, Word
from saeflow.corpora.tales.lexicon import TOPICS, Entry, is_content, lexicon
from saeflow.corpora.tales.phrases import Voice
from saeflow.corpora.tales.sentences import first_sentence, next_sentence

NAMES = {
    "she": ("Anna", "Maria", "Clara", "Eva", "Lena", "Nora", "Ruth", "Sofia"),
    "he": ("Tom", "Peter", "Omar", "David", "Felix", "Hugo", "Max", "Simon"),
}
N_NAMES = 8
KINDS = {"she": 0.33, "he": 0.33, "I": 0.27, "we": 0.07}
TENSES = {"past": 0.72, "present": 0.28}
TOPIC_SHARES = np.array([0.28] + [0.08] * 9)
HOLD = (
    0.93  # probability that a sentence keeps the topic of the one before, before a new one is drawn
)
TOPICAL = 0.6  # probability that a word of a class with topical words is one of them
START = RETURN + 1  # the distribution over the first words of a story
SPECIAL = ("<bos>", "<unk>", "<pad>")


class WordInfo(NamedTuple):
    """What is known of a word by itself."""

    topic: int
    content: bool


def starts_with_vowel(text: str) -> bool:
    """Whether an, not a, stands before this word of the lexicon."""
    return text[0].lower() in "aeiou"


def emission(symbol: Word, topic: int, name: int) -> list[tuple[str, float]]:
    """The words a symbol can be, with probabilities, in a sentence on a topic of a story about a
    name."""
    if symbol.literal:
        words = [(symbol.literal, 1.0)]
    elif symbol.word_class.startswith("name."):
        words = [(NAMES[symbol.word_class.removeprefix("name.")][name], 1.0)]
    else:
        words = _drawn(symbol, topic)
    return (
        [(text[0].upper() + text[1:], share) for text, share in words] if symbol.capital else words
    )


def _drawn(symbol: Word, topic: int) -> list[tuple[str, float]]:
    entries = lexicon()[symbol.word_class]
    if symbol.onset:
        entries = [
            entry for entry in entries if starts_with_vowel(entry.word) == (symbol.onset == "vowel")
        ]
    neutral = [entry for entry in entries if entry.topic == 0]
    if not neutral:  # a class of French words
        return _normalised(entries, 1.0)
    topical = [entry for entry in entries if entry.topic == topic] if topic else []
    share = TOPICAL if topical else 0.0
    return _normalised(neutral, 1 - share) + _normalised(topical, share)


def _normalised(entries: list[Entry], mass: float) -> list[tuple[str, float]]:
    total = sum(entry.weight for entry in entries)
    return [(entry.word, mass * entry.weight / total) for entry in entries]


@dataclass(frozen=True)
class Automaton:
    """The grammar, compiled.

    Attributes:
        words: the vocabulary; the index of a word is its token id. The special tokens come first.
        word_topic, word_content: per word, its topic and whether it is a content word.
        syntax: names of the parts of speech; ``special`` first.
        symbols: the words, or classes of words, that nodes write.
        node_symbol, node_then: per node, what it writes, and the distribution over the nodes that
            follow (`RETURN` after a closing quote).
        node_returns: per node, -1, or for an opening quote the distribution over what follows the
            closing quote.
        distributions: nodes and probabilities, for distributions that do not depend on the topic.
        sentences: per distribution at the end of a sentence (`START` is the start of a story), its
            weights by topic.
        emissions: per symbol, ``{word id: probability [topic, name]}``.
    """

    words: list[str]
    word_topic: UInt8[np.ndarray, " vocab"]
    word_content: np.ndarray
    syntax: list[str]
    symbols: list[Word]
    node_symbol: Int[np.ndarray, " nodes"]
    node_then: Int[np.ndarray, " nodes"]
    node_returns: Int[np.ndarray, " nodes"]
    distributions: list[Weighted]
    sentences: dict[int, dict[int, Float[np.ndarray, " topics"]]]
    emissions: list[dict[int, Float[np.ndarray, "topics names"]]]


def _sentence_weights(
    network: Network, per_topic: list[list[tuple[float, int]]]
) -> dict[int, np.ndarray]:
    """Weights by topic of the nodes that open a sentence, from weighted distributions for each
    topic."""
    merged: dict[int, np.ndarray] = {}
    for topic, parts in enumerate(per_topic):
        for weight, distribution in parts:
            for node, probability in network.distributions[distribution]:
                merged.setdefault(node, np.zeros(len(TOPICS)))[topic] += weight * probability
    return merged


def _compile() -> tuple[Network, dict[int, dict[int, np.ndarray]]]:
    network = Network()
    network.reserve()  # START
    voices = {Voice(kind, tense): KINDS[kind] * TENSES[tense] for kind in KINDS for tense in TENSES}
    after = {voice: network.reserve() for voice in voices}
    sentences = {
        after[voice]: _sentence_weights(
            network,
            [
                [(1.0, network.compile(next_sentence(voice, topic), after[voice]))]
                for topic in TOPICS
            ],
        )
        for voice in voices
    }
    sentences[START] = _sentence_weights(
        network,
        [
            [
                (share, network.compile(first_sentence(voice, topic), after[voice]))
                for voice, share in voices.items()
            ]
            for topic in TOPICS
        ],
    )
    return network, sentences


def _emission_tables(symbols: list[Word]) -> tuple[list[str], list[dict[int, np.ndarray]]]:
    """The vocabulary, and per symbol the probability of each of its words by topic and name."""
    by_text: list[dict[str, np.ndarray]] = []
    for symbol in symbols:
        table: dict[str, np.ndarray] = {}
        for topic in range(len(TOPICS)):
            for name in range(N_NAMES):
                for text, share in emission(symbol, topic, name):
                    table.setdefault(text, np.zeros((len(TOPICS), N_NAMES)))[topic, name] = share
        by_text.append(table)
    words = [*SPECIAL, *sorted({text for table in by_text for text in table})]
    index = {text: i for i, text in enumerate(words)}
    return words, [{index[text]: share for text, share in table.items()} for table in by_text]


def _word_infos(symbols: list[Word]) -> dict[str, WordInfo]:
    infos = {}
    for symbol in symbols:
        if symbol.literal:
            infos[symbol.literal.lower()] = WordInfo(
                symbol.topic, bool(symbol.topic) or symbol.syntax in CONTENT_VERBS
            )
        else:
            for entry in lexicon().get(symbol.word_class, []):
                infos[entry.word.lower()] = WordInfo(
                    entry.topic, is_content(symbol.word_class, entry.topic)
                )
    return infos


CONTENT_VERBS = ("verb_past", "verb_third", "verb_present")


@cache
def automaton() -> Automaton:
    """The compiled grammar, built once per process."""
    network, sentences = _compile()
    words, emissions = _emission_tables(network.symbols)
    infos = _word_infos(network.symbols)
    function_word = WordInfo(0, False)
    by_word = [infos.get(text.lower(), function_word) for text in words]
    return Automaton(
        words=words,
        word_topic=np.array([info.topic for info in by_word], dtype=np.uint8),
        word_content=np.array([info.content for info in by_word]),
        syntax=["special", *sorted({symbol.syntax for symbol in network.symbols})],
        symbols=network.symbols,
        node_symbol=np.array([node.symbol for node in network.nodes]),
        node_then=np.array([node.then for node in network.nodes]),
        node_returns=np.array([node.returns for node in network.nodes]),
        distributions=network.distributions,
        sentences=sentences,
        emissions=emissions,
    )
