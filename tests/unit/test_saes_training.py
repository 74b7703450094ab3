"""Training of SAEs: gradients, equal paths, known dictionaries found, interruptions without a trace."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from planted_dictionary import cached, planted

from saeflow.activations.reader import ShuffledReader
from saeflow.activations.store import statistics
from saeflow.config.sections import SAETraining
from saeflow.saes.architectures import ARCHITECTURES, Own, Step, jumprelu, l0
from saeflow.saes.dictionary import Dictionary, Normalisation
from saeflow.saes.feeds import Feed, sae_feed
from saeflow.saes.io import load_sae, save_sae
from saeflow.saes.objective import outcome
from saeflow.saes.parallel import ALONE
from saeflow.saes.revival import auxiliary_loss, resample
from saeflow.saes.sparse import above, decoded, encoded, scan, scan_dense
from saeflow.saes.training import Progress, Trained, rate, train_saes

SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {"sparsity_coefficient": 0.05},
    "gated": {"sparsity_coefficient": 0.05},
    "topk": {"k": 3},
    "batchtopk": {"k": 3},
    "matryoshka": {"k": 3, "prefixes": [0.75]},
    "jumprelu": {"sparsity_coefficient": 0.02, "bandwidth": 0.3},
}


def settings_of(architecture: str, **changes: Any) -> SAETraining:
    small = {"d_sae": 64, "batch_size": 256, "tokens": 300_000, "learning_rate": 1e-2, "dead_after": 10_000}
    return SAETraining(architecture=architecture, **{**small, **SETTINGS[architecture], **changes})


def feed_of(store: Any, settings: SAETraining) -> Feed:
    return sae_feed(ShuffledReader(store, settings.batch_size, 0), store, {"hook_name": store.hook})


def train(store: Any, settings: SAETraining, seed: int = 0, **options: Any) -> Trained:
    return train_saes(feed_of(store, settings), [settings], seed, **options)[0]


def weights_of(settings: SAETraining, d_model: int = 12) -> Dictionary:
    """Weights in the middle of nowhere, so that no term vanishes."""
    generator = torch.Generator().manual_seed(3)
    weights = Dictionary.initial(d_model, settings, generator)
    with torch.no_grad():
        for name, tensor in weights.trained().items():
            if name != "decoder":
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return weights.to("cpu")


def gradients(x: torch.Tensor, settings: SAETraining, sparse: bool) -> list[torch.Tensor]:
    weights = weights_of(settings)
    found = outcome(x, x, weights, settings, sparse)
    found.loss.backward()
    loss = torch.stack([found.loss.detach(), found.error, found.penalty, torch.tensor(float(found.active))])
    grads = [tensor.grad for tensor in weights.trained().values() if tensor.grad is not None]
    return [loss, found.residual, found.smallest, found.fired().unique(), *grads]


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    return cached(tmp_path_factory.mktemp("cache"), data[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparse_products_equal_dense_ones_in_value_and_gradient(architecture):
    x = torch.randn(600, 12)
    settings = settings_of(architecture)
    sparse, dense = (gradients(x, settings, sparse) for sparse in (True, False))
    assert len(sparse) == len(dense) == 8 + {"jumprelu": 1, "gated": 2}.get(architecture, 0)
    for one, other in zip(sparse, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_sparse_products_have_the_gradients_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    x, encoder = (torch.randn(*shape, generator=generator).double() for shape in ((5, 4), (7, 4)))
    b_enc = torch.randn(7, generator=generator).double()
    entries = scan(x, encoder, b_enc, partial(above, floor=0.2))
    decoder = torch.randn(7, 4, generator=generator).double().requires_grad_()
    latents = entries.values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z, w: decoded(z, entries, w), (latents, decoder))

    def reconstruct(encoder, b_enc):
        again = scan_dense(x @ encoder.T + b_enc, partial(above, floor=0.2))
        return decoded(encoded(x, encoder, b_enc, again), again, decoder.detach())

    assert torch.autograd.gradcheck(reconstruct, (encoder.requires_grad_(), b_enc.requires_grad_()))


@pytest.mark.parametrize("term", [l0, jumprelu])
def test_threshold_gradients_are_those_of_the_smoothed_loss(term):
    """The estimators are exact for the step smoothed by the kernel, for many pre-activations spread evenly."""
    settings = settings_of("jumprelu", sparsity_coefficient=1.0, bandwidth=0.2)
    pre = torch.linspace(-2, 3, 400_001, dtype=torch.float64)
    threshold = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(())
    step = Step(Own(threshold, zero, zero, zero), settings, ALONE)
    (l0(pre, step, 1) if term is l0 else jumprelu(pre, step).sum()).backward()

    def smoothed(theta: float) -> torch.Tensor:
        smooth = ((pre - theta) / settings.bandwidth + 0.5).clamp(0, 1)
        return ((pre if term is jumprelu else torch.ones_like(pre)) * smooth).sum()

    difference = (smoothed(0.7 + 1e-4) - smoothed(0.7 - 1e-4)) / 2e-4
    assert threshold.grad is not None
    assert float(threshold.grad) == pytest.approx(float(difference), rel=1e-3)


def test_batch_top_k_keeps_as_many_as_the_batch_may_have_whatever_the_threshold():
    settings = settings_of("batchtopk", k=2)
    pre = torch.randn(40, 64)
    find = partial(scan_dense, pre)
    for threshold in (0.0, 0.5, 50.0):
        own = Own(torch.tensor(threshold), torch.zeros(()), torch.zeros(()), torch.ones(()))
        entries = ARCHITECTURES["batchtopk"].select(find, Step(own, settings, ALONE))
        expected = pre.flatten().topk(80).values
        assert torch.equal(entries.values.sort(descending=True).values, expected)
        assert torch.equal(pre[entries.rows, entries.columns], entries.values)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_weights_on_raw_activations_equal_the_trained_ones_on_normalised(architecture):
    settings = settings_of(architecture, k=3)
    weights = weights_of(settings)
    x = torch.randn(400, 12) * 30 + 100
    normalisation = Normalisation.of(x.double().mean(0), float(x.double().var(0, correction=0).sum()))
    inner = normalisation(x)
    assert float(inner.square().sum(1).mean()) == pytest.approx(12, rel=1e-5)
    if architecture in ("batchtopk", "matryoshka"):  # its threshold is what the batch happened to need
        largest = (inner @ weights.encoder.T + weights.b_enc).flatten().topk(3 * 400 + 1).values
        weights.threshold.copy_(largest[-2:].mean())
    residual = outcome(inner, inner, weights, settings, sparse=False).residual / normalisation.scale.float()
    sae = weights.folded(normalisation, normalisation, settings, {})
    torch.testing.assert_close(x - sae.decode(sae.encode(x)), residual, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_planted_dictionary_is_found(architecture, store, data, tmp_path):
    settings = settings_of(architecture)
    sae, curve = train(store, settings)
    x, directions = data
    found = (directions @ sae.W_dec.T).amax(dim=1)
    assert float(found.mean()) > 0.95
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
    assert curve["error"][-1] < 0.3 < curve["error"][0]
    latents = sae.encode(x[:4000])
    assert float((latents > 0).sum(1).float().mean()) == pytest.approx(curve["l0"].tail(20).mean(), rel=0.15)
    save_sae(tmp_path, sae)
    assert torch.equal(load_sae(tmp_path).encode(x[:100]), latents[:100])


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu"])
def test_fewer_latents_are_active_where_activity_costs_more(architecture, store):
    active = []
    for coefficient in (0.005, 0.02, 0.08):
        settings = settings_of(architecture, sparsity_coefficient=coefficient, tokens=100_000)
        _, curve = train(store, settings)
        active.append(curve["l0"][-1])
    assert active[0] > 1.2 * active[1] > 1.4 * active[2]


class Interrupted(Exception):  # noqa: N818
    """The job is killed."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupted_training_ends_in_the_same_bits(architecture, store, tmp_path):
    settings = settings_of(architecture, tokens=20_000, dead_after=2_000)

    def interrupt(progress: Progress) -> None:
        if progress.tokens == 37 * 256:
            raise Interrupted

    def run(**options: Any) -> Trained:
        return train_saes(feed_of(store, settings), [settings], 5, **options)[0]

    whole, curve = run()
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        run(checkpoint=checkpoint, progress=interrupt, checkpoint_seconds=0)
    seen = []
    resumed, again = run(checkpoint=checkpoint, progress=seen.append)
    assert seen[0].tokens == 38 * 256
    assert seen[-1].tokens == seen[-1].of == 79 * 256
    for name, tensor in vars(whole).items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, getattr(resumed, name)), name
    assert curve.equals(again)


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(store, tmp_path):
    settings = settings_of("topk", tokens=2_000)
    checkpoint = tmp_path / "checkpoint.pt"

    def first_seen(seed: int) -> list[int]:
        seen: list[Progress] = []
        train(store, settings, seed, checkpoint=checkpoint, progress=seen.append, checkpoint_seconds=0)
        return [one.tokens for one in seen[:1]]

    assert first_seen(seed=1) == [256]
    assert first_seen(seed=2) == [256]
    assert first_seen(seed=2) == []
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    assert first_seen(seed=2) == [256]


DEAD = torch.arange(10)


def firing(x: torch.Tensor, weights: Dictionary, settings: SAETraining) -> set[int]:
    """Which of the latents in question fire anywhere."""
    return set(outcome(x, x, weights, settings, sparse=True).fired().tolist()) & set(DEAD.tolist())


@pytest.fixture(scope="module")
def normalised(data):
    mean = data[0].double().mean(0)
    return Normalisation.of(mean, float(statistics(data[0]).variance))(data[0])


def test_the_auxiliary_loss_revives_latents_that_others_outdo(normalised):
    settings = settings_of("topk")
    weights = weights_of(settings, 32)
    with torch.no_grad():
        weights.encoder[DEAD] *= 0.1
    assert not firing(normalised, weights, settings)
    optimiser = torch.optim.Adam([weights.encoder, weights.decoder, weights.b_enc], lr=1e-2)
    for batch in torch.split(normalised, 400):
        found = outcome(batch, batch, weights, settings, sparse=True)
        optimiser.zero_grad()
        (found.loss + settings.auxiliary_coefficient * auxiliary_loss(batch, found.residual, weights, DEAD)).backward()
        optimiser.step()
    assert len(firing(normalised, weights, settings)) >= 8


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu"])
def test_resampled_latents_fire_again_and_start_without_momentum(normalised, architecture):
    settings = settings_of(architecture)
    weights = weights_of(settings, 32)
    optimiser = torch.optim.Adam(weights.trained().values(), lr=1e-3)
    found = outcome(normalised, normalised, weights, settings, sparse=True)
    found.loss.backward()
    optimiser.step()
    with torch.no_grad():
        weights.b_enc[DEAD] = -50.0
    found = outcome(normalised, normalised, weights, settings, sparse=True)
    assert not firing(normalised, weights, settings)
    resample(found.residual, found.residual, weights, DEAD, optimiser, torch.Generator().manual_seed(0))
    assert len(firing(normalised, weights, settings)) == len(DEAD)
    moments = optimiser.state[weights.decoder]["exp_avg"]
    assert not moments[DEAD].any()
    assert moments[len(DEAD) :].any()


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    settings = settings_of("topk", warmup_fraction=0.1, decay_fraction=0.2)
    rates = [rate(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:80] == [1.0] * 70
    assert rates[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])
