"""Forward passes in part equal the whole, and compute no more than their part."""

from __future__ import annotations

import math

import pytest
import torch
from largest_tensor import LargestTensor
from tiny_models import FAMILY_NAMES, N_LAYERS, tiny_language_model, tiny_tokens

from saeflow.errors import SaeflowError
from saeflow.models.evaluation import block_losses
from saeflow.models.hooks import attach
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import (
    capture,
    clean_and_again,
    final_states,
    logits,
    next_token_losses,
    position_chunks,
    run_prefix,
    run_suffix,
    states_after,
    suffix_states,
    token_losses,
    unembed,
)


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def lm(request) -> LanguageModel:
    return tiny_language_model(request.param)


@pytest.fixture
def calls(lm):
    """Which layers ran, in order; and ``head`` for the unembedding."""
    ran = []
    handles = [
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
        for index, block in enumerate(lm.blocks)
    ]
    handles.append(lm.model.lm_head.register_forward_pre_hook(lambda *_: ran.append("head")))
    yield ran
    for handle in handles:
        handle.remove()


def test_captured_residuals_equal_the_hidden_states_of_transformers(lm):
    tokens = tiny_tokens()
    with torch.no_grad():
        states = lm.model(tokens, output_hidden_states=True).hidden_states
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(N_LAYERS)]
    captured = capture(lm, tokens, names)
    for layer in range(N_LAYERS - 1):  # the last hidden state comes after the final norm
        assert torch.equal(captured[names[layer]], states[layer + 1])
    assert torch.equal(
        capture(lm, tokens, ["blocks.0.hook_resid_pre"])["blocks.0.hook_resid_pre"], states[0]
    )


def test_a_capture_stops_at_the_last_hook(lm, calls):
    capture(lm, tiny_tokens(), ["blocks.1.hook_attn_out", "blocks.0.hook_resid_post"])
    assert calls == [0, 1]
    calls.clear()
    capture(lm, tiny_tokens(), ["blocks.2.hook_resid_post"])
    assert calls == [0, 1, 2]


def test_a_capture_gives_hooks_in_the_order_asked_for(lm):
    names = ["blocks.2.attn.hook_z", "blocks.0.hook_mlp_out", "blocks.1.hook_resid_pre"]
    assert list(capture(lm, tiny_tokens(), names)) == names
    assert capture(lm, tiny_tokens(), []) == {}


def test_a_capture_sees_the_edits_around_it(lm):
    name = "blocks.1.hook_resid_post"
    with attach(lm, [("blocks.0.hook_resid_post", torch.zeros_like)]):
        edited = capture(lm, tiny_tokens(), [name])[name]
    assert not torch.equal(edited, capture(lm, tiny_tokens(), [name])[name])


@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_prefix_and_suffix_make_the_whole_pass(lm, layer):
    tokens = tiny_tokens()
    assert torch.equal(run_suffix(lm, run_prefix(lm, tokens, layer), layer), logits(lm, tokens))


@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_a_suffix_computes_only_what_lies_above(lm, calls, layer):
    resid = run_prefix(lm, tiny_tokens(), layer)
    assert calls == list(range(layer + 1))
    calls.clear()
    run_suffix(lm, resid, layer)
    assert calls == [*range(layer + 1, N_LAYERS), "head"]


def test_an_edited_residual_gives_what_an_edit_inside_the_pass_gives(lm):
    tokens, vector = (
        tiny_tokens(),
        torch.randn(lm.d_model, generator=torch.Generator().manual_seed(3)),
    )
    with attach(lm, [("blocks.1.hook_resid_post", lambda resid: resid + vector)]):
        inside = logits(lm, tokens)
    assert torch.equal(run_suffix(lm, run_prefix(lm, tokens, 1) + vector, 1), inside)


def test_the_layers_are_back_after_an_error_in_the_suffix(lm):
    layers = list(lm.blocks)
    resid = run_prefix(lm, tiny_tokens(), 1)

    def fail(_resid):
        raise ArithmeticError

    with pytest.raises(ArithmeticError), attach(lm, [("blocks.2.hook_resid_post", fail)]):
        run_suffix(lm, resid, 1)
    assert all(now is before for now, before in zip(lm.blocks, layers, strict=True))


def test_a_layer_beyond_the_model_is_refused(lm):
    with pytest.raises(SaeflowError, match=r"the model has 3 layers \(0\.\.2\)"):
        run_prefix(lm, tiny_tokens(), 3)
    with pytest.raises(SaeflowError, match=r"the model has 3 layers \(0\.\.2\)"):
        run_suffix(lm, torch.zeros(1, 4, lm.d_model), 3)


def test_passes_keep_no_gradients(lm):
    tokens = tiny_tokens()
    assert not logits(lm, tokens).requires_grad
    assert not run_suffix(lm, run_prefix(lm, tokens, 0), 0).requires_grad


def test_token_losses_average_to_the_loss_of_transformers(lm):
    tokens = tiny_tokens()
    losses = token_losses(logits(lm, tokens), tokens)
    assert losses.shape == (2, 11)
    with torch.no_grad():
        expected = lm.model(tokens, labels=tokens).loss
    torch.testing.assert_close(losses.mean(), expected)


def test_the_loss_of_an_indifferent_model_is_the_logarithm_of_the_vocabulary():
    losses = token_losses(torch.zeros(3, 5, 64, dtype=torch.bfloat16), tiny_tokens(3, 5))
    torch.testing.assert_close(losses, torch.full((3, 4), math.log(64)))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_head_on_final_states_gives_the_models_own_logits(family):
    lm, tokens = tiny_language_model(family), tiny_tokens()
    expected, states = logits(lm, tokens), final_states(lm, tokens)
    torch.testing.assert_close(unembed(lm, states.flatten(0, 1)).view(expected.shape), expected)
    torch.testing.assert_close(unembed(lm, states[1, 3:5]), expected[1, 3:5])
    torch.testing.assert_close(suffix_states(lm, run_prefix(lm, tokens, 1), 1), states)
    torch.testing.assert_close(
        next_token_losses(lm, states, tokens), token_losses(expected, tokens)
    )
    assert torch.equal(logits(lm, tokens), expected), "the model is as it was"


def test_losses_in_parts_are_those_of_all_logits_at_once_and_never_hold_them():
    """Of 512 tokens of a vocabulary of 120,000 the logits are 61 million numbers."""
    lm = tiny_language_model("llama", vocab_size=120_000, max_position_embeddings=256)
    tokens = torch.randint(3, 120_000, (2, 256), generator=torch.Generator().manual_seed(0))
    assert len(list(position_chunks(lm, 2 * 255))) == 4
    with LargestTensor() as largest:
        losses = next_token_losses(lm, final_states(lm, tokens), tokens)
    assert largest.numbers == 128 * 120_000
    torch.testing.assert_close(losses, token_losses(logits(lm, tokens), tokens))
    assert next_token_losses(
        lm, torch.empty(3, 1, lm.d_model), torch.ones(3, 1, dtype=torch.long)
    ).shape == (3, 0)


def test_losses_of_blocks_do_not_depend_on_how_many_run_at_once(lm):
    tokens = tiny_tokens(rows=9).numpy()
    assert block_losses(lm, tokens, batch=2) == pytest.approx(block_losses(lm, tokens))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_no_text_longer_than_the_models_context_runs(family):
    """GPT-2 has no such position; rotary positions go on without a word, and the model reads what
    it never learned."""
    lm = tiny_language_model(family)
    longest, longer = (tiny_tokens(rows=1, length=length) for length in (64, 65))
    hook = "blocks.1.hook_resid_post"
    states = capture(lm, longest, [hook])[hook]
    for run in (
        lambda: logits(lm, longer),
        lambda: final_states(lm, longer),
        lambda: capture(lm, longer, [hook]),
        lambda: run_prefix(lm, longer, 1),
        lambda: run_suffix(lm, torch.cat([states, states[:, :1]], dim=1), 1),
        lambda: block_losses(lm, longer.numpy()),
    ):
        with pytest.raises(
            SaeflowError, match="text of 65 tokens is longer than the model's context, 64"
        ):
            run()
    assert run_suffix(lm, states, 1).shape == (1, 64, lm.d_vocab)


@pytest.mark.parametrize(
    ("site", "layer"),
    [("hook_resid_post", 1), ("hook_mlp_out", 2), ("hook_resid_pre", 1), ("attn.hook_z", 0)],
)
def test_running_again_from_the_edited_layer_equals_whole_passes(lm, calls, site, layer):
    tokens, edit = tiny_tokens(), (f"blocks.{layer}.{site}", torch.zeros_like)
    clean, run_again = clean_and_again(lm, tokens, layer)
    assert torch.equal(clean, final_states(lm, tokens))
    calls.clear()
    with attach(lm, [edit]):
        again = run_again()
        assert calls == list(range(layer, N_LAYERS))
        assert torch.equal(again, final_states(lm, tokens))
    assert not torch.equal(again, clean)


def test_states_after_prompts_that_are_run_once_equal_whole_passes(lm, calls):
    tokens, prompt_of = tiny_tokens(), torch.tensor([0, 1, 1])
    prompts, continuations = tokens[:2, :5], tokens[torch.tensor([0, 1, 0]), 5:]
    read: list[torch.Size] = []
    with attach(lm, [("blocks.0.hook_resid_post", lambda resid: read.append(resid.shape[:2]))]):
        states = states_after(lm, prompts, prompt_of, continuations)
    assert read == [prompts.shape, continuations.shape]
    whole = final_states(lm, torch.cat([prompts[prompt_of], continuations], dim=1))
    torch.testing.assert_close(states, whole[:, 4:], atol=1e-5, rtol=1e-4)


def test_the_states_of_prompts_without_continuation_are_those_of_their_last_tokens(lm):
    tokens = tiny_tokens()
    states = states_after(lm, tokens, torch.arange(len(tokens)), tokens[:, :0])
    torch.testing.assert_close(states, final_states(lm, tokens)[:, -1:], atol=1e-5, rtol=1e-4)
