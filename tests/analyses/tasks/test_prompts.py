"""Prompts end at the separator, whichever tokens it is, and show only pairs to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from planted_tasks import PROMPTS, planted_model, splits
from tiny_models import tiny_language_model

from saeflow.analyses.tasks.lists import Pair
from saeflow.analyses.tasks.prompts import (
    Shown,
    check_answers,
    drawn_pairs,
    places_of,
    question,
    with_examples,
)
from saeflow.analyses.tasks.settings import TaskPrompts
from saeflow.errors import SaeflowError

CAT, DOG = Pair("cat", "dog"), Pair("mat", "tree ran")
PLAIN = TaskPrompts(before="", template="{input} then {output} .", other=None, scored=2)


def test_a_prompt_ends_at_the_separator_and_is_followed_by_the_answer() -> None:
    lm = tiny_language_model("llama")
    read = question(lm, Shown([CAT], DOG), PLAIN, PLAIN.template, "own")
    assert lm.tokenizer.convert_ids_to_tokens(read.tokens) == [
        *("<bos>", "cat", "then", "dog", ".", "mat", "then"),
    ]
    assert lm.tokenizer.convert_ids_to_tokens(read.answer) == ["tree", "ran"]
    assert read.whole == 2


def test_answers_count_up_to_so_many_tokens_and_tell_how_many_they_have() -> None:
    lm = tiny_language_model("llama")
    first = PLAIN.model_copy(update={"scored": 1})
    read = question(lm, Shown([], DOG), first, PLAIN.template, "own")
    assert (len(read.answer), read.whole) == (1, 2)


def test_places_are_those_of_the_parts_of_examples() -> None:
    lm = tiny_language_model("llama")
    tokens, places = places_of(lm, Shown([DOG], CAT), PLAIN, PLAIN.template, "own")
    words = lm.tokenizer.convert_ids_to_tokens(tokens)
    said = {part: [words[place] for place in own] for part, own in places.items()}
    assert said == {"input": ["mat", "cat"], "separator": ["then", "then"], "output": ["ran"]}


def test_an_output_without_tokens_is_refused() -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(SaeflowError, match="no tokens for the output 'house' of 'own'"):
        question(lm, Shown([], Pair("cat", "house")), PLAIN, PLAIN.template, "own")


def test_an_input_without_tokens_is_refused() -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(SaeflowError, match="no tokens for the input 'дом' of 'own'"):
        question(lm, Shown([], Pair("дом", "cat")), PLAIN, PLAIN.template, "own")


def test_a_prompt_beyond_the_context_is_refused() -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(SaeflowError, match=r"set fewer tasks\.prompts\.shots"):
        question(lm, Shown([CAT] * 20, DOG), PLAIN, PLAIN.template, "own")


def test_answers_that_count_as_one_and_the_same_are_refused() -> None:
    lm = tiny_language_model("llama")
    first = PLAIN.model_copy(update={"scored": 1})
    shown = [Shown([], Pair("cat", "tree ran")), Shown([], Pair("mat", "tree sat"))]
    read = [question(lm, each, first, PLAIN.template, "own") for each in shown]
    with pytest.raises(SaeflowError, match="first 1 tokens of all outputs of 'own' are the same"):
        check_answers(read, "own")


def test_examples_are_of_the_pairs_to_learn_from_and_never_the_one_asked_for() -> None:
    split = splits()["one"]
    asked = [*split["test"], *split["train"]]
    for shown in with_examples(asked, split["train"], 4, np.random.default_rng(0)):
        assert set(shown.examples) <= set(split["train"]) - {shown.asked}
        assert len(set(shown.examples)) == 4


def test_exchanged_examples_have_the_outputs_of_others_and_the_same_words() -> None:
    split = splits()["one"]
    plain, exchanged = (
        with_examples(split["test"], split["train"], 4, np.random.default_rng(0), each)
        for each in (False, True)
    )
    for prompt, other in zip(plain, exchanged, strict=True):
        assert not set(prompt.examples) & set(other.examples)
        for part in (0, 1):
            words = [sorted(pair[part] for pair in each.examples) for each in (prompt, other)]
            assert words[0] == words[1]


def test_too_few_pairs_for_the_examples_are_refused() -> None:
    pool = splits()["one"]["train"]
    with pytest.raises(SaeflowError, match=r"tasks\.prompts\.shots: 12 examples beside"):
        with_examples(pool, pool, 12, np.random.default_rng(0))


def test_drawn_pairs_come_equally_often() -> None:
    pool = splits()["one"]["train"]
    drawn = drawn_pairs(pool, 2 * len(pool) + 1, np.random.default_rng(0))
    counts = [drawn.count(pair) for pair in pool]
    assert sorted(set(counts)) == [2, 3]


def test_a_separator_is_found_where_its_token_stands_in_a_real_template() -> None:
    lm = planted_model()
    read = question(lm, Shown([], Pair("x1", "y2")), PROMPTS, PROMPTS.template, "one")
    assert lm.tokenizer.convert_ids_to_tokens(read.tokens) == ["<bos>", "x1", "->"]
