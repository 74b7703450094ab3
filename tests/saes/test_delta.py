"""Losses between that of a crosscoder and that of an SAE of the difference; k that begins high."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from one_batch import initial_weights, outcome
from rows_in_memory import InMemory, codes, statistics_of
from studies import study_config
from torch.nn.functional import normalize

from saeflow.config.sections import SAETraining
from saeflow.kinds import check_any_study
from saeflow.saes.feeds import crosscoder_feed, sae_feed
from saeflow.saes.training import k_at, train_saes

pytestmark = pytest.mark.usefixtures("one_thread")
D_MODEL, D_SAE = 6, 24


def settings_of(**changes: Any) -> SAETraining:
    small = {"d_sae": D_SAE, "k": 3, "batch_size": 64, "tokens": 64 * 40}
    return SAETraining(**{"architecture": "batchtopk", **small, **changes})


def batch() -> torch.Tensor:
    return torch.randn(30, 2 * D_MODEL, generator=torch.Generator().manual_seed(1))


def weights_of(settings: SAETraining) -> Any:
    generator = torch.Generator().manual_seed(2)
    weights = initial_weights(settings, 2 * D_MODEL, generator, n_sources=2)
    with torch.no_grad():
        weights.b_dec.add_(0.1 * torch.randn(2 * D_MODEL, generator=generator))
    return weights


@pytest.mark.parametrize("sparse", [False, True])
def test_at_minus_one_the_loss_is_that_of_an_sae_of_the_difference_which_reads_both(
    sparse: bool,
) -> None:
    settings, x = settings_of(delta=-1.0), batch()
    weights = weights_of(settings)
    measured = outcome(x, weights, settings, sparse)
    measured.loss.backward()
    # That SAE, written out: one row per latent, the difference of the two; the same code.
    decoder = (weights.decoder[:, D_MODEL:] - weights.decoder[:, :D_MODEL]).detach()
    decoder.requires_grad_()
    bias = (weights.b_dec[D_MODEL:] - weights.b_dec[:D_MODEL]).detach()
    norms = weights.decoder.view(D_SAE, 2, D_MODEL).norm(dim=2).sum(1).detach()
    pre = (x @ weights.encoder.T + weights.b_enc).detach().relu()
    worth = pre * norms
    least = worth.flatten().topk(settings.k * len(x)).values[-1]
    rebuilt = (pre * (worth >= least)) @ decoder + bias
    loss = (rebuilt - (x[:, D_MODEL:] - x[:, :D_MODEL])).square().mean() / 2
    loss.backward()
    assert float(measured.loss.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    if not sparse:
        gradient = weights.decoder.grad
        torch.testing.assert_close(gradient[:, D_MODEL:], decoder.grad, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(gradient[:, :D_MODEL], -decoder.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sparse", [False, True])
def test_between_the_two_losses_it_is_their_mixture(sparse: bool) -> None:
    losses = {}
    for delta in (0.0, -0.5, -1.0):
        settings = settings_of(delta=delta)
        losses[delta] = float(
            outcome(batch(), weights_of(settings), settings, sparse).loss.detach()
        )
    assert losses[-0.5] == pytest.approx((losses[0.0] + losses[-1.0]) / 2, rel=1e-6)
    assert losses[0.0] != pytest.approx(losses[-1.0], rel=1e-3)


def test_a_training_by_the_difference_explains_it_better() -> None:
    """Two sources with much in common that takes more latents than there are, and a little that
    sets them apart."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(80, 16, generator=generator), dim=1)
    z = codes(8_000, 80, generator)
    own = normalize(torch.randn(3, 16, generator=generator), dim=1)
    apart = (torch.rand(8_000, 3, generator=generator) < 0.1) * 0.5
    x = torch.stack([z @ directions, z @ directions + apart @ own], dim=1)
    left = {}
    for delta in (0.0, -1.0):
        settings = settings_of(delta=delta, k=1, d_sae=16, tokens=64 * 300, learning_rate=1e-2)
        feed = crosscoder_feed(
            InMemory(x, batch_size=64), [statistics_of(x[:, 0]), statistics_of(x[:, 1])], {}
        )
        (trained,) = train_saes(feed, [settings], 0)
        rebuilt = trained.sae.decode(trained.sae.encode(x.flatten(1))).view_as(x)
        error = (rebuilt - x)[:, 1] - (rebuilt - x)[:, 0]
        difference = x[:, 1] - x[:, 0]
        left[delta] = float(error.square().sum() / (difference - difference.mean(0)).square().sum())
    assert left[-1.0] < 0.7 * left[0.0]


def test_the_loss_of_a_difference_is_for_two_sources() -> None:
    values = study_config("minimal")
    values["saes"]["main"]["train"]["delta"] = -0.5
    with pytest.raises(Exception, match=r"train.delta: is for crosscoders of two sources"):
        check_any_study(values)
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in (0, 1)]
    train = {"architecture": "batchtopk", "delta": -0.5}
    values["saes"]["main"]["train"].pop("delta")
    values["saes"]["both"] = {"hooks": hooks, "train": train}
    assert check_any_study(values).saes["both"].train.delta == -0.5


def test_k_falls_in_a_line_and_then_stays() -> None:
    settings = settings_of(k_start=11, anneal_fraction=0.5)
    ks = [k_at(step, settings.steps, settings) for step in range(settings.steps)]
    assert ks[0] == 11
    assert ks[10] == 7
    assert set(ks[20:]) == {3}
    assert ks == sorted(ks, reverse=True)
    assert {k_at(step, 40, settings_of()) for step in range(40)} == {3}


@pytest.mark.parametrize("architecture", ["batchtopk", "topk"])
def test_a_training_whose_k_is_annealed_begins_with_many_latents_and_ends_with_k(
    architecture: str,
) -> None:
    x = torch.randn(2_000, D_MODEL, generator=torch.Generator().manual_seed(3))
    settings = settings_of(architecture=architecture, k_start=8, anneal_fraction=0.5)
    feed = sae_feed(InMemory(x, batch_size=64), statistics_of(x), {})
    (trained,) = train_saes(feed, [settings], 0)
    l0 = trained.curve["l0"].to_list()
    assert l0[0] == pytest.approx(8, abs=0.6)
    assert l0[-1] == pytest.approx(3, abs=0.05)
    if architecture == "topk":
        assert trained.sae.k == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k_start": 2}, "k_start: 2 must be between k 3 and d_sae 24"),
        ({"k_start": 24}, "k_start: 24 must be between k 3 and d_sae 24"),
        ({"architecture": "standard", "k_start": 5}, "'standard' has no k"),
    ],
)
def test_a_beginning_that_is_none_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        settings_of(**changes)
