"""SAEs as they are used: closed forms, files, metrics."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_language_model, tiny_tokens

from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.running import capture
from saeflow.saes.evaluation import (
    Fidelity,
    decoder_cosines,
    evaluate_sae,
    fidelity_metrics,
    with_errors,
)
from saeflow.saes.io import load_sae, save_sae
from saeflow.saes.recovery import planted_recovery, recovery, recovery_metrics
from saeflow.saes.sae import SAE

D_MODEL, D_SAE = 6, 20
HOOK = "blocks.1.hook_resid_post"


def random_sae(architecture: str, d_model: int = D_MODEL) -> SAE:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(D_SAE, d_model, generator=generator)
    sae = SAE(
        architecture=architecture,
        W_enc=torch.randn(d_model, D_SAE, generator=generator),
        W_dec=rows / rows.norm(dim=1, keepdim=True),
        b_enc=torch.randn(D_SAE, generator=generator),
        b_dec=torch.randn(d_model, generator=generator),
        threshold=torch.rand(D_SAE, generator=generator) if architecture == "jumprelu" else None,
        k=3 if architecture == "topk" else None,
        metadata={"model_name": "tiny", "hook_name": HOOK},
    )
    if architecture != "gated":
        return sae
    own = {name: torch.randn(D_SAE, generator=generator) for name in ("r_mag", "b_gate", "b_mag")}
    return dataclasses.replace(sae, b_enc=torch.zeros(D_SAE), **own)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_reach_is_the_latent_where_it_fires_and_rises_to_zero_where_it_does_not(
    architecture: str,
) -> None:
    sae, x = random_sae(architecture), torch.randn(4, 9, D_MODEL)
    latents = torch.tensor([11, 2, 7])
    values, reached = sae.encode(x)[..., latents], sae.reach(x, latents)
    fires = values > 0
    assert fires.any()
    assert not fires.all()
    torch.testing.assert_close(reached[fires], values[fires])
    assert (reached[~fires] <= 0).all()
    x = x[~fires.any(-1)][:1].requires_grad_()
    (slope,) = torch.autograd.grad(sae.reach(x, latents)[0, 0], x)
    assert sae.reach(x + 1e-3 * slope, latents)[0, 0] > sae.reach(x, latents)[0, 0]


def by_hand(sae: SAE, row: torch.Tensor) -> list[float]:
    """The latents of one row, number by number."""
    pre = [
        float(sum(row[i] * sae.W_enc[i, j] for i in range(sae.d_model)) + sae.b_enc[j])
        for j in range(sae.d_sae)
    ]
    if sae.architecture == "topk":
        kept = sorted(range(sae.d_sae), key=lambda j: -pre[j])[: sae.k]
        return [max(pre[j], 0.0) if j in kept else 0.0 for j in range(sae.d_sae)]
    if sae.architecture == "gated":
        open_ = [value + float(bias) > 0 for value, bias in zip(pre, sae.b_gate, strict=True)]
        size = [
            math.exp(r) * value + float(b)
            for r, value, b in zip(sae.r_mag, pre, sae.b_mag, strict=True)
        ]
        return [
            max(value, 0.0) if is_open else 0.0 for is_open, value in zip(open_, size, strict=True)
        ]
    floor = [0.0] * sae.d_sae if sae.threshold is None else sae.threshold.tolist()
    return [value if value > max(floor[j], 0.0) else 0.0 for j, value in enumerate(pre)]


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_encoding_and_decoding_are_the_closed_forms(architecture):
    sae = random_sae(architecture)
    x = torch.randn(2, 5, D_MODEL)
    latents = sae.encode(x)
    expected = torch.tensor([[by_hand(sae, row) for row in block] for block in x])
    torch.testing.assert_close(latents, expected)
    summed = sum((latents[1, 2, j] * sae.W_dec[j] for j in range(D_SAE)), sae.b_dec)
    torch.testing.assert_close(sae.decode(latents)[1, 2], summed)
    assert sae.encode(x.bfloat16()).dtype == torch.float32


def test_activations_of_another_width_are_reported():
    with pytest.raises(SaeflowError, match="reads activations of width 6, these have width 7"):
        random_sae("topk").encode(torch.randn(3, 7))


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_an_sae_survives_the_way_to_disk_to_the_bit(tmp_path, architecture):
    sae = random_sae(architecture)
    save_sae(tmp_path, sae)
    back = load_sae(tmp_path)
    for field in dataclasses.fields(SAE):
        field_before, other = getattr(sae, field.name), getattr(back, field.name)
        if isinstance(field_before, torch.Tensor):
            assert torch.equal(field_before, other), field.name
    assert (back.architecture, back.k) == (sae.architecture, sae.k)
    assert back.metadata["hook_name"] == HOOK
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["metadata"]["sae_lens_version"] >= "6.0.0"
    assert (config["d_in"], config["d_sae"], config["normalize_activations"]) == (
        D_MODEL,
        D_SAE,
        "none",
    )


@pytest.mark.parametrize(
    ("architecture", "rescaled"), [("standard", None), ("jumprelu", None), ("topk", True)]
)
def test_input_bias_and_decoder_norms_are_folded_when_loaded(tmp_path, architecture, rescaled):
    sae = random_sae(architecture)
    norms = torch.rand(D_SAE) + 0.5
    stored = {name: value for name, value in vars(sae).items() if isinstance(value, torch.Tensor)}
    stored["W_dec"] = sae.W_dec * norms[:, None]
    for name in stored.keys() & {"W_enc", "b_enc", "threshold", "b_gate", "b_mag"}:
        stored[name] = stored[name] / norms
    stored["b_enc"] = stored["b_enc"] + sae.b_dec @ stored["W_enc"]
    save_sae(tmp_path, sae)
    save_file(stored, tmp_path / "sae_weights.safetensors")
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["metadata"]["saeflow_seal"]
    config |= {"apply_b_dec_to_input": True} | (
        {"rescale_acts_by_decoder_norm": rescaled} if rescaled else {}
    )
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    x = torch.randn(30, D_MODEL)
    torch.testing.assert_close(load_sae(tmp_path).encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": "temporal"},
            "architecture 'temporal' is not known here; known are standard, topk, jumprelu",
        ),
        ({"normalize_activations": "whitened"}, r"normalises its input \('whitened'\)"),
        ({"k": 0}, "no usable k"),
        ({"d_sae": 21}, r"W_enc has shape \[6, 20\], where the rest says \[6, 21\]"),
    ],
)
def test_an_sae_of_another_kind_is_refused_by_name(tmp_path, change, message):
    save_sae(tmp_path, random_sae("topk"))
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["metadata"]["saeflow_seal"]
    (tmp_path / "cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(SaeflowError, match=message):
        load_sae(tmp_path)


def test_damaged_weights_are_one_sentence(tmp_path):
    save_sae(tmp_path, random_sae("jumprelu"))
    path = tmp_path / "sae_weights.safetensors"
    weights = load_file(path)
    save_file({**weights, "b_enc": weights["b_enc"] * float("nan")}, path)
    with pytest.raises(SaeflowError, match="b_enc holds values that are not finite"):
        load_sae(tmp_path)
    save_file({name: value for name, value in weights.items() if name != "threshold"}, path)
    with pytest.raises(SaeflowError, match="has no tensor threshold"):
        load_sae(tmp_path)
    path.write_bytes(b"broken")
    with pytest.raises(SaeflowError, match=r"sae_weights.safetensors: cannot be read"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").unlink()
    with pytest.raises(SaeflowError, match="no such file"):
        load_sae(tmp_path)


def test_predicting_the_mean_explains_exactly_nothing_and_the_activation_itself_everything():
    x = torch.randn(30, 33, D_MODEL) * 2 + 50
    mean = x.double().mean((0, 1))
    nothing, everything = Fidelity(mean, 3, 30), Fidelity(mean, 3, 30)
    block = torch.arange(30).repeat_interleave(33)
    for part in torch.arange(30 * 33).split(50):
        rows = x.flatten(0, 1)[part]
        nothing.add(rows, mean.expand_as(rows), torch.zeros(len(part), 3), block[part])
        everything.add(rows, rows, torch.tensor([1.0, 0.0, 2.0]).expand(len(part), 3), block[part])
    assert fidelity_metrics(nothing.sums(), D_MODEL)["explained_variance"].tolist() == [0.0] * 30
    computed = (
        with_errors(everything.sums(), lambda sums: fidelity_metrics(sums, D_MODEL))
        | everything.latents()
    )
    assert (computed["explained_variance"], computed["mse"]) == (1, 0)
    assert (computed["l0"], computed["dead"], computed["dense"]) == (2, 1, 2)
    assert (computed["cosine"], computed["l2_ratio"]) == pytest.approx((1, 1))
    assert computed["explained_variance_se"] == 0


def test_standard_errors_are_those_of_means_and_of_ratios():
    generator = np.random.default_rng(0)
    rows, active = np.full(400, 10.0), generator.poisson(30, 400).astype(float)
    error, scatter = generator.gamma(5, 1, 400), generator.gamma(9, 2, 400)
    sums = {
        "rows": rows,
        "active": active,
        "error": error,
        "scatter": scatter,
        "cosine": rows,
        "l2_ratio": rows,
    }
    metrics = with_errors(sums, lambda sums_of: fidelity_metrics(sums_of, D_MODEL))
    assert metrics["l0_se"] == pytest.approx((active / 10).std(ddof=1) / 20)
    drawn = generator.integers(0, 400, (4000, 400))
    bootstrap = 1 - error[drawn].sum(1) / scatter[drawn].sum(1)
    assert metrics["explained_variance_se"] == pytest.approx(bootstrap.std(), rel=0.1)


def test_cosines_of_decoder_rows_are_counted_once_per_latent():
    eye = torch.eye(4)
    rows = torch.cat([eye, -eye[:1], (eye[1] + eye[2])[None] / 2**0.5])
    sae = SAE("standard", rows.T.contiguous(), rows, torch.zeros(6), torch.zeros(4))
    cosines = decoder_cosines(sae.W_dec)
    counted = {
        round(edge, 2): int(count)
        for edge, count in zip(cosines["edges"], cosines["counts"], strict=False)
        if count
    }
    assert counted == {
        0.0: 3,
        0.7: 3,
    }  # rows 0, 3 and -0 have no neighbour; rows 1 and 2 share one, and it has both


@pytest.fixture(scope="module")
def lm():
    return tiny_language_model("llama")


@pytest.fixture(scope="module")
def blocks():
    return TokenBlocks(tiny_tokens(rows=9, length=16).numpy().astype(np.int32), {}, {})


def exact_sae(d_model: int) -> SAE:
    """Latents for the positive and the negative part of every dimension: nothing is lost."""
    eye = torch.eye(d_model)
    both = torch.cat([eye, -eye])
    return SAE(
        "standard", both.T.contiguous(), both, torch.zeros(2 * d_model), torch.zeros(d_model)
    )


def test_an_sae_that_loses_nothing_changes_no_prediction(lm, blocks):
    metrics = evaluate_sae(lm, exact_sae(lm.d_model), HOOK, blocks, batch=4)
    assert metrics["explained_variance"] == pytest.approx(1, abs=1e-10)
    assert metrics["loss_sae"] == pytest.approx(metrics["loss_clean"], abs=1e-6)
    assert metrics["recovered"] == pytest.approx(1, abs=1e-5)
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["l0"] == pytest.approx(lm.d_model, abs=0.01)
    assert (metrics["blocks"], metrics["tokens"], metrics["rows"], metrics["predicted"]) == (
        9,
        9 * 16,
        9 * 15,
        9 * 15,
    )
    assert metrics["recovered_mean"] == pytest.approx(1, abs=1e-5)


def test_an_sae_that_gives_zero_recovers_nothing(lm, blocks):
    sae = exact_sae(lm.d_model)
    metrics = evaluate_sae(
        lm, dataclasses.replace(sae, W_enc=torch.zeros_like(sae.W_enc)), HOOK, blocks, batch=4
    )
    assert metrics["recovered"] == pytest.approx(0, abs=1e-6)
    assert metrics["loss_sae"] == pytest.approx(metrics["loss_zero"])
    assert metrics["kl"] > 0
    assert metrics["dead"] == sae.d_sae
    assert metrics["loss_zero_se"] > 0


def test_an_sae_that_gives_the_mean_is_mean_ablation(lm, blocks):
    x = capture(lm, torch.from_numpy(blocks.tokens).long(), [HOOK])[HOOK][:, 1:]
    sae = exact_sae(lm.d_model)
    mean = dataclasses.replace(
        sae, W_enc=torch.zeros_like(sae.W_enc), b_dec=x.double().mean((0, 1)).float()
    )
    metrics = evaluate_sae(lm, mean, HOOK, blocks, batch=4)
    assert metrics["explained_variance"] == pytest.approx(0, abs=1e-9)
    assert metrics["loss_sae"] == pytest.approx(metrics["loss_mean"], abs=1e-6)
    assert metrics["recovered_mean"] == pytest.approx(0, abs=1e-4)


def test_a_transcoder_is_measured_where_it_writes(lm, blocks):
    written = "blocks.1.hook_mlp_out"
    read = capture(lm, torch.from_numpy(blocks.tokens).long(), [HOOK, written])
    sae = exact_sae(lm.d_model)
    zero = dataclasses.replace(
        sae, W_dec=torch.zeros_like(sae.W_dec), metadata={"hook_name_out": written}
    )
    metrics = evaluate_sae(lm, zero, "blocks.0.hook_resid_post", blocks, batch=4)
    assert metrics["loss_sae"] == pytest.approx(metrics["loss_zero"])
    target = read[written][:, 1:].double()
    expected = 1 - target.square().sum() / (target - target.mean((0, 1))).square().sum()
    assert metrics["explained_variance"] == pytest.approx(float(expected), rel=1e-6)


def test_metrics_do_not_depend_on_the_batch(lm, blocks):
    sae = random_sae("topk", lm.d_model)
    first, other = (evaluate_sae(lm, sae, HOOK, blocks, batch) for batch in (2, 9))
    assert first.pop("decoder_cosines") == other.pop("decoder_cosines")
    assert first == pytest.approx(other, rel=1e-4)


def test_an_sae_of_another_width_is_reported(lm, blocks):
    with pytest.raises(SaeflowError, match="reads activations of width 6, these have width 32"):
        evaluate_sae(lm, random_sae("topk"), HOOK, blocks)
    with pytest.raises(SaeflowError, match="does not exist"):
        evaluate_sae(lm, random_sae("topk"), "blocks.9.hook_resid_post", blocks)


def test_latents_that_stand_for_planted_features_are_found():
    generator = np.random.default_rng(0)
    topics = generator.integers(0, 3, 600)
    directions = torch.eye(D_MODEL)
    x = 2 * directions[topics] + 0.1 * torch.randn(600, D_MODEL)
    sae = dataclasses.replace(exact_sae(D_MODEL), b_enc=torch.full((2 * D_MODEL,), -1.0))
    table = recovery(
        sae, x, {"topic": topics.astype(np.uint8)}, {"topic": ["a", "b", "c", "never"]}
    )
    assert table["feature"].to_list() == ["a", "b", "c"]
    assert table["latent_f1"].to_list() == [0, 1, 2]
    assert table["latent_cosine"].to_list() == [0, 1, 2]
    assert table["f1"].min() == 1.0
    assert table["rows"].sum() == 600
    firing = (sae.encode(x) > 0).numpy()
    for topic, latents, scores in table.select("feature", "detectors", "detectors_f1").iter_rows():
        shows = topics == "abc".index(topic)
        both, either = (firing & shows[:, None]).sum(0), firing.sum(0) + shows.sum()
        assert scores == pytest.approx((2 * both / either)[latents].tolist())
        assert scores == sorted(scores, reverse=True)
    expected = (1 + 0.5) / np.sqrt(1.5 * 1.5) / np.sqrt(1.5)
    assert table["cosine"].to_list() == pytest.approx([expected] * 3, abs=0.02)
    metrics = recovery_metrics(table)
    assert (metrics["planted_features"], metrics["planted_f1"], metrics["planted_f1_se"]) == (
        3,
        1.0,
        0.0,
    )
    assert metrics["planted_cosine"] == pytest.approx(expected, abs=0.02)
    assert recovery_metrics(table.clear()) == {}


def test_recovery_reads_labels_at_the_models_own_activations(lm, blocks):
    sae = exact_sae(lm.d_model)
    assert planted_recovery(lm, sae, HOOK, blocks).is_empty()
    labels = (blocks.tokens % 2).astype(np.uint8)
    named = TokenBlocks(blocks.tokens, {"parity": labels}, {"parity": ["even", "odd"]})
    table = planted_recovery(lm, sae, HOOK, named, batch=4)
    x = capture(lm, torch.from_numpy(blocks.tokens).long(), [HOOK])[HOOK][:, 1:].flatten(0, 1)
    odd = torch.from_numpy(labels[:, 1:].ravel()).bool()
    direction = x[odd].mean(0) - x[~odd].mean(0)
    cosines = sae.W_dec @ direction / direction.norm()
    assert table["feature"].to_list() == ["even", "odd"]
    assert table["rows"].to_list() == [int((~odd).sum()), int(odd.sum())]
    assert table["cosine"][1] == pytest.approx(float(cosines.max()), rel=1e-4)
    assert table["latent_cosine"][1] == int(cosines.argmax())
