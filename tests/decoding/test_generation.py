"""Steered decoding: exact reading, independent rows, a cache that changes nothing, the same text as
TransformerLens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from steered import D_MODEL, HOOK, tiny_lm, unit_rows
from tiny_models import FAMILY_NAMES, save_tiny_model

from saeflow.config.sections import Sampling
from saeflow.decoding.edits import Edit, apply
from saeflow.decoding.ending import lengths
from saeflow.decoding.generation import Memory, generate
from saeflow.decoding.recording import Recording
from saeflow.decoding.rollouts import Plan, Steered, prompt_groups, roll_out
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach
from saeflow.models.running import capture, logits
from saeflow.seeds import row_keys

PROMPTS = torch.tensor([[0, 5, 7], [0, 9, 4]])
NEW_TOKENS = 12

pytestmark = pytest.mark.usefixtures("one_thread")


def edit_of(n: int, scale: float = 3.0) -> Edit:
    return Edit("add", unit_rows(n), torch.full((n,), scale))


def keys_of(n: int) -> np.ndarray:
    return row_keys(0, "test", [(index,) for index in range(n)])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_latents_read_in_the_pass_equal_a_second_pass(family: str) -> None:
    lm, parts, offsets = tiny_lm(family), [], []

    def read(resid: torch.Tensor, offset: int) -> None:
        parts.append(resid)
        offsets.append(offset)

    tokens = generate(lm, PROMPTS, edit_of(2), HOOK, Sampling(), keys_of(6), NEW_TOKENS, read)
    text = torch.cat([PROMPTS.repeat_interleave(3, 0), tokens], 1)
    second = capture(lm, text, [HOOK])[HOOK]
    assert offsets == [0, *range(3, 3 + NEW_TOKENS)]
    torch.testing.assert_close(torch.cat(parts, 1), second, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("kind", ["add", "ablate", "clamp"])
def test_the_cache_and_shared_prompts_change_no_text(family: str, kind: str) -> None:
    lm = tiny_lm(family)
    edit = Edit(kind, unit_rows(2), torch.tensor([1.0, 2.0]), "all", include_bos=False)  # type: ignore[arg-type]
    cached = generate(lm, PROMPTS, edit, HOOK, Sampling(temperature=0), keys_of(4), NEW_TOKENS)
    text = PROMPTS.repeat_interleave(2, 0)
    for _ in range(NEW_TOKENS):
        with attach(lm, [(HOOK, lambda resid: apply(edit.repeat(2), resid, 0, 3))]):
            text = torch.cat([text, logits(lm, text)[:, -1].argmax(-1, keepdim=True)], 1)
    for ours, theirs, length in zip(cached, text[:, 3:], lengths(cached, lm.end_ids), strict=True):
        assert torch.equal(
            ours[: length + 1], theirs[: length + 1]
        )  # a text ends with the token that ends it


@pytest.mark.parametrize("positions", ["prompt", "generated", 4])
def test_an_edit_of_some_positions_is_the_same_with_and_without_cache(positions: str | int) -> None:
    lm = tiny_lm("gpt2")
    edit = Edit("add", unit_rows(2), torch.full((2,), 4.0), positions)  # type: ignore[arg-type]
    cached = generate(lm, PROMPTS, edit, HOOK, Sampling(temperature=0), keys_of(2), NEW_TOKENS)
    text = PROMPTS
    for _ in range(NEW_TOKENS):
        with attach(lm, [(HOOK, lambda resid: apply(edit, resid, 0, 3))]):
            text = torch.cat([text, logits(lm, text)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(cached, text[:, 3:])


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(top_k=5), Sampling(temperature=0.7, top_p=0.8)]
)
def test_scale_zero_is_the_unsteered_text(sampling: Sampling) -> None:
    lm = tiny_lm()
    steered = generate(lm, PROMPTS, edit_of(2, 0.0), HOOK, sampling, keys_of(6), NEW_TOKENS)
    assert torch.equal(steered, generate(lm, PROMPTS, None, HOOK, sampling, keys_of(6), NEW_TOKENS))


def test_a_large_scale_changes_the_text_and_each_row_has_its_own_vector() -> None:
    lm = tiny_lm()
    edit = Edit("add", unit_rows(2), torch.tensor([0.0, 30.0]))
    steered = generate(lm, PROMPTS, edit, HOOK, Sampling(), keys_of(6), NEW_TOKENS)
    free = generate(lm, PROMPTS, None, HOOK, Sampling(), keys_of(6), NEW_TOKENS)
    assert torch.equal(steered[:3], free[:3])
    assert not torch.equal(steered[3:], free[3:])


def test_a_row_draws_the_same_text_whatever_else_is_in_the_batch() -> None:
    lm = tiny_lm("gpt2")
    plan = Plan(4, NEW_TOKENS, Sampling(), 0, "test", batch_rows=32, read="all")
    (group,) = prompt_groups(lm, ["the cat", "a dog"])
    vectors, scales = unit_rows(7), torch.linspace(1, 9, 7)

    def texts(numbers: range) -> dict[tuple[int, int], list[list[int]]]:
        chosen = list(numbers)
        texts_by_row = {}
        steered = Steered(vectors[chosen], scales[chosen], chosen)
        for part in roll_out(lm, HOOK, group, steered, plan):
            assert part.resid is not None
            assert part.resid.shape[1:] == (4, 2 + NEW_TOKENS, D_MODEL)
            for unit, (vector, prompt) in enumerate(
                zip(part.vectors.tolist(), part.prompts, strict=True)
            ):
                texts_by_row[chosen[vector], prompt] = part.tokens[unit].tolist()
        return texts_by_row

    together = texts(range(7))
    apart = texts(range(2)) | texts(range(2, 3)) | texts(range(3, 7))
    assert together == apart
    assert len(together) == 14


def test_samples_that_do_not_fit_one_batch_are_the_same_as_those_that_do() -> None:
    lm = tiny_lm()
    (group,) = prompt_groups(lm, ["the cat"])

    def tokens(batch_rows: int) -> torch.Tensor:
        plan = Plan(10, NEW_TOKENS, Sampling(temperature=0.5), 0, "test", batch_rows)
        parts = list(roll_out(lm, HOOK, group, Steered(unit_rows(1), torch.ones(1), [0]), plan))
        assert [list(part.samples) for part in parts][-1][-1] == 9
        return torch.cat([part.tokens[0] for part in parts])

    assert torch.equal(tokens(64), tokens(4))


def test_a_batch_is_no_larger_than_all_units_fill_where_their_number_is_known() -> None:
    lm = tiny_lm()
    steered = Steered(unit_rows(3), torch.ones(3), range(3))
    (group,) = prompt_groups(lm, ["the cat"])
    rows: list[int] = []
    texts = []
    for units in (None, 3):
        plan = Plan(4, NEW_TOKENS, Sampling(temperature=0.5), 0, "test", 64, units=units)
        with attach(lm, [(HOOK, lambda resid: rows.append(len(resid)))]):
            (part,) = roll_out(lm, HOOK, group, steered, plan)
        texts.append(part.tokens)
    assert set(rows) == {16, 64, 4}  # prompts run once; 3 units stand in 4 slots
    assert torch.equal(*texts)


def test_equal_prompts_draw_different_noise() -> None:
    lm = tiny_lm()
    groups = prompt_groups(lm, ["", "the", "", "a dog", "cat"])
    assert [group.texts for group in groups] == [["", ""], ["the", "cat"], ["a dog"]]
    plan = Plan(4, NEW_TOKENS, Sampling(), 0, "test", 64)
    (part,) = roll_out(lm, HOOK, groups[0], Steered(unit_rows(1), torch.zeros(1), [0]), plan)
    assert not torch.equal(part.tokens[0], part.tokens[1])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_greedy_steered_text_equals_that_of_transformer_bridge(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        str(save_tiny_model(tmp_path / family, family)), device="cpu"
    )
    edit, text = edit_of(2, 5.0), PROMPTS
    added = (edit.scales[:, None] * edit.vectors)[:, None]
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            theirs = bridge.run_with_hooks(
                text, fwd_hooks=[(HOOK, lambda resid, hook: resid + added)]
            )
            text = torch.cat([text, theirs[:, -1].argmax(-1, keepdim=True)], 1)
    ours = generate(
        tiny_lm(family), PROMPTS, edit, HOOK, Sampling(temperature=0), keys_of(2), NEW_TOKENS
    )
    assert torch.equal(ours, text[:, 3:])


def test_a_text_longer_than_the_context_is_refused() -> None:
    with pytest.raises(SaeflowError, match="make 103 tokens and the model's context is 64"):
        generate(tiny_lm(), PROMPTS, None, HOOK, Sampling(), keys_of(2), 100)


def test_a_hook_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SaeflowError, match=r"'blocks.9.hook_resid_post' does not exist"):
        generate(tiny_lm(), PROMPTS, None, "blocks.9.hook_resid_post", Sampling(), keys_of(2), 3)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("positions", ["all", "generated", "prompt", 2])
def test_a_recorded_step_says_what_steps_one_by_one_say(family: str, positions: str | int) -> None:
    """Static keys and values, masks over positions not yet written, batches after batches in one
    memory."""
    lm, recording = tiny_lm(family), Recording()
    for scale in (4.0, 9.0):
        edit = edit_of(2, scale)._replace(positions=positions)
        texts, streams = [], []
        for recorded in (None, recording):
            parts: list[torch.Tensor] = []
            read = lambda resid, _, parts=parts: parts.append(resid)  # noqa: E731
            sampling = Sampling()
            texts.append(
                generate(
                    lm,
                    PROMPTS,
                    edit,
                    HOOK,
                    sampling,
                    keys_of(6),
                    NEW_TOKENS,
                    read,
                    memory=Memory(recording=recorded),
                )
            )
            streams.append(torch.cat(parts, 1))
        assert torch.equal(*texts)
        torch.testing.assert_close(*streams, rtol=1e-4, atol=1e-5)


def test_an_edit_that_begins_between_generated_tokens_is_not_recorded() -> None:
    lm, edit = tiny_lm(), edit_of(2)._replace(positions=PROMPTS.shape[1] + 2)
    one_by_one = generate(lm, PROMPTS, edit, HOOK, Sampling(), keys_of(6), NEW_TOKENS)
    recorded = generate(
        lm,
        PROMPTS,
        edit,
        HOOK,
        Sampling(),
        keys_of(6),
        NEW_TOKENS,
        memory=Memory(recording=Recording()),
    )
    assert torch.equal(one_by_one, recorded)
