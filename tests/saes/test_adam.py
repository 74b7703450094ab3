"""Gradients that are added up and followed block by block end in the bits of whole ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from one_batch import initial_weights, outcome

from saeflow.config.sections import SAETraining
from saeflow.saes.adam import Adam
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.revival import auxiliary_loss

SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {"sparsity_coefficient": 0.05},
    "gated": {"sparsity_coefficient": 0.05},
    "topk": {"k": 3},
    "matryoshka": {"k": 3, "prefixes": [0.25]},
    "jumprelu": {"sparsity_coefficient": 0.02, "bandwidth": 0.3},
}
WIDTH, LATENTS = 300, 1500  # several blocks, the last of them no whole one
DEAD = torch.tensor([0, 5, 700, 1499])


@pytest.fixture(params=[1, 2])
def threads(request):
    usual = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(usual)


def trained(architecture: str, way: str, sources: int = 1) -> Dictionary:
    """Weights after three steps: torch's Adam on whole gradients, or ours on gradients that wait,
    or on some that were added up between."""
    settings = SAETraining(architecture=architecture, d_sae=LATENTS, **SETTINGS[architecture])
    generator = torch.Generator().manual_seed(0)
    weights = initial_weights(settings, WIDTH, generator, sources)
    if way != "whole":
        weights = replace(weights, unsummed={"encoder": [], "decoder": []})
    adam = Adam(weights, 1e-2, {})
    optimiser = torch.optim.Adam(weights.trained().values(), lr=1e-2, fused=True)
    for _ in range(3):
        x = torch.randn(40, WIDTH, generator=generator)
        result = outcome(x, weights, settings, sparse=True)
        loss = result.loss
        if settings.traits.takes_k:
            loss = loss + auxiliary_loss(x, result.residual, weights, DEAD)
        loss.backward()
        if way == "whole":
            assert weights.decoder.grad is not None
            weights.project_gradient(weights.decoder.grad, slice(None))
            optimiser.step()
            optimiser.zero_grad()
            weights.project()
            continue
        assert weights.encoder.grad is None
        if way == "added up":
            adam.add_up()
            assert weights.encoder.grad is not None
        adam.follow()
    return weights


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("way", ["by blocks", "added up"])
@pytest.mark.parametrize("architecture", SETTINGS)
def test_steps_by_blocks_end_in_the_bits_of_torchs_adam_on_whole_gradients(architecture, way):
    whole, blocks = trained(architecture, "whole"), trained(architecture, way)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, blocks.tensors()[name]), name


def test_gradients_of_norms_over_sources_are_added_to_those_that_wait():
    whole, blocks = (trained("standard", way, 3) for way in ("whole", "by blocks"))
    assert torch.equal(blocks.decoder, whole.decoder)
    assert torch.equal(blocks.encoder, whole.encoder)


def test_forgotten_latents_start_without_momentum():
    settings = SAETraining(architecture="topk", d_sae=LATENTS, k=3)
    weights = initial_weights(settings, WIDTH, torch.Generator().manual_seed(0))
    adam = Adam(weights, 1e-3, {})
    outcome(torch.randn(400, WIDTH), weights, settings, sparse=True).loss.backward()
    adam.follow()
    before = {name: state["exp_avg"].clone() for name, state in adam.state.items()}
    adam.forget(DEAD)
    rest = torch.ones(LATENTS, dtype=torch.bool)
    rest[DEAD] = False
    for name in ("encoder", "decoder", "b_enc"):
        assert not adam.state[name]["exp_avg"][DEAD].any()
        assert torch.equal(adam.state[name]["exp_avg"][rest], before[name][rest])
    assert torch.equal(adam.state["b_dec"]["exp_avg"], before["b_dec"])


def test_weights_that_lie_column_after_column_are_followed_like_any_others():
    """As those are that a training takes over from an SAE, whose encoder is the transpose."""
    settings = SAETraining(architecture="topk", d_sae=LATENTS, k=3)
    x, ended = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(1)), []
    for turned in (False, True):
        weights = initial_weights(settings, WIDTH, torch.Generator().manual_seed(0)).detached()
        if turned:
            weights = replace(weights, encoder=weights.encoder.T.contiguous().T)
        weights = replace(weights.to("cpu"), unsummed={"encoder": [], "decoder": []})
        outcome(x, weights, settings, sparse=True).loss.backward()
        Adam(weights, 1e-2, {}).follow()
        ended.append(weights.encoder)
    assert torch.equal(*ended)
