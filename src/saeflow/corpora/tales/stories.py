"""Stories without end, drawn from the grammar; all stories of a batch step at once."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

from saeflow.corpora.tales.automaton import (
    HOLD,
    N_NAMES,
    SPECIAL,
    START,
    TOPIC_SHARES,
    Automaton,
    automaton,
)
from saeflow.corpora.tales.expressions import RETURN
from saeflow.corpora.tales.lexicon import TOPICS
from saeflow.corpora.tokens import TokenBlocks
from saeflow.seeds import row_keys, uniforms

BATCH = 8192  # stories stepped at once; does not change them
BOS = SPECIAL.index("<bos>")
DRAWS = 3  # uniforms per token: new topic, next node, word


class Rows(NamedTuple):
    """Many discrete distributions, one after another."""

    cumulative: Float[np.ndarray, " entries"]
    """Cumulative probability within the row, plus the row's index."""
    items: Int[np.ndarray, " entries"]

    def draw(
        self, rows: Int[np.ndarray, " batch"], uniform: Float[np.ndarray, " batch"]
    ) -> Int[np.ndarray, " batch"]:
        """One item from each of the given rows."""
        # So that adding the row's index never rounds up to the next row.
        below_one = uniform * (1 - 1e-9)
        return self.items[np.searchsorted(self.cumulative, rows + below_one, side="right")]


class Tables(NamedTuple):
    """The automaton as tables to draw from."""

    nodes: Rows
    first_row: Int[np.ndarray, " distributions"]
    """Row of each distribution in ``nodes``; a distribution at the end of a sentence has one row
    per topic."""
    ends_sentence: np.ndarray
    words: Rows
    """Row ``(symbol · topics + topic) · names + name``."""
    syntax: Int[np.ndarray, " symbols"]


def _node_rows(source: Automaton) -> tuple[Rows, np.ndarray]:
    cumulative, items, first_row = [], [], []
    row = 0
    for index, distribution in enumerate(source.distributions):
        first_row.append(row)
        if index in source.sentences:
            heads = source.sentences[index]
            weights = np.array(list(heads.values())).T
            targets = np.tile(np.array(list(heads)), len(TOPICS))
        elif index == RETURN:  # never drawn from
            continue
        else:
            weights = np.array([[probability for _, probability in distribution]])
            targets = np.array([node for node, _ in distribution])
        shares = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
        shares[:, -1] = 1.0
        cumulative.append((shares + np.arange(row, row + len(shares))[:, None]).ravel())
        items.append(targets)
        row += len(shares)
    return Rows(np.concatenate(cumulative), np.concatenate(items)), np.array(first_row)


def _word_rows(source: Automaton) -> Rows:
    cumulative, items = [], []
    for symbol, table in enumerate(source.emissions):
        shares = np.cumsum(np.array(list(table.values())).reshape(len(table), -1).T, axis=1)
        shares /= shares[:, -1:]
        first = symbol * len(shares)
        cumulative.append((shares + np.arange(first, first + len(shares))[:, None]).ravel())
        items.append(np.tile(np.array(list(table)), len(shares)))
    return Rows(np.concatenate(cumulative), np.concatenate(items))


@cache
def _tables() -> Tables:
    source = automaton()
    nodes, first_row = _node_rows(source)
    ends = np.zeros(len(source.distributions), dtype=bool)
    ends[list(source.sentences)] = True
    syntax = np.array([source.syntax.index(symbol.syntax) for symbol in source.symbols])
    return Tables(nodes, first_row, ends, _word_rows(source), syntax)


class Stories(NamedTuple):
    """Stories drawn from the grammar, without BOS."""

    tokens: Int[np.ndarray, "stories pos"]
    syntax: Int[np.ndarray, "stories pos"]
    """Index into `Automaton.syntax`."""


def draw_stories(keys: UInt64[np.ndarray, " stories"], length: int) -> Stories:
    """The first tokens of one story per key; a longer story begins like a shorter one.

    Args:
        keys: ``[stories]`` from `saeflow.seeds.row_keys`.
        length: tokens per story.
    """
    source, tables = automaton(), _tables()
    draws = uniforms(keys, 2 + DRAWS * length)
    shares = np.cumsum(TOPIC_SHARES) / TOPIC_SHARES.sum()

    def drawn_topic(uniform: np.ndarray) -> np.ndarray:
        return np.minimum(np.searchsorted(shares, uniform, side="right"), len(TOPICS) - 1)

    topic = drawn_topic(draws[:, 0])
    name = (draws[:, 1] * N_NAMES).astype(np.int64)
    after, returns = np.full(len(keys), START), np.full(len(keys), RETURN)
    tokens = np.empty((len(keys), length), dtype=np.int32)
    syntax = np.empty((len(keys), length), dtype=np.uint8)
    for position in range(length):
        change, onward, wording = draws[:, 2 + DRAWS * position : 2 + DRAWS * (position + 1)].T
        ends = tables.ends_sentence[after]
        if position:
            changing = ends & (change >= HOLD)
            topic = np.where(changing, drawn_topic((change - HOLD) / (1 - HOLD)), topic)
        node = tables.nodes.draw(tables.first_row[after] + topic * ends, onward)
        symbol = source.node_symbol[node]
        tokens[:, position] = tables.words.draw(
            (symbol * len(TOPICS) + topic) * N_NAMES + name, wording
        )
        syntax[:, position] = tables.syntax[symbol]
        returns = np.where(source.node_returns[node] < 0, returns, source.node_returns[node])
        after = np.where(source.node_then[node] == RETURN, returns, source.node_then[node])
    return Stories(tokens, syntax)


def story_blocks(seed: int, split: str, blocks: int, context: int) -> TokenBlocks:
    """Blocks of a split of the corpus ``tales``: BOS and the beginning of a fresh story each.

    A block depends on the seed, the split and its index, never on how many blocks are asked for.

    Args:
        seed: the study's.
        split: ``model``, ``sae`` or ``eval``; any name gives stories of its own.
        blocks: how many.
        context: tokens per block, BOS included.

    Returns:
        TokenBlocks with the labels ``topic`` (of the word; function words are neutral) and
        ``syntax``.
    """
    source = automaton()
    tokens = np.full((blocks, context), BOS, dtype=np.int32)
    syntax = np.zeros((blocks, context), dtype=np.uint8)
    for first in range(0, blocks, BATCH):
        rows = range(first, min(first + BATCH, blocks))
        stories = draw_stories(row_keys(seed, "tales", [(split, row) for row in rows]), context - 1)
        tokens[rows.start : rows.stop, 1:] = stories.tokens
        syntax[rows.start : rows.stop, 1:] = stories.syntax
    return TokenBlocks(
        tokens=tokens,
        labels={"topic": source.word_topic[tokens], "syntax": syntax},
        label_names={"topic": list(TOPICS), "syntax": list(source.syntax)},
    )
