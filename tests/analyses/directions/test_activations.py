"""What is read of prompts, and how answers would begin, against passes one by one and closed
forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from tiny_models import chat_language_model, tiny_language_model

from saeflow.analyses.directions.activations import (
    behaviour_tokens,
    divergence,
    odds,
    read_activations,
)
from saeflow.analyses.directions.settings import Behaviour
from saeflow.errors import SaeflowError
from saeflow.models.running import capture, logits

ROWS = [[0, 3, 4, 5, 6], [0, 7, 8], [0, 9, 10, 11, 12, 13, 14]]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_pass_over_padded_prompts_reads_what_each_alone_holds(family: str) -> None:
    lm = tiny_language_model(family)
    places = np.array([[len(row) - 2, len(row) - 1] for row in ROWS])
    read = read_activations(lm, ROWS, places, [0, 2], [5, 9])
    for number, row in enumerate(ROWS):
        hooks = [f"blocks.{layer}.hook_resid_post" for layer in (0, 2)]
        alone = capture(lm, torch.tensor([row]), hooks)
        expected = torch.stack([alone[hook][0, -2:] for hook in hooks], dim=1)
        torch.testing.assert_close(read.activations[number], expected, rtol=1e-4, atol=1e-5)
        p = logits(lm, torch.tensor([row]))[0, -1].double().softmax(-1)
        begins = float(p[5] + p[9])
        assert read.log_odds[number] == pytest.approx(np.log(begins / (1 - begins)), abs=1e-4)


def test_a_divergence_is_that_of_the_distributions_and_what_is_never_drawn_counts_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    usual, moved = (torch.randn(4, 9, generator=generator) for _ in range(2))
    usual[:, 2] = moved[:, 2] = -torch.inf
    p, q = (x.double().softmax(-1).numpy() for x in (usual, moved))
    np.testing.assert_allclose(divergence(usual, moved), rel_entr(p, q).sum(1), rtol=1e-6)
    np.testing.assert_array_equal(divergence(usual, usual), 0)


def test_log_probabilities_of_minus_infinity_are_refused_in_a_sentence() -> None:
    begun = torch.zeros(2, 5)
    begun[1, 3] = -torch.inf
    with pytest.raises(SaeflowError, match=r"^directions: log-odds are not finite: [^\n]*tokens$"):
        odds(begun, [3])
    assert np.isfinite(odds(begun, [2])).all()  # a token that is never drawn is no hindrance
    with pytest.raises(SaeflowError, match=r"^directions: a KL divergence is not finite: [^\n]*$"):
        divergence(torch.zeros(2, 5), begun)


def test_tokens_of_the_behaviour_are_single_ones() -> None:
    lm = chat_language_model()
    phrases = ["I think", "the cat"]
    default = behaviour_tokens(lm, Behaviour(phrases=phrases))
    assert lm.tokenizer.convert_ids_to_tokens(default) == ["the", "i"]
    named = Behaviour(phrases=phrases, tokens=["dog"])
    assert lm.tokenizer.convert_ids_to_tokens(behaviour_tokens(lm, named)) == ["dog"]
    for text, reason in (("I think", "'i', 'think'"), ("zebra", "a word that it does not know")):
        with pytest.raises(
            SaeflowError, match=rf"^directions.behaviour.tokens: '{text}' is no single .*{reason}"
        ):
            behaviour_tokens(lm, Behaviour(phrases=phrases, tokens=[text]))
