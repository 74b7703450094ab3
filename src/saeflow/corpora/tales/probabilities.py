"""The exact predictive distribution of the grammar, by the forward algorithm over its hidden
states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from saeflow.corpora.tales.automaton import HOLD, N_NAMES, SPECIAL, START, TOPIC_SHARES, automaton
from saeflow.corpora.tales.expressions import RETURN
from saeflow.corpora.tales.lexicon import TOPICS

Joint = Float[np.ndarray, "topics names"]
BOS, UNKNOWN, PADDING = range(len(SPECIAL))


class Place(NamedTuple):
    """Where in the automaton a story may be."""

    after: int
    """The distribution over the nodes that come next."""
    returns: int
    """Within a quote: the distribution after its end. Elsewhere `RETURN`."""


Belief = dict[Place, Joint]
"""Joint probability, given the tokens so far, of place, topic and name."""


@cache
def continuations(
    distribution: int,
) -> dict[int, list[tuple[int, float | Float[np.ndarray, "topics 1"]]]]:
    """Of a distribution: the nodes and weights by the symbol they write; weights by topic at a
    sentence start."""
    source = automaton()
    weighted: Iterable[tuple[int, float | np.ndarray]] = source.distributions[distribution]
    if distribution in source.sentences:
        heads = source.sentences[distribution]
        total = np.sum(list(heads.values()), axis=0)
        weighted = [(node, (share / total)[:, None]) for node, share in heads.items()]
    by_symbol: dict[int, list[tuple[int, float | np.ndarray]]] = {}
    for node, weight in weighted:
        by_symbol.setdefault(int(source.node_symbol[node]), []).append((node, weight))
    return by_symbol


@cache
def symbols_of_words() -> list[dict[int, Joint]]:
    """Per word id: the symbols that can write it, and with which probability by topic and name."""
    source = automaton()
    table: list[dict[int, np.ndarray]] = [{} for _ in source.words]
    for symbol, emissions in enumerate(source.emissions):
        for word, probability in emissions.items():
            table[word][symbol] = probability
    return table


def next_place(place: Place, node: int) -> Place:
    """The place after a node is written."""
    source = automaton()
    then, entered = int(source.node_then[node]), int(source.node_returns[node])
    if then == RETURN:
        return Place(place.returns, RETURN)
    return Place(then, entered if entered >= 0 else place.returns)


def start() -> Belief:
    """The belief before the first word of a story."""
    joint = np.repeat(TOPIC_SHARES[:, None], N_NAMES, axis=1) / (TOPIC_SHARES.sum() * N_NAMES)
    return {Place(START, RETURN): joint}


def _with_topic_of_next(place: Place, joint: Joint) -> Joint:
    """The joint probability after the topic had its chance to change, which it has at the end of a
    sentence."""
    if place.after == START or place.after not in automaton().sentences:
        return joint
    return HOLD * joint + (1 - HOLD) * (TOPIC_SHARES / TOPIC_SHARES.sum())[:, None] * joint.sum(
        axis=0
    )


def observe(belief: Belief, word: int) -> tuple[float, Belief]:
    """Take in one word.

    Returns:
        The probability of the word given the ones before it, and the belief after it (empty if
        impossible).
    """
    posterior: Belief = {}
    symbols = symbols_of_words()[word]
    for place, joint in belief.items():
        following = continuations(place.after)
        possible = symbols.keys() & following.keys()
        if not possible:
            continue
        joint = _with_topic_of_next(place, joint)
        for symbol in possible:
            written = joint * symbols[symbol]
            for node, weight in following[symbol]:
                there = next_place(place, node)
                share = weight * written
                posterior[there] = posterior[there] + share if there in posterior else share
    posterior = {place: joint for place, joint in posterior.items() if joint.any()}
    probability = float(sum(joint.sum() for joint in posterior.values()))
    return probability, {place: joint / probability for place, joint in posterior.items()}


def _ids(tokens: Sequence[int] | Sequence[str]) -> list[int]:
    index = word_ids()
    return [index.get(token, UNKNOWN) if isinstance(token, str) else int(token) for token in tokens]


@cache
def word_ids() -> dict[str, int]:
    """Token id of every word."""
    return {text: i for i, text in enumerate(automaton().words)}


def token_log_probs(tokens: Sequence[int] | Sequence[str]) -> Float[np.ndarray, " pos"]:
    """Exact log-probability of every token of a story given all tokens before it, in nats.

    Their mean over fresh stories is the entropy rate that a language model's loss is compared with.

    Args:
        tokens: of one story, as ids or strings. A BOS in front is given, not predicted, and has
            log-probability 0.

    Returns:
        ``-inf`` from the first token on that the grammar cannot write there.
    """
    ids = _ids(tokens)
    log_probs = np.full(len(ids), -np.inf)
    belief = start()
    for position, word in enumerate(ids):
        if position == 0 and word == BOS:
            log_probs[0] = 0.0
            continue
        probability, belief = observe(belief, word)
        if not belief:
            break
        log_probs[position] = np.log(probability)
    return log_probs


def next_token_probs(tokens: Sequence[int] | Sequence[str]) -> Float[np.ndarray, " vocab"]:
    """Exact probability of every word of the vocabulary after the given tokens of a story; all 0
    after nonsense."""
    belief = start()
    for position, word in enumerate(_ids(tokens)):
        if position > 0 or word != BOS:
            _, belief = observe(belief, word)
    mass: dict[int, Joint] = {}
    for place, joint in belief.items():
        joint = _with_topic_of_next(place, joint)
        for symbol, nodes in continuations(place.after).items():
            for _, weight in nodes:
                mass[symbol] = mass.get(symbol, np.zeros((len(TOPICS), N_NAMES))) + weight * joint
    probabilities = np.zeros(len(automaton().words))
    for symbol, joint in mass.items():
        for word, emitted in automaton().emissions[symbol].items():
            probabilities[word] += float((joint * emitted).sum())
    return probabilities
