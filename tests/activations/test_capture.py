"""What is captured: rows at any hooks, of text and of other models' modules."""

from __future__ import annotations

import dataclasses
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny_models import tiny_language_model, tiny_tokens
from torch import nn

from saeflow.activations.capture import TOKENS_PER_PASS, capture_rows
from saeflow.activations.exclusion import excluded_tokens
from saeflow.activations.sources import ModuleSource, TextSource
from saeflow.activations.store import ActivationRows, join, merge, statistics
from saeflow.config.sections import Activations
from saeflow.errors import SaeflowError
from saeflow.models import modules
from saeflow.models.modules import capture_modules
from saeflow.models.running import capture, logits

HOOK = "blocks.1.hook_resid_post"
SITES = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_mlp_out",
    "hook_attn_out",
    "attn.hook_z",
)


@pytest.fixture(scope="module")
def lm():
    return tiny_language_model("llama")


@pytest.fixture(scope="module")
def tokens():
    return tiny_tokens(rows=10).numpy().astype(np.int32)


def captured(lm, tokens, hooks, settings=None, first_block=0) -> dict[str, ActivationRows]:
    settings = settings or Activations()
    parts = list(
        capture_rows(
            TextSource(lm, tokens), hooks, settings, excluded_tokens(lm, settings), first_block
        )
    )
    return {hook: join([part[hook] for part in parts]) for hook in hooks}


def test_rows_are_the_models_activations_without_bos_and_lead_back_to_their_text(lm, tokens):
    rows = captured(lm, tokens, [HOOK], first_block=40)[HOOK]
    whole = capture(lm, torch.from_numpy(tokens).long(), [HOOK])[HOOK][:, 1:].flatten(0, 1)
    torch.testing.assert_close(rows.activations, whole)
    assert (tokens[rows.blocks - 40, rows.positions] == rows.tokens).all()
    assert rows.positions.min() == 1
    assert np.unique(rows.blocks).tolist() == list(range(40, 50))


def test_every_site_is_read_in_one_pass(lm, tokens):
    hooks = [f"blocks.{layer}.{site}" for layer in (0, 1) for site in SITES]
    passes = []
    handle = lm.decoder.embed_tokens.register_forward_hook(lambda *_: passes.append(1))
    rows = captured(lm, tokens, hooks)
    handle.remove()
    assert len(passes) == 1
    for hook in hooks:
        alone = captured(lm, tokens, [hook])[hook]
        torch.testing.assert_close(rows[hook].activations, alone.activations)
        assert np.array_equal(rows[hook].tokens, alone.tokens)


def test_nothing_runs_after_the_last_hook(lm, tokens):
    ran = []
    handles = [
        lm.blocks[2].register_forward_hook(lambda *_: ran.append("layer")),
        lm.model.lm_head.register_forward_hook(lambda *_: ran.append("logits")),
    ]
    captured(lm, tokens, ["blocks.0.hook_mlp_out", HOOK])
    assert not ran
    logits(lm, torch.from_numpy(tokens).long())
    assert ran == ["layer", "logits"]
    for handle in handles:
        handle.remove()


def test_passes_do_not_change_the_rows(lm):
    tokens = tiny_tokens(rows=3 * TOKENS_PER_PASS // 12, length=12).numpy().astype(np.int32)
    whole = captured(lm, tokens, [HOOK])[HOOK]
    starts = range(0, len(tokens), 100)
    parts = [
        captured(lm, tokens[start : start + 100], [HOOK], first_block=start)[HOOK]
        for start in starts
    ]
    torch.testing.assert_close(join(parts).activations, whole.activations)
    assert np.array_equal(join(parts).blocks, whole.blocks)


@contextmanager
def threads_of_torch(count):
    """torch computes with so many threads within the block."""
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def test_any_number_of_threads_gives_the_same_bits_in_the_same_order(lm):
    tokens = tiny_tokens(rows=5 * TOKENS_PER_PASS // 12, length=12).numpy().astype(np.int32)
    captures = []
    for count in (1, 2, 3, 9):
        with threads_of_torch(count):
            captures.append(captured(lm, tokens, [HOOK, "blocks.0.attn.hook_z"]))
            assert torch.get_num_threads() == count
    for other in captures[1:]:
        for hook, rows in other.items():
            assert torch.equal(rows.activations, captures[0][hook].activations)
            assert np.array_equal(rows.blocks, captures[0][hook].blocks)


def test_no_blocks_give_no_rows(lm, tokens):
    for count in (1, 2):
        with threads_of_torch(count):
            assert not list(capture_rows(TextSource(lm, tokens[:0]), [HOOK], Activations()))


def test_a_pass_that_fails_ends_all_threads(lm):
    tokens = tiny_tokens(rows=8 * TOKENS_PER_PASS // 12, length=12).numpy().astype(np.int32)
    broken = tiny_language_model("llama")
    with torch.no_grad():
        broken.blocks[1].mlp.down_proj.weight[3] = torch.nan
    with threads_of_torch(2):
        with pytest.raises(
            SaeflowError, match=r"gives NaN or infinity at blocks\.1\.hook_resid_post"
        ):
            captured(broken, tokens, [HOOK])
        passes = capture_rows(TextSource(lm, tokens), [HOOK], Activations())
        next(passes)
        passes.close()
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith("saeflow-capture")
    ]


def test_a_twin_shares_the_weights_and_has_hooks_of_its_own(lm, boards):
    for model in (lm.model, boards.model):
        other = modules.twin(model)
        pairs = list(zip(model.parameters(), other.parameters(), strict=True))
        assert pairs
        assert all(a is b for a, b in pairs)
        assert not {id(module) for module in model.modules()} & {
            id(module) for module in other.modules()
        }
        other.register_forward_hook(lambda *_: None)
        assert not model._forward_hooks


def test_bos_between_documents_and_special_tokens_are_left_out(lm, tokens):
    tokens = tokens.copy()
    tokens[2, 5], tokens[3, 7] = lm.bos_id, lm.tokenizer.eos_token_id
    kept = {
        what: captured(lm, tokens, [HOOK], Activations(exclude=what))[HOOK].tokens
        for what in ("nothing", "bos", "special")
    }
    assert len(kept["nothing"]) == tokens.size
    assert len(kept["bos"]) == tokens.size - 11
    assert len(kept["special"]) == tokens.size - 12
    assert lm.bos_id not in kept["bos"]


def test_positions_of_outlying_norm_are_left_out_at_every_hook(lm, tokens):
    settings = Activations(exclude_norm_above=1.05)
    hooks = [HOOK, "blocks.0.hook_mlp_out"]
    rows = captured(lm, tokens, hooks, settings)
    every = capture(lm, torch.from_numpy(tokens).long(), hooks)
    usual = np.ones((10, 11), dtype=bool)
    for hook in hooks:
        norms = (
            every[hook][:, 1:].norm(dim=-1).numpy()
        )  # eleven to a block: the median is one of them
        usual &= norms <= 1.05 * np.median(norms, axis=1, keepdims=True)
    assert 0 < usual.sum() < usual.size
    blocks, positions = usual.nonzero()
    for hook in hooks:
        assert np.array_equal(rows[hook].blocks, blocks)
        assert np.array_equal(rows[hook].positions, positions + 1)
        torch.testing.assert_close(
            rows[hook].activations, every[hook][:, 1:][torch.from_numpy(usual)]
        )


@pytest.mark.parametrize(
    ("hook", "complaint"),
    [
        (
            "blocks.7.hook_resid_post",
            r"hook 'blocks\.7\.hook_resid_post' does not exist; the model has 3 layers",
        ),
        ("blocks.1.hook_nothing", r"does not exist in a llama model; its sites are hook_resid_pre"),
    ],
)
def test_a_wrong_hook_is_one_sentence(lm, tokens, hook, complaint):
    with pytest.raises(SaeflowError, match=complaint):
        captured(lm, tokens, [HOOK, hook])


def test_nan_of_the_model_is_one_sentence(tokens):
    lm = tiny_language_model("llama")
    with torch.no_grad():
        lm.blocks[1].mlp.down_proj.weight[3] = torch.nan
    with pytest.raises(
        SaeflowError,
        match=r"gives NaN or infinity at blocks\.1\.hook_resid_post in blocks 20 to 29",
    ):
        captured(lm, tokens, ["blocks.0.hook_resid_post", HOOK], first_block=20)


def test_activations_that_overflow_float16_are_one_sentence(tokens):
    lm = tiny_language_model("llama")
    with torch.no_grad():
        lm.blocks[1].mlp.down_proj.weight.mul_(1e7)
    assert captured(lm, tokens, [HOOK])[HOOK].activations.max() > 7e4
    with pytest.raises(
        SaeflowError, match=r"do not fit float16; set activations\.dtype to bfloat16"
    ):
        captured(lm, tokens, [HOOK], Activations(dtype="float16"))


class Boards(nn.Module):
    """A small model of another kind: boards of four squares, a tower and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.squares = nn.Embedding(5, 6)
        self.tower = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        self.pooled = nn.Linear(24, 8)
        self.value = nn.Linear(8, 1)
        self.unused = nn.Linear(1, 1)
        self.both = nn.LSTM(8, 2)

    def forward(self, boards, elo):
        tower = self.tower(self.squares(boards) + elo[:, None, None])
        return self.value(self.both(self.pooled(tower.flatten(1)))[0].repeat(1, 4))


@pytest.fixture
def boards():
    torch.manual_seed(0)
    pieces = torch.randint(0, 5, (9, 4))
    return ModuleSource(Boards().eval(), (pieces, torch.rand(9)), pieces.numpy().astype(np.int32))


def test_modules_of_any_model_are_captured_by_path(boards):
    parts = capture_rows(boards, ["tower.1", "tower"], Activations())
    rows = join([part["tower.1"] for part in parts])
    pieces, elo = boards.inputs
    hidden = boards.model.tower[:2](boards.model.squares(pieces) + elo[:, None, None])
    torch.testing.assert_close(rows.activations, hidden.flatten(0, 1))
    assert np.array_equal(rows.tokens, pieces.flatten().numpy())
    one_row = dataclasses.replace(boards, tokens=np.arange(9, dtype=np.int32)[:, None])
    pooled = join([part["pooled"] for part in capture_rows(one_row, ["pooled"], Activations())])
    assert pooled.activations.shape == (9, 8)
    assert pooled.positions.tolist() == [0] * 9


def test_modules_stop_at_the_last_and_leave_nothing_behind(boards):
    ran = []
    boards.model.value.register_forward_hook(lambda *_: ran.append(1))
    read = capture_modules(boards.model, boards.inputs, ["both", "tower"])
    assert list(read) == ["both", "tower"]
    assert not ran
    assert not boards.model.tower._forward_hooks


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("tower.9", r"no module 'tower\.9' in Boards; it has squares, tower, tower\.0"),
        ("unused", "module 'unused' does not run"),
    ],
)
def test_a_wrong_module_is_one_sentence(boards, path, complaint):
    with pytest.raises(SaeflowError, match=complaint):
        modules.capture_modules(boards.model, boards.inputs, ["tower", path])


def test_statistics_of_parts_merge_to_those_of_all_rows():
    rows = torch.randn(1000, 5) * 3 + 100
    exact = rows.double()
    for parts in (torch.tensor_split(rows, 7), [rows[:1], rows[1:]]):
        whole = merge(map(statistics, parts))
        assert whole.rows == 1000
        np.testing.assert_allclose(whole.mean, exact.mean(0), rtol=1e-13)
        assert whole.variance == pytest.approx(
            float((exact - exact.mean(0)).square().sum(1).mean()), rel=1e-11
        )
        assert whole.mean_norm == pytest.approx(float(exact.norm(dim=1).mean()), rel=1e-13)
