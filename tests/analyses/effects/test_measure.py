"""Effects are differences of mean latents on the model's own text, and a vector's do not depend on
the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from effect_blocks import same
from effects_experiment import EVALUATION, NORM, SETTINGS, experiment
from steered import D_MODEL, D_SAE, HOOK, tiny_lm, tiny_sae, unit_rows

from saeflow.analyses.effects.measure import (
    Baseline,
    EffectBlock,
    mean_latents,
    measure_baseline,
    measure_block,
    prepare,
)
from saeflow.analyses.effects.scale import STATUSES, TOLERANCE
from saeflow.analyses.effects.settings import Scale
from saeflow.config.sections import Sampling
from saeflow.decoding.edits import Edit
from saeflow.decoding.generation import generate
from saeflow.errors import SaeflowError
from saeflow.models.running import capture
from saeflow.saes.subject import Subject
from saeflow.seeds import row_keys

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def baseline(one_thread: None) -> Baseline:
    return measure_baseline(experiment())


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_an_effect_is_the_mean_over_steered_text_read_by_the_unsteered_model_minus_the_baseline(
    positions: str,
) -> None:
    exp = experiment(positions=positions, prompts=["the cat"])
    base = measure_baseline(exp)
    block = measure_block(exp, unit_rows(2), [0, 1], base)
    prompt = torch.tensor([exp.subject.lm.tokenize("the cat")])
    keys = row_keys(3, "effects", [("the cat", 0, sample) for sample in range(4)])
    edit = Edit("add", unit_rows(2)[1:], torch.tensor(block.scale[1:], dtype=torch.float32))
    tokens = generate(exp.subject.lm, prompt, edit, HOOK, SETTINGS.sampling, keys, 8)
    resid = capture(exp.subject.lm, torch.cat([prompt.expand(4, -1), tokens], 1), [HOOK])[HOOK]
    read = resid[:, 3:] if positions == "generated" else resid[:, 1:]
    expected = exp.subject.sae.encode(read).double().mean((0, 1)) - base.mean
    torch.testing.assert_close(block.effects[1].double(), expected, atol=1e-6, rtol=1e-5)


def test_an_effect_has_the_standard_error_of_rollouts_of_given_prompts(baseline: Baseline) -> None:
    exp, per_prompt = experiment(), []
    block = measure_block(exp, unit_rows(2), [0, 1], baseline)
    edit = Edit("add", unit_rows(2)[1:], torch.tensor(block.scale[1:], dtype=torch.float32))
    for text in SETTINGS.prompts:
        prompt = torch.tensor([exp.subject.lm.tokenize(text)])
        keys = row_keys(3, "effects", [(text, 0, sample) for sample in range(4)])
        tokens = generate(exp.subject.lm, prompt, edit, HOOK, SETTINGS.sampling, keys, 8)
        resid = capture(exp.subject.lm, torch.cat([prompt.expand(4, -1), tokens], 1), [HOOK])[HOOK]
        per_prompt.append(exp.subject.sae.encode(resid[:, prompt.shape[1] :]).double().mean(1))
    # The mean over prompts of means over four rollouts: a third of the errors of three means, added
    # in quadrature.
    expected = torch.stack([rollouts.var(0) / 4 for rollouts in per_prompt]).sum(0).sqrt() / 3
    assert block.standard_error.dtype == torch.float16
    torch.testing.assert_close(block.standard_error[1].double(), expected, atol=1e-5, rtol=2e-3)
    single = measure_block(experiment(samples=1), unit_rows(2), [0, 1], baseline)
    assert single.standard_error.isnan().all()


def test_the_baseline_is_a_mean_with_the_standard_error_of_its_rollouts(baseline: Baseline) -> None:
    exp, means = experiment(), []
    for text in SETTINGS.prompts:
        prompt = torch.tensor([exp.subject.lm.tokenize(text)])
        keys = row_keys(3, "effects", [(text, 0, sample) for sample in range(6)])
        tokens = generate(exp.subject.lm, prompt, None, HOOK, SETTINGS.sampling, keys, 8)
        resid = capture(exp.subject.lm, torch.cat([prompt.expand(6, -1), tokens], 1), [HOOK])[HOOK]
        means.append(exp.subject.sae.encode(resid[:, prompt.shape[1] :]).double().mean(1))
    rollouts = torch.cat(means)
    assert baseline.rollouts == 18
    torch.testing.assert_close(baseline.mean, rollouts.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        baseline.standard_error, rollouts.std(0) / 18**0.5, atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_vector_has_the_same_effects_to_the_bit_in_any_split_into_blocks(family: str) -> None:
    exp = experiment(family=family)
    base, vectors = measure_baseline(exp), unit_rows(7)
    together = measure_block(exp, vectors, range(7), base)
    for split in ([[0, 1, 2], [3, 4, 5, 6]], [[0], [1, 2, 3, 4], [5, 6]]):
        parts = [measure_block(exp, vectors[part], part, base) for part in split]
        joined = [
            np.concatenate([np.asarray(part[column]) for part in parts])
            for column in range(len(together))
        ]
        assert same(EffectBlock(*joined), together)


def test_a_vector_has_the_same_effects_to_the_bit_beside_other_vectors(baseline: Baseline) -> None:
    vectors = unit_rows(4)
    others = torch.cat([unit_rows(3, seed=9), vectors[3:]])
    block, beside = (
        measure_block(experiment(), among, range(4), baseline) for among in (vectors, others)
    )
    assert torch.equal(block.effects[3], beside.effects[3])
    assert not torch.equal(block.effects[2], beside.effects[2])


def test_another_batch_size_changes_effects_by_rounding_alone(baseline: Baseline) -> None:
    first, other = (
        measure_block(experiment(rows), unit_rows(4), range(4), baseline) for rows in (8, 128)
    )
    torch.testing.assert_close(first.effects, other.effects, atol=1e-4, rtol=1e-3)


def test_a_scale_of_zero_has_the_baseline_s_own_noise() -> None:
    exp = experiment(baseline_samples=4, scale=Scale(rule="loss", value=0.001, tokens=64))
    block = measure_block(exp, unit_rows(2), range(2), measure_baseline(exp))
    assert [STATUSES[status] for status in block.status] == ["above_at_zero"] * 2
    assert block.scale.tolist() == [0, 0]
    assert block.effects.abs().max() < 1e-6


def test_scales_raise_the_loss_of_the_model_s_own_text_by_the_value() -> None:
    lm = tiny_lm()
    bos, keys = (
        torch.zeros(8, 1, dtype=torch.long),
        row_keys(0, "text", [(row,) for row in range(8)]),
    )
    text = torch.cat([bos, generate(lm, bos, None, HOOK, Sampling(), keys, 31)], 1).int().numpy()
    settings = SETTINGS.model_copy(update={"scale": Scale(value=0.1, tokens=256)})
    exp = prepare(Subject(lm, tiny_sae(), HOOK, 3), settings, text, NORM, batch_rows=32)
    block = measure_block(exp, unit_rows(4), range(4), measure_baseline(exp))
    assert [STATUSES[status] for status in block.status] == ["ok"] * 4
    np.testing.assert_allclose(block.loss, exp.evaluation.loss + 0.1, atol=TOLERANCE * 0.1)
    assert block.vectors.norm(dim=1).allclose(torch.ones(4))


def test_latents_in_parts_are_the_latents_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resid = torch.randn(10, 6, D_MODEL, generator=torch.Generator().manual_seed(0))
    ((rows, whole),) = mean_latents(tiny_sae(), resid)
    assert rows == slice(0, 10)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(whole, tiny_sae().encode(resid).double().mean(1))
    monkeypatch.setattr("saeflow.analyses.effects.measure.LATENTS_AT_ONCE", {"cpu": 3 * 6 * D_SAE})
    parts = list(mean_latents(tiny_sae(), resid))
    assert [rows for rows, _ in parts] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    torch.testing.assert_close(
        torch.cat([means for _, means in parts]), whole, atol=1e-7, rtol=1e-6
    )


def test_of_texts_that_end_early_latents_before_the_end_count_whatever_else_is_in_the_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resid = torch.randn(10, 6, D_MODEL, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([6, 6, 6, 6, 2, 6, 1, 6, 6, 5])  # the first part of three has no end
    latents = tiny_sae().encode(resid).double()
    expected = torch.stack([row[:n].mean(0) for row, n in zip(latents, counts, strict=True)])
    monkeypatch.setattr("saeflow.analyses.effects.measure.LATENTS_AT_ONCE", {"cpu": 3 * 6 * D_SAE})
    parts = [means for _, means in mean_latents(tiny_sae(), resid, counts)]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-7, rtol=1e-6)
    of_all = [means for _, means in mean_latents(tiny_sae(), resid, torch.full((10,), 6))]
    assert torch.equal(torch.cat(of_all)[:3], parts[0])


@pytest.mark.parametrize(
    ("vectors", "complaint"),
    [
        (torch.zeros(0, D_MODEL), "the range of vectors is empty"),
        (torch.ones(2, 7), r"shape \(2, 7\) and the model is 32 wide"),
        (torch.full((1, D_MODEL), float("nan")), "vector 0 holds NaN"),
    ],
)
def test_vectors_that_cannot_steer_are_refused_in_one_sentence(
    vectors: torch.Tensor, complaint: str, baseline: Baseline
) -> None:
    with pytest.raises(SaeflowError, match=complaint):
        measure_block(experiment(), vectors, range(len(vectors)), baseline)


def test_vectors_of_zeros_leave_the_effects_of_all_others_as_they_are(baseline: Baseline) -> None:
    vectors = unit_rows(4)
    vectors[[0, 2]] = 0
    block, alone = (
        measure_block(
            experiment(scale=Scale(rule="fixed", value=2.0, tokens=64)), batch, ids, baseline
        )
        for batch, ids in ((vectors, range(4)), (vectors[[1, 3]], [1, 3]))
    )
    assert same(EffectBlock(*(column[[1, 3]] for column in block)), alone)
    assert [STATUSES[status] for status in block.status[[0, 2]]] == ["zero_vector"] * 2
    assert not block.effects[[0, 2]].any()
    assert block.scale[[0, 2]].tolist() == block.rollouts[[0, 2]].tolist() == [0, 0]
    nothing = measure_block(experiment(), torch.zeros(2, D_MODEL), [4, 5], baseline)
    assert nothing.vector_id.tolist() == [4, 5]
    assert not nothing.scale.any()


def test_an_sae_of_another_width_is_refused() -> None:
    sae = tiny_sae()
    narrow = type(sae)("standard", sae.W_enc[:5], sae.W_dec[:, :5], sae.b_enc, sae.b_dec[:5])
    with pytest.raises(SaeflowError, match="the SAE reads width 5 and the model is 32 wide"):
        prepare(Subject(tiny_lm(), narrow, HOOK, 0), SETTINGS, EVALUATION, NORM)
