"""Training of SAEs: gradients, equal paths, known dictionaries found, interruptions without a
trace."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from traceback import walk_stack
from typing import Any

import pytest
import torch
from largest_tensor import LargestTensor
from one_batch import initial_weights, outcome
from planted_dictionary import cached, planted

from saeflow.activations.reader import ShuffledReader
from saeflow.activations.store import statistics
from saeflow.config.sections import SAETraining
from saeflow.config.sections.architectures import ARCHITECTURES
from saeflow.errors import SaeflowError
from saeflow.saes import architectures, sparse
from saeflow.saes.adam import Adam
from saeflow.saes.architectures import architecture, architecture_of
from saeflow.saes.dictionary import Dictionary, Normalisation
from saeflow.saes.feeds import Feed, sae_feed
from saeflow.saes.io import load_sae, save_sae
from saeflow.saes.revival import Unexplained, auxiliary_loss, resample
from saeflow.saes.sparse import above, decoded, encoded, largest_per_row, scan, scan_dense
from saeflow.saes.training import Progress, Trained, geometric_median, rate, train_saes
from saeflow.threads import alone

SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {"sparsity_coefficient": 0.05},
    "gated": {"sparsity_coefficient": 0.05},
    "topk": {"k": 3},
    "batchtopk": {"k": 3},
    "matryoshka": {"k": 3, "prefixes": [0.75]},
    "jumprelu": {"sparsity_coefficient": 0.02, "bandwidth": 0.3},
}


def settings_of(architecture: str, **changes: Any) -> SAETraining:
    small = {
        "d_sae": 64,
        "batch_size": 256,
        "tokens": 300_000,
        "learning_rate": 1e-2,
        "dead_after": 10_000,
    }
    return SAETraining(architecture=architecture, **{**small, **SETTINGS[architecture], **changes})


def feed_of(store: Any, settings: SAETraining) -> Feed:
    return sae_feed(ShuffledReader(store, settings.batch_size, 0), store, {"hook_name": store.hook})


def train(store: Any, settings: SAETraining, seed: int = 0, **options: Any) -> Trained:
    return train_saes(feed_of(store, settings), [settings], seed, **options)[0]


def weights_of(settings: SAETraining, d_model: int = 12) -> Dictionary:
    """Weights in the middle of nowhere, so that no term vanishes."""
    generator = torch.Generator().manual_seed(3)
    weights = initial_weights(settings, d_model, generator)
    with torch.no_grad():
        for name, tensor in weights.trained().items():
            if name != "decoder":
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return weights


def gradients(x: torch.Tensor, settings: SAETraining, sparse: bool) -> list[torch.Tensor]:
    weights = weights_of(settings)
    results = outcome(x, weights, settings, sparse)
    results.loss.backward()
    loss = torch.stack(
        [results.loss.detach(), results.error, results.penalty, torch.tensor(float(results.active))]
    )
    grads = [tensor.grad for tensor in weights.trained().values() if tensor.grad is not None]
    return [loss, results.residual, results.smallest, results.fired().unique(), *grads]


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
    for sparse_value, other in zip(sparse, dense, strict=True):
        torch.testing.assert_close(sparse_value, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_step_not_even_the_first_holds_all_latents_of_a_batch(architecture, store):
    settings = settings_of(architecture, d_sae=512, batch_size=4096, tokens=3 * 4096)
    with LargestTensor() as largest:
        train(store, settings)
    assert largest.numbers <= 4096 * 512 / 4


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


@pytest.mark.parametrize("term", ["l0", "latents"])
def test_threshold_gradients_are_those_of_the_smoothed_loss(term):
    """The estimators are exact for the step smoothed by the kernel, for many pre-activations spread
    evenly."""
    settings = settings_of("jumprelu", sparsity_coefficient=1.0, bandwidth=0.2)
    pre = torch.linspace(-2, 3, 400_001, dtype=torch.float64)
    threshold = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    jumprelu, own = architecture_of(settings), {"threshold": threshold}
    l0, latents = jumprelu.penalty(pre, own, 1), jumprelu.activation(pre, own).sum()
    (l0 if term == "l0" else latents).backward()

    def smoothed(theta: float) -> torch.Tensor:
        smooth = ((pre - theta) / settings.bandwidth + 0.5).clamp(0, 1)
        return ((pre if term == "latents" else torch.ones_like(pre)) * smooth).sum()

    difference = (smoothed(0.7 + 1e-4) - smoothed(0.7 - 1e-4)) / 2e-4
    assert threshold.grad is not None
    assert float(threshold.grad) == pytest.approx(float(difference), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d_sae", "k"), [(8192, 32), (96, 5), (100, 7), (64, 40)])
def test_the_largest_of_every_row_are_found_in_groups(d_sae, k, dtype):
    pre = torch.randn(300, d_sae, generator=torch.Generator().manual_seed(0)).to(dtype)
    if d_sae == 96:
        pre[7] = -pre[7].abs()  # none is positive
    rows, columns = largest_per_row(pre, k)
    assert torch.equal(rows, torch.arange(300).repeat_interleave(k))
    found_values = pre[rows, columns].view(300, k).sort(descending=True).values
    assert torch.equal(found_values, pre.topk(k).values)
    assert all(len(set(row)) == k for row in columns.view(300, k).tolist())


NARROW = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor multiplies no bfloat16 matrices",
)


@pytest.fixture
def narrow(monkeypatch):
    """Narrow products are taken or not, whatever the processor: which way is faster is not what is
    tested."""

    def take(value: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: value)

    take(True)
    return take


@NARROW
@pytest.mark.parametrize("data", ["even", "few large coordinates", "flat", "equal"])
def test_the_largest_after_a_narrow_product_are_those_of_float32(data, narrow):
    generator = torch.Generator().manual_seed(0)
    x, encoder = (
        torch.randn(1024, 256, generator=generator),
        torch.randn(640, 256, generator=generator),
    )
    b_enc = torch.randn(640, generator=generator)
    if (
        data == "few large coordinates"
    ):  # as in a residual stream; rounding errors then add up from few terms
        x[:, :3] *= 300
    elif data == "flat":
        # hundreds of latents lie within rounding errors of each other: every row is multiplied again
        encoder = torch.ones_like(encoder) + 1e-4 * encoder
        b_enc.zero_()
    elif data == "equal":
        encoder[1:], b_enc[1:] = encoder[0], b_enc[0]
    entries = scan(x, encoder, b_enc, sparse.Largest(8))
    narrow(False)
    wide = scan(x, encoder, b_enc, sparse.Largest(8))
    computed, expected = (
        entry.values.view(1024, 8).sort(descending=True).values for entry in (entries, wide)
    )
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-3)
    assert torch.equal(entries.offsets, wide.offsets)
    exact = (x.double() @ encoder.double().T + b_enc.double()).float()
    torch.testing.assert_close(
        entries.values, exact[entries.rows, entries.columns], rtol=1e-4, atol=1e-3
    )
    if data in ("even", "few large coordinates"):
        agree = torch.zeros(1024, 640).index_put_(
            (entries.rows, entries.columns), torch.tensor(1.0)
        )
        assert agree[wide.rows, wide.columns].mean() > 0.9999, (
            "but for what float32 itself cannot tell apart"
        )


@NARROW
@pytest.mark.parametrize("activations", ["gaussian", "off centre", "a sparse code"])
@pytest.mark.parametrize(
    ("d_model", "d_sae", "k"), [(512, 4096, 32), (576, 8192, 64), (1024, 4096, 64)]
)
def test_a_narrow_product_that_leaves_no_row_unclear_is_as_good(
    d_model, d_sae, k, activations, narrow
):
    """At the widths of real models rounding errors are small beside what lies between latents, in
    every row."""
    generator = torch.Generator().manual_seed(0)
    encoder = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=generator), dim=1)
    x = torch.randn(1024, d_model, generator=generator)
    if activations == "off centre":
        x += 5
    elif activations == "a sparse code":
        active = torch.rand(1024, d_sae, generator=generator).topk(k // 2, dim=1).indices
        x = torch.zeros(1024, d_sae).scatter_(1, active, 3.0) @ encoder
    entries = scan(x, encoder, torch.zeros(d_sae), sparse.Largest(k))
    expected = (x.double() @ encoder.double().T).topk(k, dim=1).values.float()
    computed = entries.values.view(1024, k).sort(descending=True).values
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(entries.rows, torch.arange(1024).repeat_interleave(k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d_sae", [96, 100])
def test_the_largest_of_no_rows_are_none(d_sae, dtype):
    rows, columns = largest_per_row(torch.empty(0, d_sae, dtype=dtype), 5)
    assert rows.shape == columns.shape == (0,)
    assert scan(
        torch.empty(0, 12), torch.ones(d_sae, 12), torch.zeros(d_sae), sparse.Largest(5)
    ).offsets.tolist() == [0]


@NARROW
@pytest.mark.parametrize("rows", [1500, 4096])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparse_products_equal_dense_ones_at_the_size_of_real_models(architecture, rows, narrow):
    """Ways that are taken for large batches and wide models alone: narrow products, packed and
    partial blocks."""
    generator = torch.Generator().manual_seed(0)
    settings = settings_of(
        architecture,
        d_sae=2048,
        batch_size=rows,
        **({"k": 32} if "k" in SETTINGS[architecture] else {}),
    )
    weights = initial_weights(settings, 576, generator)
    x = torch.randn(rows, 576, generator=generator)
    outcomes = []
    for way in (True, False):
        result = outcome(x, weights, settings, way)
        result.loss.backward()
        outcomes.append([result.loss.detach(), result.residual])
        for tensor in weights.trained().values():
            if tensor.grad is not None:
                outcomes[-1].append(tensor.grad)
                tensor.grad = None
    for part, whole in zip(*outcomes, strict=True):
        assert (part - whole).norm() <= 2e-3 * whole.norm(), (
            "but for choices that float32 cannot tell apart"
        )


@NARROW
def test_topk_trains_as_well_by_narrow_products_at_the_width_of_a_real_model(narrow, tmp_path):
    store = cached(tmp_path, planted(rows=8_000, d_model=576, features=256, active=12.0)[0])
    settings = settings_of(
        "topk", d_sae=2048, k=32, batch_size=1024, tokens=8_000, learning_rate=1e-3
    )
    curves = []
    for way in (True, False):
        narrow(way)
        curves.append(torch.tensor(train(store, settings).curve["error"].to_list()))
    assert curves[0][-1] < 0.95 * curves[0][0]
    torch.testing.assert_close(*curves, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 37])
def test_what_exceeds_a_floor_is_found_whatever_the_floor(rows, dtype):
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(rows, 96, generator=generator).to(dtype)
    between = pre.float().flatten()[:1].sum() + 1e-4  # no number of 16 bits
    for floor in (
        0.0,
        -0.5,
        between,
        torch.rand(96, generator=generator),
        torch.randn(96, generator=generator),
    ):
        expected = (pre.float() > floor).nonzero()
        above_floor = above(pre, floor)
        assert torch.equal(torch.stack(above_floor, dim=1), expected)
        if rows:
            assert torch.equal(
                torch.stack(
                    above(
                        pre[:, :50], floor[:50] if torch.is_tensor(floor) and floor.ndim else floor
                    ),
                    dim=1,
                ),
                expected[expected[:, 1] < 50],
            )


def test_batch_top_k_keeps_as_many_as_the_batch_may_have_whatever_the_threshold():
    settings = settings_of("batchtopk", k=2)
    pre = torch.randn(40, 64)
    find = partial(scan_dense, pre)
    for threshold in (0.0, 0.5, 50.0):
        own = {"threshold": torch.tensor(threshold), "decoder_norm": torch.ones(())}
        entries = architecture_of(settings).select(find, own)
        expected = pre.flatten().topk(80).values
        assert torch.equal(entries.values.sort(descending=True).values, expected)
        assert torch.equal(pre[entries.rows, entries.columns], entries.values)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_weights_on_raw_activations_equal_the_trained_ones_on_normalised(architecture):
    settings = settings_of(architecture, k=3)
    weights = weights_of(settings)
    x = (
        torch.randn(400, 12, generator=torch.Generator().manual_seed(5)) * 30 + 100
    )  # of no two nearly equal latents
    normalisation = Normalisation.of(
        x.double().mean(0), float(x.double().var(0, correction=0).sum())
    )
    inner = normalisation(x)
    assert float(inner.square().sum(1).mean()) == pytest.approx(12, rel=1e-5)
    if architecture in (
        "batchtopk",
        "matryoshka",
    ):  # its threshold is what the batch happened to need
        largest = (inner @ weights.encoder.T + weights.b_enc).flatten().topk(3 * 400 + 1).values
        weights.own["threshold"].copy_(largest[-2:].mean())
    residual = (
        outcome(inner, weights, settings, sparse=False).residual / normalisation.scale.float()
    )
    sae = architecture_of(settings).folded(weights, normalisation, normalisation, {})
    torch.testing.assert_close(x - sae.decode(sae.encode(x)), residual, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_planted_dictionary_is_found(architecture, store, data, tmp_path):
    settings = settings_of(architecture)
    sae, curve = train(store, settings)
    x, directions = data
    cosines = (directions @ sae.W_dec.T).amax(dim=1)
    assert float(cosines.mean()) > 0.95
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
    assert curve["error"][-1] < 0.3 < curve["error"][0]
    latents = sae.encode(x[:4000])
    assert float((latents > 0).sum(1).float().mean()) == pytest.approx(
        curve["l0"].tail(20).mean(), rel=0.15
    )
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
        train(
            store, settings, seed, checkpoint=checkpoint, progress=seen.append, checkpoint_seconds=0
        )
        return [feed.tokens for feed in seen[:1]]

    assert first_seen(seed=1) == [256]
    assert first_seen(seed=2) == [256]
    assert first_seen(seed=2) == []
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    assert first_seen(seed=2) == [256]


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_no_gradient_of_a_whole_matrix_is_written(architecture, store):
    """Nothing that a step makes is as large as the encoder."""
    settings = settings_of(architecture, d_sae=32_768, batch_size=8, tokens=12 * 8)
    with alone(), LargestTensor() as largest:
        sizes = []

        def note(progress: Progress) -> None:
            sizes.append(largest.numbers)
            largest.numbers = 0

        train(store, settings, progress=note)
    # The first step also places the weights and makes room for moments.
    assert max(sizes[1:]) <= 32_768 * 32 / 4


DEAD = torch.arange(10)


def firing(x: torch.Tensor, weights: Dictionary, settings: SAETraining) -> set[int]:
    """Which of the latents in question fire anywhere."""
    return set(outcome(x, weights, settings, sparse=True).fired().tolist()) & set(DEAD.tolist())


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
        revived = outcome(batch, weights, settings, sparse=True)
        optimiser.zero_grad()
        (
            revived.loss
            + settings.auxiliary_coefficient
            * auxiliary_loss(batch, revived.residual, weights, DEAD)
        ).backward()
        optimiser.step()
    assert len(firing(normalised, weights, settings)) >= 8


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu"])
def test_resampled_latents_fire_again_and_start_without_momentum(normalised, architecture):
    settings = settings_of(architecture)
    weights = weights_of(settings, 32)
    adam = Adam(weights, 1e-3, {})
    resampled = outcome(normalised, weights, settings, sparse=True)
    resampled.loss.backward()
    adam.follow()
    with torch.no_grad():
        weights.b_enc[DEAD] = -50.0
    resampled = outcome(normalised, weights, settings, sparse=True)
    assert not firing(normalised, weights, settings)
    rows, generator = (
        Unexplained(resampled.residual, resampled.residual),
        torch.Generator().manual_seed(0),
    )
    resample(DEAD, weights, architecture_of(settings), rows, adam, generator)
    assert len(firing(normalised, weights, settings)) == len(DEAD)
    moments = adam.state["decoder"]["exp_avg"]
    assert not moments[DEAD].any()
    assert moments[len(DEAD) :].any()


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    settings = settings_of("topk", warmup_fraction=0.1, decay_fraction=0.2)
    rates = [rate(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:80] == [1.0] * 70
    assert rates[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])


def test_several_saes_of_one_pass_are_what_each_is_alone(store):
    settings = [
        settings_of("topk", tokens=10_000, k=k, seed=seed) for k, seed in ((3, 0), (5, 0), (3, 1))
    ]
    together = train_saes(feed_of(store, settings[0]), settings, seed=4)
    assert len({float(sae.W_dec.sum()) for sae, _ in together}) == 3
    for each, (sae, curve) in zip(settings, together, strict=True):
        alone, its_curve = train(store, each, seed=4)
        assert torch.equal(sae.W_dec, alone.W_dec)
        assert curve.equals(its_curve)


def test_gradients_of_accumulated_batches_are_those_of_one_large_batch(store):
    small = settings_of("topk", tokens=10_240, batch_size=512, accumulate=2)
    large = settings_of("topk", tokens=10_240, batch_size=1024)
    (first, curve), (other, its_curve) = train(store, small), train(store, large)
    torch.testing.assert_close(first.W_dec, other.W_dec, atol=1e-4, rtol=0)
    assert curve["tokens"].to_list() == its_curve["tokens"].to_list()


@pytest.mark.parametrize("target", [4.0, 8.0])
def test_l0_comes_to_its_target(store, target):
    _, curve = train(store, settings_of("jumprelu", sparsity_coefficient=None, target_l0=target))
    assert curve["l0"].tail(10).mean() == pytest.approx(target, rel=0.15)


def test_a_training_with_a_target_begins_there_and_no_row_is_at_the_edge(normalised):
    settings = settings_of("jumprelu", target_l0=5.0, sparsity_coefficient=None)
    weights = initial_weights(settings, normalised.shape[1], torch.Generator().manual_seed(0))
    rows, threshold = normalised[:512], weights.own["threshold"]
    first = architecture_of(settings).begin(rows, rows, weights)
    assert first.active / len(rows) == pytest.approx(5.0, rel=0.1)
    pre = rows @ weights.encoder.T
    assert (pre > threshold).sum() == first.active
    assert (pre - threshold).abs().min() > 1e-6


def test_short_trainings_resample_too_and_competitive_ones_wait_as_long_as_ever():
    def window(architecture: str, **changes: Any) -> int:
        return settings_of(architecture, **{"dead_after": None, **changes}).dead_window

    assert window("jumprelu", tokens=1_500_000) == 50_000
    assert window("standard", tokens=60_000_000) == window("topk", tokens=1_500_000) == 200_000
    assert window("gated", tokens=25_600, accumulate=2) == 10 * 256 * 2
    assert window("gated", dead_after=7) == 7


def test_the_first_latents_of_a_matryoshka_reconstruct_alone(store, data):
    settings = {
        name: settings_of(name, k=4, tokens=100_000) for name in ("batchtopk", "matryoshka")
    }
    settings["matryoshka"] = settings["matryoshka"].model_copy(update={"prefixes": [0.25]})
    left = {}
    for name, each_settings in settings.items():
        sae, _ = train(store, each_settings)
        z = sae.encode(data[0])
        z[:, 16:] = 0
        left[name] = float((data[0] - sae.decode(z)).square().sum())
    assert left["matryoshka"] < 0.8 * left["batchtopk"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_narrow_products_train_nearly_the_same(architecture, store, data):
    settings = settings_of(architecture, compute_dtype="bfloat16", tokens=150_000)
    sae, curve = train(store, settings)
    _, exact = train(store, settings.model_copy(update={"compute_dtype": "float32"}))
    assert curve["error"][-1] == pytest.approx(exact["error"][-1], abs=0.02)
    assert sae.W_dec.dtype == torch.float32


def test_every_architecture_of_the_config_is_the_module_of_its_name():
    folder = Path(architectures.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "architecture"}
    assert modules == ARCHITECTURES.keys() == SETTINGS.keys()
    for name in ARCHITECTURES:
        kind = type(architecture_of(settings_of(name)))
        assert kind.__module__ == f"{architectures.__name__}.{name}"


def test_training_reads_door_by_door(store, monkeypatch):
    """From the trainer through the architecture to the sparse product, no module between."""
    seen: set[tuple[str, ...]] = set()
    scan = architecture.scan

    def note(*arguments: Any, **options: Any) -> sparse.Entries:
        frames = [frame.f_globals["__name__"] for frame, _ in walk_stack(sys._getframe(1))]
        doors = [name for name in frames if name.startswith("saeflow.")]
        seen.add(tuple(dict.fromkeys(reversed(doors))))
        return scan(*arguments, **options)

    monkeypatch.setattr(architecture, "scan", note)
    train(store, settings_of("topk", d_sae=512, tokens=2_000))
    its_file = "saeflow.saes.architectures"
    assert seen == {
        ("saeflow.saes.training", f"{its_file}.architecture", f"{its_file}.topk"),
    }


def test_what_narrow_products_choose_has_exact_values():
    x, encoder, b_enc = torch.randn(300, 12), torch.randn(64, 12), torch.randn(64)
    entries = scan(x, encoder, b_enc, partial(above, floor=1.0), torch.bfloat16)
    expected = (x @ encoder.T + b_enc)[entries.rows, entries.columns]
    torch.testing.assert_close(entries.values, expected)
    assert 0 < len(entries.values) < 300 * 64


def test_gradients_of_a_gated_sae_are_those_of_its_formula():
    x, settings = torch.randn(50, 12), settings_of("gated")
    weights = weights_of(settings)
    outcome(x, weights, settings, sparse=True).loss.backward()
    own = {
        name: tensor.detach().clone().requires_grad_() for name, tensor in weights.trained().items()
    }
    gate = x @ own["encoder"].T + own["b_enc"]
    magnitude = (own["r_mag"].exp() * gate + own["b_mag"]).relu()
    reconstruction = ((gate.detach() > 0) * magnitude) @ own["decoder"] + own["b_dec"]
    auxiliary = gate.relu() @ own["decoder"].detach() + own["b_dec"].detach()
    loss = (x - reconstruction).square().mean() + (x - auxiliary).square().mean()
    (loss + settings.coefficient * gate.relu().sum(1).mean()).backward()
    for name, tensor in weights.trained().items():
        torch.testing.assert_close(tensor.grad, own[name].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_geometric_median_is_not_moved_by_outliers():
    x = torch.cat([torch.randn(99, 5), torch.full((20, 5), 1000.0)])
    median = geometric_median(x)
    assert float(median.norm()) < 2
    pull = (x - median) / (x - median).norm(dim=1, keepdim=True)
    assert float(pull.sum(0).norm()) < 1.0


def test_a_bias_may_start_at_the_geometric_median(store):
    starts = []
    for start in ("mean", "geometric_median"):
        sae, _ = train(
            store, settings_of("topk", tokens=512, learning_rate=1e-9, initial_bias=start)
        )
        starts.append(sae.b_dec)
    torch.testing.assert_close(starts[0].double(), store.mean, rtol=1e-4, atol=1e-4)
    assert float((starts[1] - starts[0]).norm()) > 0.1


def test_broken_activations_are_one_sentence(store):
    class Broken(ShuffledReader):
        def __next__(self) -> torch.Tensor:
            return super().__next__() * float("nan")

    feed = sae_feed(Broken(store, 256, 0), store, {})
    with pytest.raises(
        SaeflowError, match="the cached activations hold values that are not finite"
    ):
        train_saes(feed, [settings_of("topk")], seed=0)


def test_a_training_that_leaves_what_can_be_computed_is_one_sentence(store):
    settings = settings_of("standard", learning_rate=0.9, sparsity_coefficient=1e38)
    with pytest.raises(
        SaeflowError, match=r"the loss is no longer finite; lower learning_rate 0.9"
    ):
        train(store, settings)
