"""What the model says with something added at the separator is what an edited pass says, and the
gradient is that of the whole pass."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_language_model

from saeflow.analyses.tasks.answering import Frozen, answer
from saeflow.analyses.tasks.prompts import Question
from saeflow.models.hooks import attach
from saeflow.models.running import logits

QUESTIONS = [
    Question([0, 5, 6, 7], [8, 9], 2),
    Question([0, 4, 7], [10], 1),
    Question([0, 11, 3, 12, 13, 7], [5, 6, 4], 3),
]
FAMILIES = ("llama", "gpt2", "gemma2")


def by_itself(lm, question: Question, vector: torch.Tensor, layer: int) -> tuple[float, bool]:
    """Of one prompt without padding, in a pass of the whole model."""
    place, tokens = len(question.tokens) - 1, [*question.tokens, *question.answer[:-1]]

    def add(resid: torch.Tensor) -> torch.Tensor:
        edited = resid.clone()
        edited[:, place] += vector
        return edited

    with attach(lm, [(f"blocks.{layer}.hook_resid_post", add)]):
        said = logits(lm, torch.tensor([tokens]))[0, place:].log_softmax(-1)
    right = torch.tensor(question.answer)
    loss = -said[torch.arange(len(right)), right].sum()
    return float(loss), bool((said.argmax(-1) == right).all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_adding_at_the_separator_is_what_a_pass_of_the_whole_model_says(
    family: str, layer: int
) -> None:
    lm = tiny_language_model(family)
    vector = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    said = Frozen(lm, QUESTIONS, layer).with_added(vector)
    for number, question in enumerate(QUESTIONS):
        loss, right = by_itself(lm, question, vector, layer)
        assert said.loss[number] == pytest.approx(loss, abs=1e-4)
        assert bool(said.right[number]) == right


def test_adding_nothing_is_what_the_model_says_by_itself() -> None:
    lm = tiny_language_model("llama")
    said, usual = Frozen(lm, QUESTIONS, 1).with_added(torch.zeros(32)), answer(lm, QUESTIONS)
    torch.testing.assert_close(said.loss, usual.loss)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_finite_differences(family: str) -> None:
    lm = tiny_language_model(family)
    lm.model.double()
    frozen = Frozen(lm, QUESTIONS, 1)
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(32, generator=generator, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(frozen.losses(vector).mean(), vector)
    step = 1e-2 * torch.randn(32, generator=generator, dtype=torch.float64)
    ends = [frozen.losses(vector + sign * step).mean().item() for sign in (1, -1)]
    assert float(gradient @ step) == pytest.approx((ends[0] - ends[1]) / 2, rel=2e-2)
    assert not any(parameter.grad is not None for parameter in lm.model.parameters())
