"""What prompts are worth, and the slope of it, are those of the plain model run on the whole text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from largest_tensor import LargestTensor
from scipy.stats import spearmanr
from steered import D_MODEL, HOOK, tiny_lm, tiny_sae
from tiny_models import CHAT_TEMPLATE, D_VOCAB, chat_language_model, tiny_model

from saeflow.analyses.dreaming import scoring
from saeflow.analyses.dreaming.frame import Frame, Reader, alphabet, frame_of
from saeflow.analyses.dreaming.objectives import (
    LatentObjective,
    LogitObjective,
    ProjectionObjective,
    Target,
)
from saeflow.analyses.dreaming.scoring import Family, Position, Scorer
from saeflow.analyses.dreaming.settings import DreamFrame
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import logits, run_prefix, token_losses

FAMILIES = ("llama", "gemma", "gemma2", "gpt2", "gpt_neox")
TARGETS = [Target("3", "latent", (3,)), Target("both", "latents", (3, 7), "minimum")]
FRAME = Frame([0, 5, 9], [11, 4])


def prompts_of(rows: int, n: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, D_VOCAB, (rows, n), generator=torch.Generator().manual_seed(seed))


def scorer_of(lm: LanguageModel, frame: Frame = FRAME, position: Position = "last") -> Scorer:
    return Scorer(lm, frame, LatentObjective(tiny_sae(), HOOK, TARGETS), position)


def whole(prompts: torch.Tensor, frame: Frame = FRAME) -> torch.Tensor:
    rows = [[*frame.before, *prompt, *frame.after] for prompt in prompts.tolist()]
    return torch.tensor(rows)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frame", [FRAME, Frame([0], []), Frame([], [])])
def test_scores_are_those_of_the_whole_text(family: str, frame: Frame) -> None:
    lm, prompts = tiny_lm(family), prompts_of(6)
    of = torch.tensor([0, 1, 0, 1, 0, 1])
    tokens, opening = whole(prompts, frame), len(frame.before)
    pre = run_prefix(lm, tokens, 1) @ tiny_sae().W_enc
    inside = pre[:, opening : opening + 5]
    expected = torch.where(of[:, None] == 0, inside[..., 3], inside[..., [3, 7]].amin(-1))
    losses = token_losses(logits(lm, tokens), tokens)
    scored = losses[:, max(opening - 1, 0) : opening + 4].mean(1)
    behind_another = expected if opening else expected[:, 1:]
    for position, value in (("last", expected[:, -1]), ("maximum", behind_another.amax(1))):
        scores = scorer_of(lm, frame, position).score(prompts, of)
        torch.testing.assert_close(scores.values, value, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(scores.losses, scored, atol=2e-4, rtol=1e-4)
    along = scorer_of(lm, frame).along(prompts, of)
    torch.testing.assert_close(along, expected, atol=2e-4, rtol=1e-4)
    end = scorer_of(lm, frame, "end").score(prompts, of).values
    behind = torch.where(of == 0, pre[:, -1, 3], pre[:, -1, [3, 7]].amin(-1))
    torch.testing.assert_close(end, behind, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_slopes_are_the_gradient_of_one_hot_tokens(family: str) -> None:
    """The published way: one-hot rows through the embedding, which are also what is predicted."""
    lm, prompts = tiny_lm(family), prompts_of(3)
    of, weights = torch.tensor([0, 1, 0]), torch.tensor([0.5, 2.0, 0.1])
    slopes = scorer_of(lm).slopes(
        prompts, of, weights, torch.tensor([1.0, 1.0, 4.0]), torch.arange(D_VOCAB)
    )
    model = tiny_model(family).requires_grad_(False)  # as it comes from transformers
    table = model.get_input_embeddings()(torch.arange(D_VOCAB))
    one_hot = torch.nn.functional.one_hot(whole(prompts), D_VOCAB).float().requires_grad_()
    seen: list[Any] = []
    layer = lm.family.layers
    handle = model.get_submodule(f"{layer}.1").register_forward_hook(
        lambda _module, _inputs, output: seen.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    log_probs = model(inputs_embeds=one_hot @ table).logits.float().log_softmax(-1)
    handle.remove()
    opening = len(FRAME.before)
    pre = seen[0][:, opening + 4] @ tiny_sae().W_enc
    value = torch.where(of == 0, pre[:, 3], pre[:, [3, 7]].amin(-1))
    places = slice(opening, opening + 5)
    predicted = (log_probs[:, opening - 1 : opening + 4] * one_hot[:, places]).sum((1, 2)) / 5
    goal = weights * -predicted - value / torch.tensor([1.0, 1.0, 4.0])
    (gradient,) = torch.autograd.grad(goal.sum(), one_hot)
    torch.testing.assert_close(slopes, gradient[:, places], atol=1e-3, rtol=1e-3)


def test_what_a_gradient_promises_is_near_what_exchanging_the_token_gives() -> None:
    lm, prompt = tiny_lm(), prompts_of(1)
    scorer, words = scorer_of(lm), torch.arange(3, D_VOCAB)
    weights, ones = torch.tensor([0.5]), torch.ones(1)
    slopes = scorer.slopes(prompt, torch.zeros(1, dtype=torch.long), weights, ones, words)[0]
    correlations = []
    for place in range(5):
        rows = prompt.repeat(len(words), 1)
        rows[:, place] = words
        scores = scorer.score(rows, torch.zeros(len(rows), dtype=torch.long))
        exact = 0.5 * scores.losses - scores.values
        correlations.append(spearmanr(slopes[place].numpy(), exact.numpy()).statistic)
    assert np.mean(correlations) > 0.5
    assert min(correlations) > 0


def test_ranked_tokens_are_those_of_the_steepest_descent() -> None:
    lm, prompts = tiny_lm(), prompts_of(4)
    words, of = torch.tensor([3, 8, 11, 40, 41, 63]), torch.zeros(4, dtype=torch.long)
    given = (prompts, of, torch.full((4,), 0.3), torch.ones(4), words)
    slopes = scorer_of(lm).slopes(*given)
    ranked = scorer_of(lm).rank(*given, top=3)
    assert torch.equal(ranked.tokens, words[slopes.argsort(-1)[..., :3]])
    scores = scorer_of(lm).score(prompts, of)
    torch.testing.assert_close(ranked.scores.values, scores.values, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ranked.scores.losses, scores.losses, atol=1e-5, rtol=1e-4)


def test_nothing_above_the_hook_runs_where_no_cross_entropy_is_asked_for() -> None:
    lm, ran = tiny_lm(), []
    scorer = scorer_of(lm)
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(lm.blocks)
    ]
    of = torch.zeros(2, dtype=torch.long)
    scorer.score(prompts_of(2), of, losses=False)
    none = torch.zeros(2)
    scorer.slopes(prompts_of(2), of, none, torch.ones(2), torch.arange(3, 9))
    for handle in handles:
        handle.remove()
    assert 2 not in ran
    assert ran.count(0) == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", ["last", "maximum", "end"])
@pytest.mark.parametrize("frame", [FRAME, Frame([0], []), Frame([], [])])
def test_children_have_the_scores_of_their_whole_text(
    family: str, position: Position, frame: Frame
) -> None:
    scorer, parents = scorer_of(tiny_lm(family), frame, position), prompts_of(3)
    parent = torch.arange(24) % 3
    children = parents[parent].clone()
    for row in range(18):  # the last ones are their parents themselves
        children[row, row // 3 % 5 :: 2] = prompts_of(1, 5, row + 1)[0, row // 3 % 5 :: 2]
    own = torch.tensor([0, 1, 0])
    ours = scorer.score_children(Family(parents, own, children, parent))
    plain = scorer.score(children, own[parent])
    torch.testing.assert_close(ours.values, plain.values, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(ours.losses, plain.losses, atol=2e-4, rtol=1e-4)


def test_what_children_share_with_their_parent_is_run_once() -> None:
    lm, tokens = tiny_lm(), {0: 0, 2: 0}
    scorer = scorer_of(lm)
    handles = [
        lm.blocks[layer].register_forward_hook(
            lambda _module, _inputs, output, layer=layer: tokens.update(
                {layer: tokens[layer] + output[..., 0].numel()}
            )
        )
        for layer in tokens
    ]
    parents = prompts_of(2)
    children = parents.repeat_interleave(5, 0)
    children[range(10), [0, 1, 2, 3, 4] * 2] = 1
    of = torch.zeros(2, dtype=torch.long)
    scorer.score_children(Family(parents, of, children, torch.arange(2).repeat_interleave(5)))
    for handle in handles:
        handle.remove()
    assert tokens[0] == 2 * (5 + 5 + 4 + 3 + 2 + 1)
    assert tokens[2] == tokens[0] - 2  # what the last token predicts is not scored


def test_what_stands_before_is_run_once_and_what_stands_behind_only_where_it_is_read() -> None:
    lm, widths = tiny_lm(), []
    scorer = scorer_of(lm)
    handle = lm.blocks[0].register_forward_pre_hook(
        lambda _module, inputs, kwargs: widths.append(
            (inputs[0] if inputs else kwargs["hidden_states"]).shape[1]
        ),
        with_kwargs=True,
    )
    read_behind = scorer_of(lm, position="end")
    widths.clear()
    for each in (scorer, read_behind):
        each.score(prompts_of(4), torch.zeros(4, dtype=torch.long))
    handle.remove()
    assert widths == [5, 5 + len(FRAME.after)]


def test_projections_and_decoder_rows_are_products_with_unit_vectors() -> None:
    lm, prompts = tiny_lm(), prompts_of(3)
    vectors = [torch.randn(1, D_MODEL), torch.randn(2, D_MODEL)]
    targets = [Target("a", "direction"), Target("b", "direction", combine="sum")]
    scorer = Scorer(lm, FRAME, ProjectionObjective(HOOK, targets, vectors), "end")
    values = scorer.score(prompts, torch.tensor([0, 1, 1])).values
    last = run_prefix(lm, whole(prompts), 1)[:, -1]
    units = [torch.nn.functional.normalize(each, dim=1) for each in vectors]
    expected = torch.stack(
        [last[0] @ units[0][0], last[1] @ units[1].sum(0), last[2] @ units[1].sum(0)]
    )
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=1e-4)


def test_logits_are_told_against_a_token_or_the_largest_other() -> None:
    lm, prompts = tiny_lm(), prompts_of(2)
    pairs = [Target("pair", "logits", tokens=(7, 12)), Target("next", "logits", tokens=(7, -1))]
    objective = LogitObjective(pairs, lm.device)
    values = Scorer(lm, FRAME, objective, "end").score(prompts, torch.tensor([0, 1])).values
    last = logits(lm, whole(prompts))[:, -1]
    others = torch.cat([last[1, :7], last[1, 8:]])
    expected = torch.stack([last[0, 7] - last[0, 12], last[1, 7] - others.max()])
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=1e-4)


def test_a_token_that_nothing_stands_before_is_no_maximum() -> None:
    lm, prompts, of = tiny_lm(), prompts_of(6), torch.zeros(6, dtype=torch.long)
    bare = scorer_of(lm, Frame([], []), "maximum")
    expected = bare.along(prompts, of)[:, 1:].amax(1)
    torch.testing.assert_close(bare.score(prompts, of).values, expected, atol=1e-5, rtol=1e-5)
    behind = scorer_of(lm, Frame([0], []), "maximum")
    expected = behind.along(prompts, of).amax(1)
    torch.testing.assert_close(behind.score(prompts, of).values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_frame_that_fills_the_context_is_refused(family: str) -> None:
    lm = tiny_lm(family)
    with pytest.raises(SaeflowError, match="longer than the model's context, 64"):
        scorer_of(lm, Frame([0, *[5] * 60], [5] * 3))


def test_logits_that_an_objective_reads_are_bounded_however_many_prompts_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, most = tiny_lm(), 2 * 7 * D_VOCAB  # two prompts with what stands behind them
    objective = LogitObjective([Target("next", "logits", tokens=(7, -1))], lm.device)
    scorer = Scorer(lm, FRAME, objective, "end")
    prompts, of = prompts_of(64), torch.zeros(64, dtype=torch.long)
    whole_at_once = scorer.score(prompts, of)
    monkeypatch.setitem(scoring._LOGITS_AT_ONCE, "cpu", most)
    with LargestTensor() as largest:
        parts = scorer.score(prompts, of)
    assert largest.numbers <= max(most, lm.model.get_input_embeddings().weight.numel())
    torch.testing.assert_close(parts.values, whole_at_once.values, atol=1e-5, rtol=1e-5)


def test_a_user_speaks_in_the_chat_template_and_others_behind_bos() -> None:
    lm = chat_language_model()
    names = lm.tokenizer.convert_ids_to_tokens
    spoken = frame_of(lm, DreamFrame(speaker="user", before="the cat ", after=" ."))
    assert names(spoken.before) == ["<bos>", "<start>", "user", "the", "cat"]
    assert names(spoken.after) == [".", "<stop>", "<start>", "assistant"]
    assert frame_of(lm, DreamFrame()) == Frame([lm.bos_id], [])
    assert frame_of(lm, DreamFrame(bos=False, after=" mat")).before == []
    with pytest.raises(SaeflowError, match="no chat template"):
        frame_of(tiny_lm(), DreamFrame(speaker="user"))
    small = chat_language_model(
        template=CHAT_TEMPLATE.replace("['content']", "['content'] | lower")
    )
    with pytest.raises(SaeflowError, match="changes what users say"):
        frame_of(small, DreamFrame(speaker="user"))


def test_prompts_hold_no_special_tokens_and_only_what_is_asked_for() -> None:
    lm = tiny_lm()
    texts = lm.tokenizer.convert_ids_to_tokens
    every = texts(alphabet(lm, DreamFrame()).tolist())
    assert not {"<bos>", "<eos>", "<unk>"} & set(every)
    assert {"cat", ".", "I"} <= set(every)
    assert "." not in texts(alphabet(lm, DreamFrame(tokens="words")).tolist())
    assert sorted(texts(alphabet(lm, DreamFrame(only=["dog", "cat"])).tolist())) == ["cat", "dog"]
    with pytest.raises(SaeflowError, match="'lizard' is no token"):
        alphabet(lm, DreamFrame(only=["dog", "lizard"]))


def test_texts_of_prompts_are_told_from_those_that_are_read_otherwise() -> None:
    lm = chat_language_model()
    frame = frame_of(lm, DreamFrame(speaker="user"))
    reader, ids = Reader(lm, frame), lm.tokenizer.convert_tokens_to_ids
    good, bad = ids(["the", "dog", "."]), [*ids(["the"]), 60, *ids(["dog"])]  # 60 has no text
    assert reader.reads_back([good, bad]).tolist() == [True, False]
    assert reader.texts([good])[0].strip() == "the dog ."
    assert reader.read([good]) == [good]
