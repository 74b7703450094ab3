"""Crosscoders and transcoders: planted directions found, shared ones told from exclusive ones,
folding exact."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from one_batch import initial_weights, outcome
from rows_in_memory import InMemory, codes, statistics_of
from torch.nn.functional import normalize

from saeflow.config.sections import SAETraining
from saeflow.describe.artifact import describe
from saeflow.errors import SaeflowError
from saeflow.saes.architectures import architecture_of
from saeflow.saes.crosscoder import Crosscoder, as_crosscoder, latent_scaling
from saeflow.saes.feeds import Feed, crosscoder_feed, transcoder_feed
from saeflow.saes.io import load_crosscoder, load_sae, save_crosscoder
from saeflow.saes.training import Progress, train_saes

D_MODEL, SHARED, EXCLUSIVE, D_SAE = 24, 24, 6, 64


def two_models(identical: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations ``[rows, 2, d_model]``, and the directions: shared, of the first alone, of the
    second alone."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(SHARED + 2 * EXCLUSIVE, D_MODEL, generator=generator), dim=1)
    z = codes(30_000, len(directions), generator)
    first, second = z.clone(), z.clone()
    first[:, SHARED + EXCLUSIVE :] = 0
    second[:, SHARED : SHARED + EXCLUSIVE] = 0
    noise = 0.01 * torch.randn(2, len(z), D_MODEL, generator=generator)
    x = first @ directions + noise[0] + 3.0
    y = x if identical else 5 * (second @ directions + noise[1]) - 2.0
    return torch.stack([x, y], dim=1), directions


def settings_of(architecture: str, **changes: Any) -> SAETraining:
    small = {
        "d_sae": D_SAE,
        "batch_size": 512,
        "tokens": 800_000,
        "learning_rate": 1e-2,
        "dead_after": 20_000,
    }
    own = {"standard": {"sparsity_coefficient": 0.05}, "batchtopk": {"k": 2}}
    return SAETraining(
        architecture=architecture, **{**small, **own.get(architecture, {}), **changes}
    )


def feed_of(x: torch.Tensor) -> Feed:
    return crosscoder_feed(
        InMemory(x), [statistics_of(x[:, 0]), statistics_of(x[:, 1])], {"sources": ["a", "b"]}
    )


def trained(x: torch.Tensor, architecture: str) -> Crosscoder:
    feed = feed_of(x)
    return as_crosscoder(train_saes(feed, [settings_of(architecture)], seed=0)[0].sae, 2, feed.read)


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_a_crosscoder_finds_all_exclusive_directions_and_calls_no_shared_one_exclusive(
    architecture,
):
    x, directions = two_models(identical=False)
    crosscoder = trained(x, architecture)
    assert crosscoder.metadata["sources"] == ["a", "b"]
    alive = (crosscoder.encode(x[:4000]) > 0).float().mean(0) > 0.005
    share = (
        crosscoder.relative_norms()
    )  # though the second model's activations are five times as large
    scaling = latent_scaling(crosscoder, torch.split(x[:20_000], 5000), crosscoder.owners())
    for source, planted in enumerate(
        (directions[SHARED:][:EXCLUSIVE], directions[SHARED + EXCLUSIVE :])
    ):
        cosines = planted @ normalize(crosscoder.W_dec[:, source], dim=1).T
        best = cosines.masked_fill(~alive, -1).max(1)
        assert float(best.values.min()) > 0.95
        assert float(share[best.indices, source].min()) > 0.9
        assert all(
            float(ratio[best.indices, 1 - source].abs().max()) < 0.2 for ratio in scaling.ratios()
        )
    for source in (0, 1):
        cosines = directions[:SHARED] @ normalize(crosscoder.W_dec[:, source], dim=1).T
        best = cosines.masked_fill(~alive, -1).max(1)
        assert float(best.values.mean()) > 0.95
        assert 0.35 < float(share[best.indices, source].median()) < 0.65
    exclusive = alive & (share.amax(1) > 0.9)
    planted = torch.cat([directions[SHARED:][:EXCLUSIVE], directions[SHARED + EXCLUSIVE :]])
    rows = normalize(crosscoder.W_dec[torch.arange(D_SAE), crosscoder.owners()], dim=1)[exclusive]
    assert (
        float((rows @ planted.T).amax(1).mean()) > 0.9
    )  # and what is exclusive by its norms is what was planted so
    reconstruction = crosscoder.decode(crosscoder.encode(x))
    for source in (0, 1):
        left = (x - reconstruction)[:, source].square().sum() / (x - x.mean(0))[
            :, source
        ].square().sum()
        assert float(left) < 0.25


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_identical_models_have_no_exclusive_latents(architecture):
    x, _ = two_models(identical=True)
    crosscoder = trained(x, architecture)
    alive = (crosscoder.encode(x[:4000]) > 0).float().mean(0) > 0.005
    assert int(alive.sum()) > SHARED
    assert float((crosscoder.relative_norms()[alive] - 0.5).abs().max()) < 0.1


def exact(norm_in_second: float) -> Crosscoder:
    """One latent per dimension that is exact in the first source and has a given norm in the
    second."""
    eye = torch.eye(D_MODEL)
    decoder = torch.stack([eye, norm_in_second * eye], dim=1)
    encoder = torch.stack([eye, torch.zeros_like(eye)])
    return Crosscoder(
        encoder, decoder, torch.zeros(D_MODEL), torch.zeros(2, D_MODEL), torch.ones(2)
    )


def test_latent_scaling_tells_a_latent_that_lost_its_norm_from_one_that_is_exclusive():
    generator = torch.Generator().manual_seed(1)
    z = torch.rand(2000, D_MODEL, generator=generator)
    shared, alone = torch.stack([z, z], dim=1), torch.stack([z, torch.zeros_like(z)], dim=1)
    lost, kept, owner = exact(0.0), exact(1.0), torch.zeros(D_MODEL, dtype=torch.long)
    assert latent_scaling(lost, [alone], owner).ratios()[0][:, 1].abs().max() < 1e-6
    error, reconstruction = latent_scaling(lost, [shared], owner).ratios()
    torch.testing.assert_close(error[:, 1], torch.ones(D_MODEL, dtype=torch.float64))
    assert reconstruction[:, 1].abs().max() < 1e-6
    torch.testing.assert_close(
        latent_scaling(kept, torch.split(shared, 300), owner).reconstruction,
        torch.ones(D_MODEL, 2, dtype=torch.float64),
    )


def test_latent_scaling_is_the_least_squares_solution():
    generator = torch.Generator().manual_seed(2)
    W_dec = torch.randn(5, 2, 4, generator=generator)
    W_enc = torch.randn(2, 4, 5, generator=generator)
    scale = torch.tensor([2.0, 0.5])
    crosscoder = Crosscoder(
        W_enc, W_dec, torch.zeros(5), torch.randn(2, 4, generator=generator), scale
    )
    x = torch.randn(60, 2, 4, generator=generator)
    z, latent, source, owner = crosscoder.encode(x), 3, 1, torch.tensor([0, 1, 0, 0, 1])
    basis = (z[:, latent, None] * W_dec[latent, 0]).reshape(-1, 1) / scale[0]
    error = (x - crosscoder.decode(z))[:, source] + z[:, latent, None] * W_dec[latent, source]
    rebuilt = crosscoder.decode(z)[:, source] - crosscoder.b_dec[source]
    scaling = latent_scaling(crosscoder, torch.split(x, 25), owner)
    for target, beta in ((error, scaling.error), (rebuilt, scaling.reconstruction)):
        solved = torch.linalg.lstsq(basis, target.reshape(-1, 1) / scale[source]).solution
        assert float(beta[latent, source]) == pytest.approx(float(solved), rel=1e-4)


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_a_folded_crosscoder_gives_what_the_trained_one_gives(architecture):
    x, _ = two_models(identical=False)
    feed, settings = feed_of(x[:600]), settings_of(architecture)
    weights = initial_weights(settings, 2 * D_MODEL, torch.Generator().manual_seed(0), 2)
    inner = feed.read(x[:600].flatten(1))
    norm = weights.of_latents()["decoder_norm"].detach()
    if architecture == "batchtopk":  # its threshold is what the batch happened to need
        worth = (inner @ weights.encoder.T + weights.b_enc) * norm
        worth = worth.flatten().topk(2 * 600 + 1).values
        with torch.no_grad():
            weights.own["threshold"].copy_(worth[-2:].mean())
    residual = outcome(inner, weights, settings, sparse=True).residual / feed.read.scale.float()
    sae = architecture_of(settings).folded(weights, feed.read, feed.written, {})
    crosscoder = as_crosscoder(sae, 2, feed.read)
    folded_error = x[:600] - crosscoder.decode(crosscoder.encode(x[:600]))
    torch.testing.assert_close(folded_error.flatten(1), residual, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(crosscoder.W_dec.flatten(1).norm(dim=1), torch.ones(D_SAE))


def test_a_latent_costs_the_sum_of_its_norms_and_moves_the_decoder():
    settings = settings_of("standard", sparsity_coefficient=1.0)
    weights = initial_weights(settings, 2 * D_MODEL, torch.Generator().manual_seed(0), 2)
    x = torch.randn(50, 2 * D_MODEL)
    decoder = weights.decoder.detach().clone().requires_grad_()
    latents = (x @ weights.encoder.detach().T).relu()
    first, second = decoder[:, :D_MODEL].norm(dim=1), decoder[:, D_MODEL:].norm(dim=1)
    penalty = (latents * (first + second)).sum() / 50
    ((x - latents @ decoder).square().mean() + penalty).backward()
    for sparse in (False, True):
        weights.decoder.grad = None
        computed = outcome(x, weights, settings, sparse)
        torch.testing.assert_close(computed.penalty, penalty.detach())
        computed.loss.backward()
        torch.testing.assert_close(weights.decoder.grad, decoder.grad, rtol=1e-4, atol=1e-5)


class StoppedError(Exception):
    """Stands for a kill."""


def test_crosscoders_of_a_group_killed_and_resumed_end_in_the_bits_that_each_has_alone(tmp_path):
    x, _ = two_models(identical=False)
    small = {"tokens": 20_000, "dead_after": 2_000}
    settings = [
        settings_of("standard", **small, sparsity_coefficient=0.05),
        settings_of("batchtopk", **small, k=2, compute_dtype="bfloat16"),
    ]
    whole = train_saes(feed_of(x), settings, seed=0)

    def kill(at: Progress) -> None:
        if at.tokens >= 10_000:
            raise StoppedError

    file = tmp_path / "state.pt"
    with pytest.raises(StoppedError):
        train_saes(feed_of(x), settings, 0, file, kill, checkpoint_seconds=0.0)
    resumed = train_saes(feed_of(x), settings, 0, file, checkpoint_seconds=0.0)
    alone = [train_saes(feed_of(x), [each_settings], seed=0)[0] for each_settings in settings]
    for these in zip(whole, resumed, alone, strict=True):
        first, *others = (
            as_crosscoder(each_settings.sae, 2, feed_of(x).read) for each_settings in these
        )
        for other in others:
            assert all(
                torch.equal(getattr(first, name), getattr(other, name))
                for name in ("W_enc", "W_dec", "b_dec")
            )
    assert whole[0].curve["error"][-1] < 0.5
    assert whole[1].curve["error"][-1] < 0.5


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_a_crosscoder_is_the_same_after_it_was_written_and_read(architecture, tmp_path):
    x, _ = two_models(identical=False)
    feed, settings = feed_of(x), settings_of(architecture, tokens=2_000)
    before = as_crosscoder(train_saes(feed, [settings], seed=0)[0].sae, 2, feed.read)
    save_crosscoder(tmp_path / "both", before)
    after = load_crosscoder(tmp_path / "both")
    assert torch.equal(before.encode(x[:500]), after.encode(x[:500]))
    assert torch.equal(before.decode(before.encode(x[:500])), after.decode(after.encode(x[:500])))
    assert torch.equal(before.relative_norms(), after.relative_norms())
    assert after.metadata["sources"] == ["a", "b"]
    lines = "\n".join(
        describe(tmp_path / "both") + describe(tmp_path / "both" / "sae_weights.safetensors")
    )
    assert "architecture: crosscoder" in lines
    assert "n_sources: 2" in lines
    assert f"W_dec  [{D_SAE}, 2, {D_MODEL}]  F32" in lines


def test_a_crosscoder_that_is_none_or_damaged_is_told(tmp_path):
    folder, broken = tmp_path / "both", tmp_path / "broken"
    save_crosscoder(folder, exact(1.0))
    with pytest.raises(
        SaeflowError, match="both: is a crosscoder, which reads 2 sources at once; name an SAE"
    ):
        load_sae(folder)
    save_crosscoder(broken, replace(exact(1.0), b_enc=torch.full((D_MODEL,), torch.nan)))
    with pytest.raises(SaeflowError, match="b_enc holds values that are not finite"):
        load_crosscoder(broken)
    config = json.loads((folder / "cfg.json").read_text())
    del config["metadata"]["saeflow_seal"]
    for change, reason in (
        ({"n_sources": 3}, r"W_enc has shape \[2, 24, 24\], where the rest says \[3, 24, 24\]"),
        ({"activation": "gelu"}, "activation 'gelu' is not known here"),
        ({"d_sae": None}, "has no usable d_sae"),
        ({"architecture": "topk"}, "is not that of a crosscoder"),
    ):
        (folder / "cfg.json").write_text(json.dumps(config | change))
        with pytest.raises(SaeflowError, match=reason):
            load_crosscoder(folder)


def test_a_crosscoder_refuses_other_sources():
    with pytest.raises(
        SaeflowError, match="reads 2 sources of width 24, these activations have the shape"
    ):
        exact(1.0).encode(torch.randn(5, 3, D_MODEL))


def test_a_transcoder_finds_what_is_read_and_what_is_written():
    generator = torch.Generator().manual_seed(0)
    read, written = (
        normalize(torch.randn(30, width, generator=generator), dim=1) for width in (24, 16)
    )
    z = codes(30_000, 30, generator)
    x, y = 4 * (z @ read) + 1.0, 9 * (z @ written) - 5.0
    feed = transcoder_feed(
        InMemory(x, y),
        statistics_of(x),
        statistics_of(y),
        {"hook_name": "in", "hook_name_out": "out"},
    )
    [(sae, curve)] = train_saes(feed, [settings_of("topk", k=3)], seed=0)
    assert (sae.d_model, sae.d_out, sae.is_transcoder) == (24, 16, True)
    best = (written @ sae.W_dec.T).max(1)
    assert float(best.values.mean()) > 0.95
    left = (y - sae.decode(sae.encode(x))).square().sum() / (y - y.mean(0)).square().sum()
    assert float(left) == pytest.approx(curve["error"][-1], abs=0.03)
    assert float(left) < 0.15


def test_an_aligned_pair_of_one_width_may_come_as_one_tensor():
    x = torch.randn(2000, 2, 8)
    of_sides = [statistics_of(x[:, 0]), statistics_of(x[:, 1])]
    batch = transcoder_feed(InMemory(x), *of_sides, {}).next("cpu")
    two = transcoder_feed(InMemory(x[:, 0], x[:, 1]), *of_sides, {}).next("cpu")
    for a, b in zip(batch, two, strict=True):
        assert torch.equal(a, b)


def test_activations_of_another_width_and_broken_ones_are_reported():
    x = torch.randn(2000, 8)
    narrow = transcoder_feed(InMemory(x[:, :5], x), statistics_of(x), statistics_of(x), {})
    with pytest.raises(SaeflowError, match="the activations have width 5, their statistics 8"):
        narrow.next("cpu")
    broken = x.clone()
    broken[:, 3] = float("nan")
    feed = transcoder_feed(InMemory(x, broken), statistics_of(x), statistics_of(x), {})
    with pytest.raises(SaeflowError, match="hold values that are not finite"):
        train_saes(feed, [settings_of("topk", k=3)], seed=0)
    with pytest.raises(SaeflowError, match="constant or not finite"):
        transcoder_feed(InMemory(x, x), statistics_of(x), statistics_of(torch.zeros(9, 8)), {})
