"""Hooks: the names of TransformerLens, on plain models, that leave nothing behind."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILY_NAMES, N_LAYERS, save_tiny_model, tiny_language_model, tiny_tokens

from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach, check_hook, parse_hook
from saeflow.models.language_model import LanguageModel, load_model
from saeflow.models.running import capture, logits

POST = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def lm(request) -> LanguageModel:
    return tiny_language_model(request.param)


def count_hooks(lm: LanguageModel) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules()
    )


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_site_holds_the_tensor_that_transformer_lens_names_so(family, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformer_lens.model_bridge import TransformerBridge

    directory = save_tiny_model(tmp_path / family, family)
    bridge = TransformerBridge.boot_transformers(str(directory), device="cpu")
    lm = load_model(directory)
    tokens = tiny_tokens()
    names = [f"blocks.{layer}.{site}" for layer in range(N_LAYERS) for site in lm.family.sites]
    with torch.no_grad():
        expected_logits, expected = bridge.run_with_cache(tokens, names_filter=names)
    ours = capture(lm, tokens, names)
    assert list(ours) == names
    for name in names:
        torch.testing.assert_close(
            ours[name], expected[name].reshape(ours[name].shape), atol=1e-5, rtol=0
        )
    torch.testing.assert_close(logits(lm, tokens), expected_logits, atol=1e-5, rtol=0)


def test_parallel_blocks_have_no_middle_and_neither_has_the_bridge(tmp_path):
    from transformer_lens.model_bridge import TransformerBridge

    directory = save_tiny_model(tmp_path / "neox", "gpt_neox")
    bridge = TransformerBridge.boot_transformers(str(directory), device="cpu")
    assert "blocks.0.hook_resid_mid" not in bridge.hook_dict
    with pytest.raises(
        SaeflowError,
        match=r"does not exist in a gpt_neox model \(attention and MLP read the same residual stream,"
        r" so there is none between them\); its sites are hook_resid_pre, ",
    ):
        check_hook(load_model(directory), "blocks.0.hook_resid_mid")


def test_an_added_vector_is_added_exactly_once(lm):
    vector, alpha = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1)), 2.5
    tokens = tiny_tokens()
    clean = capture(lm, tokens, [POST])[POST]
    with attach(lm, [(POST, lambda resid: resid + alpha * vector)]):
        steered = capture(lm, tokens, [POST, "blocks.2.hook_resid_pre", "blocks.0.hook_resid_post"])
    assert torch.equal(steered[POST], clean + alpha * vector)
    assert torch.equal(steered["blocks.2.hook_resid_pre"], clean + alpha * vector)
    assert torch.equal(
        steered["blocks.0.hook_resid_post"],
        capture(lm, tokens, ["blocks.0.hook_resid_post"]).popitem()[1],
    )


def test_every_row_may_carry_its_own_vector(lm):
    vectors = torch.randn(2, 1, lm.d_model, generator=torch.Generator().manual_seed(2))
    tokens = tiny_tokens()
    with attach(lm, [(POST, lambda resid: resid + vectors)]):
        together = logits(lm, tokens)
    for row in range(2):
        with attach(lm, [(POST, lambda resid, row=row: resid + vectors[row])]):
            alone = logits(lm, tokens[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_an_edit_at_every_editable_site_reaches_the_logits(lm):
    tokens = tiny_tokens()
    clean = logits(lm, tokens)
    for site, place in lm.family.sites.items():
        if place.editable:
            with attach(lm, [(f"blocks.1.{site}", torch.zeros_like)]):
                assert not torch.equal(logits(lm, tokens), clean), site


def test_the_residual_stream_is_the_sum_of_what_was_added_to_it(lm):
    sites = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    pre, attention, mlp, post = capture(
        lm, tiny_tokens(), [f"blocks.1.{site}" for site in sites]
    ).values()
    torch.testing.assert_close(pre + attention + mlp, post, atol=1e-5, rtol=0)


def test_functions_of_one_hook_are_called_in_order_and_none_leaves_the_tensor():
    lm = tiny_language_model("llama")
    seen = []
    functions = [
        lambda resid: resid * 0 + 1,
        lambda resid: seen.append(resid.mean().item()),
        lambda resid: resid * 3,
    ]
    with attach(lm, [(POST, function) for function in functions]):
        assert torch.equal(
            capture(lm, tiny_tokens(), [POST])[POST], torch.full((2, 12, lm.d_model), 3.0)
        )
    assert seen == [1.0]


def test_layers_that_return_tuples_are_read_and_edited_alike(monkeypatch):
    lm = tiny_language_model("llama")
    clean = capture(lm, tiny_tokens(), [POST])[POST]
    layer = lm.blocks[1]
    forward = layer.forward
    monkeypatch.setattr(
        layer, "forward", lambda *inputs, **named: (forward(*inputs, **named), "weights")
    )
    with attach(lm, [(POST, lambda resid: resid + 1)]):
        assert torch.equal(capture(lm, tiny_tokens(), [POST])[POST], clean + 1)


def test_nothing_is_left_behind(lm):
    before = count_hooks(lm)
    tokens = tiny_tokens()
    with attach(
        lm,
        [(f"blocks.{layer}.hook_resid_post", lambda resid: resid + 1) for layer in range(N_LAYERS)],
    ):
        assert count_hooks(lm) == before + N_LAYERS
        logits(lm, tokens)
    assert count_hooks(lm) == before


@pytest.mark.parametrize("bad", ["blocks.9.hook_resid_post", "blocks.0.hook_nothing"])
def test_nothing_is_left_behind_by_a_hook_that_does_not_exist(bad):
    lm = tiny_language_model("gpt2")
    before = count_hooks(lm)
    with (
        pytest.raises(SaeflowError),
        attach(lm, [(POST, lambda resid: resid), (bad, lambda resid: resid)]),
    ):
        pass
    assert count_hooks(lm) == before


def test_nothing_is_left_behind_by_an_error_in_a_function(lm):
    before, clean = count_hooks(lm), logits(lm, tiny_tokens())

    def fail(_resid):
        raise ArithmeticError

    with pytest.raises(ArithmeticError), attach(lm, [(POST, fail)]):
        logits(lm, tiny_tokens())
    assert count_hooks(lm) == before
    assert torch.equal(logits(lm, tiny_tokens()), clean)


def test_the_middle_of_a_layer_can_be_read_but_not_half_edited():
    lm = tiny_language_model("llama")
    middle = "blocks.1.hook_resid_mid"
    with attach(lm, [(middle, lambda resid: None)]):
        logits(lm, tiny_tokens())
    with (
        pytest.raises(SaeflowError, match="can be read but not edited"),
        attach(lm, [(middle, lambda resid: resid)]),
    ):
        logits(lm, tiny_tokens())


def test_a_hook_name_is_taken_apart():
    assert parse_hook("blocks.12.attn.hook_z") == (12, "attn.hook_z")
    with pytest.raises(SaeflowError, match=r"'layer\.3' is not a hook name"):
        parse_hook("layer.3")


def test_a_layer_beyond_the_model_is_refused_in_one_sentence():
    with pytest.raises(
        SaeflowError,
        match=r"'blocks\.9\.hook_resid_post' does not exist; the model has 3 layers \(0\.\.2\)",
    ):
        check_hook(tiny_language_model("llama"), "blocks.9.hook_resid_post")
