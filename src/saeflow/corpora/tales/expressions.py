"""Phrases as weighted expressions over word classes, and their compilation into a finite automaton.

A phrase is a `Word`, a `Sequence` or a `Choice`. Compiling a phrase with respect to what follows it
gives a distribution over automaton nodes; equal continuations are shared, so the automaton stays
small. Every path through the automaton carries the product of the choice probabilities, i.e. the
grammar is a hidden Markov model whose states are the nodes and whose emissions are the words of a
class.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

RETURN = 0  # the distribution that stands for: whatever follows the quote
Weighted = tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Sequence:
    """One phrase after another; empty for nothing at all."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """One of several phrases, with probabilities in proportion to the weights."""

    options: tuple[tuple[float, Expression], ...]


@dataclass(frozen=True)
class Word:
    """One token: a word of a class of the lexicon, a form of the protagonist's name, or a fixed
    word."""

    syntax: str
    """Its part of speech: the label of the token."""
    word_class: str = ""
    """The class of the lexicon it is drawn from; empty for a fixed word."""
    literal: str = ""
    """The fixed word."""
    capital: bool = False
    onset: str = ""
    """``vowel`` or ``consonant`` restricts the class to the words that a or an fits."""
    topic: int = 0
    """Of a fixed word."""


@dataclass(frozen=True, eq=False)
class Quote:
    """Direct speech: an opening quote and what stands within, which ends with the closing quote.

    It is compiled once, whatever follows it: the automaton remembers where to return to.
    """

    opening: Word
    inner: Expression


Expression = Word | Sequence | Choice | Quote

NOTHING = Sequence(())


def sequence(*parts: Expression) -> Sequence:
    """The phrases one after another."""
    return Sequence(parts)


def choice(*options: tuple[float, Expression]) -> Choice:
    """One of the phrases, with the given weights; options of weight zero are left out."""
    return Choice(tuple(option for option in options if option[0] > 0))


def maybe(probability: float, phrase: Expression) -> Choice:
    """The phrase with this probability, otherwise nothing."""
    return Choice(((probability, phrase), (1 - probability, NOTHING)))


@cache
def word(word_class: str, syntax: str, onset: str = "") -> Word:
    """A word of a class of the lexicon."""
    return Word(syntax, word_class=word_class, onset=onset)


@cache
def fixed(literal: str, syntax: str, topic: int = 0) -> Word:
    """A fixed word or punctuation mark."""
    return Word(syntax, literal=literal, topic=topic)


@cache
def capitalised(phrase: Expression) -> Expression:
    """The phrase with its first word capitalised; the phrase's first part must not be empty."""
    if isinstance(phrase, Quote):
        return phrase
    if isinstance(phrase, Word):
        return replace(phrase, capital=True)
    if isinstance(phrase, Choice):
        return Choice(tuple((weight, capitalised(option)) for weight, option in phrase.options))
    return Sequence((capitalised(phrase.parts[0]), *phrase.parts[1:]))


class Node(NamedTuple):
    """A place in the automaton where one word is written."""

    symbol: int
    """Index of the `Word`."""
    then: int
    """Index of the distribution over the nodes that follow, or `RETURN`."""
    returns: int = -1
    """Of an opening quote: what follows the quote."""


@dataclass
class Network:
    """The automaton under construction: words, nodes, and distributions over nodes, each kept
    once."""

    symbols: list[Word] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    distributions: list[Weighted] = field(default_factory=lambda: [()])
    _symbol_index: dict[Word, int] = field(default_factory=dict)
    _node_index: dict[Node, int] = field(default_factory=dict)
    _distribution_index: dict[Weighted, int] = field(default_factory=dict)
    _compiled: dict[tuple[Expression, int], int] = field(default_factory=dict)

    def reserve(self) -> int:
        """A distribution that is filled in later, for what follows the end of a sentence."""
        self.distributions.append(())
        return len(self.distributions) - 1

    def compile(self, phrase: Expression, then: int) -> int:
        """The distribution over nodes of a phrase that is followed by the distribution ``then``."""
        key = (phrase, then)
        if key not in self._compiled:
            self._compiled[key] = self._compile(phrase, then)
        return self._compiled[key]

    def _compile(self, phrase: Expression, then: int) -> int:
        if isinstance(phrase, Word):
            return self._intern_distribution(((self._intern_node(phrase, then), 1.0),))
        if isinstance(phrase, Quote):
            inside = self.compile(phrase.inner, RETURN)
            return self._intern_distribution(
                ((self._intern_node(phrase.opening, inside, then), 1.0),)
            )
        if isinstance(phrase, Sequence):
            for part in reversed(phrase.parts):
                then = self.compile(part, then)
            return then
        total = sum(weight for weight, _ in phrase.options)
        merged: dict[int, float] = {}
        for weight, option in phrase.options:
            for node, probability in self.distributions[self.compile(option, then)]:
                merged[node] = merged.get(node, 0.0) + weight / total * probability
        return self._intern_distribution(tuple(merged.items()))

    def _intern_node(self, phrase: Word, then: int, returns: int = -1) -> int:
        symbol = self._symbol_index.setdefault(phrase, len(self.symbols))
        if symbol == len(self.symbols):
            self.symbols.append(phrase)
        node = Node(symbol, then, returns)
        index = self._node_index.setdefault(node, len(self.nodes))
        if index == len(self.nodes):
            self.nodes.append(node)
        return index

    def _intern_distribution(self, distribution: Weighted) -> int:
        index = self._distribution_index.setdefault(distribution, len(self.distributions))
        if index == len(self.distributions):
            self.distributions.append(distribution)
        return index
