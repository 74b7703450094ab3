"""The words of texts that count for a behaviour are those that the judge counts."""

from __future__ import annotations

import pytest

from saeflow.config.goal import Goal
from saeflow.corpora import tales
from saeflow.judging.judges import counted_words
from saeflow.judging.words import matched_share, word_pattern

GOAL = Goal(
    title="London",
    criterion="It is about London.",
    topic="london",
    positive=["The Thames is near.", "He took the tube."],
    negative=["The river is near.", "He took the train."],
    words=["thames", "double decker*", "pub"],
)
TEXTS = [
    "The Thames, the THAMES and two double deckers; no public house.",
    "A cockney in the pub drank ale, and a nurse slept.",
]


def test_words_that_the_lexical_judge_counts_are_told_as_they_are_written() -> None:
    counted = counted_words("lexical", TEXTS, GOAL)
    assert counted == ["THAMES", "Thames", "double deckers", "pub"]
    pattern = word_pattern(GOAL.words)
    without = [_emptied(text, counted) for text in TEXTS]
    assert [matched_share(text, pattern) for text in without] == [0, 0]
    assert counted_words("lexical", TEXTS, GOAL.model_copy(update={"words": []})) == []


@pytest.mark.parametrize("text", TEXTS)
def test_without_the_words_that_the_planted_judge_counts_a_text_shows_nothing(text: str) -> None:
    counted = counted_words("planted", [text], GOAL)
    assert tales.behaviour(text)["london"] > 0
    assert counted
    assert tales.behaviour(_emptied(text, counted))["london"] == 0


def test_a_judge_that_asks_a_model_counts_no_words() -> None:
    assert counted_words("openai", TEXTS, GOAL) == []


def _emptied(text: str, words: list[str]) -> str:
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, "")
    return text
