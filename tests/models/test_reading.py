"""Prompts are read at a position, whatever is read beside them."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_language_model

from saeflow.errors import SaeflowError
from saeflow.models.reading import read_at, read_rows
from saeflow.models.running import capture

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
PROMPTS = ["the cat sat on the mat", "a dog", "the dog ran", "I think", "the cat ran"]


def test_prompts_are_read_in_their_order_and_several_tokens_are_their_mean() -> None:
    lm = tiny_language_model("llama")
    for prompt, read in zip(PROMPTS, read_at(lm, PROMPTS, "all", HOOKS, "set"), strict=True):
        tokens = lm.tokenize(prompt)
        seen = capture(lm, torch.tensor([tokens]), HOOKS)
        assert read.tokens == tokens
        for hook in HOOKS:
            assert torch.equal(read.each[hook], seen[hook][0, 1:].float())
            assert torch.equal(read.activations[hook], seen[hook][0, 1:].float().mean(0))


@pytest.mark.parametrize("position", ["last", "all"])
def test_prompts_that_run_together_are_of_one_length_and_are_read_as_alone(position: str) -> None:
    lm = tiny_language_model("llama")
    rows = [lm.tokenize(prompt) for prompt in PROMPTS]
    alone = list(read_rows(lm, rows, position, HOOKS, [0] * len(rows), 1))
    together = list(read_rows(lm, rows, position, HOOKS, [0] * len(rows), 8))
    assert [each.numbers for each in alone] == [[i] for i in range(len(rows))]
    numbers = [number for each in together for number in each.numbers]
    assert sorted(numbers) == list(range(len(rows)))
    assert max(len(each.numbers) for each in together) == 2
    for each in together:
        assert len({len(rows[number]) for number in each.numbers}) == 1
        for place, number in enumerate(each.numbers):
            for hook in HOOKS:
                own = alone[number].activations[hook][0]
                assert torch.allclose(each.activations[hook][place], own, atol=1e-6)


def test_a_prompt_of_no_tokens_is_told() -> None:
    with pytest.raises(SaeflowError, match=r"set: text 1 has 1 tokens, BOS among them"):
        list(read_at(tiny_language_model("llama"), ["the cat", ""], "last", HOOKS, "set"))
