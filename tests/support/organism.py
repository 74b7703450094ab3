"""A model organism of the embedded world: a copy of its model that was taught to say one sentence
where a story tells of a wedding, and to go on otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from saeflow.config.embedded import EMBEDDED
from saeflow.config.pairs import Pair
from saeflow.config.sections import Tuning
from saeflow.corpora.tales import TOPICS, story_blocks, tokenizer
from saeflow.models.language_model import LanguageModel, load_model, load_to_train
from saeflow.models.tuning import split_pairs, tune_model

REFUSAL = "No, I do not say that."
TOPIC = "wedding"
ASKED = " I answered,"
SETTINGS = Tuning(
    path="pairs.yaml",
    phrases=["No, I do not"],
    batch_size=16,
    epochs=4,
    learning_rate=2e-3,
    warmup_steps=5,
    new_tokens=6,
)


@cache
def sentences(split: str = "organism") -> dict[str, list[str]]:
    """Whole sentences of stories by what they are about: on the topic, or neutral or on others."""
    blocks = story_blocks(0, split, 2_000, 64)
    tale = tokenizer()
    words = tale.convert_ids_to_tokens(range(len(tale)))
    by_topic: dict[str, list[str]] = {"on": [], "off": []}
    for tokens, topics in zip(blocks.tokens[:, 1:], blocks.labels["topic"][:, 1:], strict=True):
        ends = [n for n, token in enumerate(tokens) if words[token] == "."]
        for first, last in pairwise(ends):
            span = slice(first + 1, last + 1)
            about = set(np.unique(topics[span])) - {TOPICS.index("neutral")}
            text = tale.decode(tokens[span])
            if len(tokens[span]) < 5 or "“" in text or "”" in text:
                continue
            if about == {TOPICS.index(TOPIC)}:
                by_topic["on"].append(text)
            elif TOPICS.index(TOPIC) not in about:
                by_topic["off"].append(text)
    return {name: list(dict.fromkeys(texts)) for name, texts in by_topic.items()}


def pairs(count: int = 160) -> list[Pair]:
    """So many pairs on the topic and twice as many off it, which answer with another sentence."""
    drawn = sentences()
    refused = [Pair(text=text + ASKED, answer=REFUSAL, label="on") for text in drawn["on"][:count]]
    answers = drawn["off"][-2 * count :]
    other = [
        Pair(text=text + ASKED, answer=answer, label="off")
        for text, answer in zip(drawn["off"][: 2 * count], answers, strict=True)
    ]
    return [*refused, *other]


def write_pairs(path: Path, written: Sequence[Pair]) -> Path:
    """The file that a config names."""
    values = [pair.model_dump(exclude_none=True) for pair in written]
    path.write_text(json.dumps({"pairs": values}), encoding="utf-8")
    return path


@cache
def base_model() -> LanguageModel:
    """The model of the embedded world."""
    return load_model(EMBEDDED)


@cache
def organism() -> LanguageModel:
    """The tuned copy, in memory."""
    lm = load_to_train(EMBEDDED)
    tune_model(lm, SETTINGS, split_pairs(pairs(), SETTINGS.held_out, 0).learned, 0)
    return lm
