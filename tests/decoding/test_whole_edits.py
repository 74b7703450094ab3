"""Directions taken out everywhere, or added at one place, of prompts and generated text alike."""

from __future__ import annotations

import pytest
import torch
from steered import unit_rows
from tiny_models import FAMILY_NAMES, tiny_language_model

from saeflow.decoding.answers import greedy_answers
from saeflow.decoding.edits import ablated, added, write_sites
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture, logits

TOKENS = torch.tensor([[0, 3, 4, 5, 6, 7, 8, 9]])

pytestmark = pytest.mark.usefixtures("one_thread")


def streams(lm: LanguageModel) -> dict[str, torch.Tensor]:
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(lm.n_layers)]
    return capture(lm, TOKENS, hooks)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_ablated_direction_is_in_no_block_s_output(family: str) -> None:
    lm = tiny_language_model(family)
    vector = unit_rows(1)[0]
    before = streams(lm)
    with ablated(lm, vector):
        after = streams(lm)
    for hook, resid in after.items():
        assert (before[hook] @ vector).abs().max() > 1e-3
        assert (resid @ vector).abs().max() < 1e-5 * resid.norm(dim=-1).max(), hook
    assert torch.equal(streams(lm)[hook], before[hook])  # the model is as it was


def test_every_write_site_is_there_once() -> None:
    lm = tiny_language_model("llama")
    sites = write_sites(lm)
    assert len(sites) == len(set(sites)) == 1 + 2 * lm.n_layers
    written = capture(lm, TOKENS, sites)
    last = streams(lm)[f"blocks.{lm.n_layers - 1}.hook_resid_post"]
    torch.testing.assert_close(sum(written.values()), last)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_scale_is_added_exactly_once_to_every_token(family: str) -> None:
    lm = tiny_language_model(family)
    vector, hook = unit_rows(1)[0], "blocks.1.hook_resid_post"
    before = streams(lm)
    with added(lm, hook, vector, 3.0):
        after = streams(lm)
    torch.testing.assert_close(after[hook] - before[hook], (3.0 * vector).expand_as(after[hook]))
    assert torch.equal(after["blocks.0.hook_resid_post"], before["blocks.0.hook_resid_post"])
    assert not torch.allclose(after["blocks.2.hook_resid_post"], before["blocks.2.hook_resid_post"])


def test_generated_tokens_are_edited_as_prompts_are() -> None:
    lm = tiny_language_model("llama")
    vector = unit_rows(1)[0]
    for edit in (ablated(lm, vector), added(lm, "blocks.1.hook_resid_post", vector, 4.0)):
        with edit:
            [answer] = greedy_answers(lm, TOKENS.tolist(), 6)
            whole = torch.tensor([TOKENS[0].tolist() + answer])
            said = logits(lm, whole)[0, TOKENS.shape[1] - 1 : -1].argmax(-1).tolist()
        assert said == answer  # a pass over all of the text sees what the cached steps saw


def test_each_generated_token_is_edited_once() -> None:
    lm = tiny_language_model("llama")
    vector, hook, seen = unit_rows(1)[0], "blocks.1.hook_resid_post", []
    with (
        attach(lm, [(hook, lambda resid: seen.append(resid.clone()))]),
        added(lm, hook, vector, 4.0),
        attach(lm, [(hook, lambda resid: seen.append(resid.clone()))]),
    ):
        greedy_answers(lm, TOKENS.tolist(), 5)
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert len(pairs) == 5  # the prompt, then one per token but the last
    for before, after in pairs:
        torch.testing.assert_close(after - before, (4.0 * vector).expand_as(before))


@pytest.mark.parametrize(
    ("hook", "reason"),
    [("blocks.1.hook_mlp_out", "cannot be steered"), ("blocks.9.hook_resid_post", "3 layers")],
)
def test_what_cannot_be_added_to_is_refused(hook: str, reason: str) -> None:
    lm = tiny_language_model("llama")
    with (
        pytest.raises(SaeflowError, match=reason),
        added(lm, hook, unit_rows(1)[0], 1.0),
    ):
        pass
