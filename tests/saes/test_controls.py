"""Controls of an SAE: what is frozen stays where it began, and random decoders score what theory
says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from planted_dictionary import cached, planted
from scipy.integrate import quad
from scipy.stats import beta
from torch.nn.functional import cosine_similarity

from saeflow.activations.reader import ShuffledReader
from saeflow.config.sections import SAETraining
from saeflow.config.sections.architectures import ARCHITECTURES
from saeflow.config.sections.saes import Control
from saeflow.saes.architectures import architecture_of
from saeflow.saes.dictionary import DictionaryShape
from saeflow.saes.feeds import sae_feed
from saeflow.saes.sae import SAE
from saeflow.saes.training import NEAR, Progress, train_saes
from saeflow.seeds import torch_generator

CONTROLS = get_args(Control)
SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {"sparsity_coefficient": 0.05},
    "gated": {"sparsity_coefficient": 0.05},
    "jumprelu": {"sparsity_coefficient": 0.02, "bandwidth": 0.3},
}


def settings_of(architecture: str, control: str | None, **changes: Any) -> SAETraining:
    small: dict[str, Any] = {
        "d_sae": 64,
        "k": 3,
        "batch_size": 256,
        "tokens": 30_000,
        "learning_rate": 1e-2,
        "dead_after": 1_500,
    }
    return SAETraining(
        architecture=architecture,
        control=control,
        **{**small, **SETTINGS.get(architecture, {}), **changes},
    )


def trained(store: Any, *settings: SAETraining, **options: Any) -> list[SAE]:
    reader = ShuffledReader(store, settings[0].batch_size, 0)
    feed = sae_feed(reader, store, {"hook_name": store.hook})
    return [each.sae for each in train_saes(feed, settings, 0, **options)]


def begun(settings: SAETraining, d_model: int = 32) -> torch.Tensor:
    """The directions that encoder and decoder begin with."""
    shape = DictionaryShape(settings.d_sae, d_model)
    generator = torch_generator(settings.seed, "weights")
    return architecture_of(settings).initial_weights(shape, generator).decoder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cached(tmp_path_factory.mktemp("cache"), planted()[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_frozen_stays_where_it_began_and_all_else_is_trained(
    architecture: str, store: Any
) -> None:
    free, *controls = trained(
        store, *(settings_of(architecture, control) for control in (None, *CONTROLS))
    )
    first = begun(settings_of(architecture, None))
    by_name = dict(zip(CONTROLS, controls, strict=True))
    read = {name: cosine_similarity(sae.W_enc.T, first) for name, sae in by_name.items()}
    written = {name: cosine_similarity(sae.W_dec, first) for name, sae in by_name.items()}
    torch.testing.assert_close(by_name["frozen_decoder"].W_dec, first, rtol=0, atol=1e-6)
    torch.testing.assert_close(read["frozen_encoder"], torch.ones(64), rtol=0, atol=1e-5)
    lengths = by_name["frozen_encoder"].W_enc.norm(dim=0)
    torch.testing.assert_close(lengths, lengths.mean().expand(64))
    near = written["soft_frozen_decoder"]
    assert near.min() >= NEAR - 1e-5
    assert (near < NEAR + 1e-4).float().mean() > 0.2, "the bound does not bind"
    assert cosine_similarity(free.W_dec, first).median() < NEAR
    for still, moved in (("frozen_decoder", read), ("frozen_encoder", written)):
        assert moved[still].median() < 0.98
    x = planted()[0][:4000]
    error = {
        name: float((sae.decode(sae.encode(x)) - x).square().sum() / (x - x.mean(0)).square().sum())
        for name, sae in {"free": free, **by_name}.items()
    }
    assert error["free"] < error["soft_frozen_decoder"] < error["frozen_decoder"] < 0.95
    assert error["frozen_encoder"] < 0.95


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_an_interrupted_control_ends_in_the_same_bits(
    architecture: str, control: str, store: Any, tmp_path: Path
) -> None:
    settings = settings_of(architecture, control, tokens=10_000)

    class Interrupted(Exception):  # noqa: N818
        """The job is killed."""

    def interrupt(progress: Progress) -> None:
        if progress.tokens == 20 * 256:
            raise Interrupted

    (whole,) = trained(store, settings)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        trained(store, settings, checkpoint=checkpoint, progress=interrupt, checkpoint_seconds=0)
    (resumed,) = trained(store, settings, checkpoint=checkpoint)
    assert torch.equal(whole.W_enc, resumed.W_enc)
    assert torch.equal(whole.W_dec, resumed.W_dec)


def expected_of_largest(power: int, latents: int, d_model: int) -> float:
    """The mean of the largest of so many cosines of random directions with a fixed one, to a
    power: cosines lie as (1 + c) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2)."""
    cosine = beta((d_model - 1) / 2, (d_model - 1) / 2, loc=-1, scale=2)
    integral, _ = quad(lambda c: power * c ** (power - 1) * (1 - cosine.cdf(c) ** latents), 0, 1)
    return float(integral)


def test_a_frozen_random_decoder_scores_what_theory_says(tmp_path: Path) -> None:
    """Features are orthogonal and alone in their rows, and one latent is active: the best that a
    random dictionary does is the squared cosine of the nearest latent, where a trained one is
    perfect."""
    d_model, latents = 48, 192
    generator = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(d_model, d_model, generator=generator))
    which = torch.arange(24_000) % d_model
    x = rotation[which][torch.randperm(len(which), generator=generator)]
    x = x * 5 * torch.randn(len(x), 1, generator=generator).abs()
    store = cached(tmp_path, x)
    changes = {"d_sae": latents, "k": 1, "tokens": 200_000, "batch_size": 512}
    free, frozen = trained(
        store,
        settings_of("topk", None, **changes),
        settings_of("topk", "frozen_decoder", **changes),
    )
    nearest = (rotation @ frozen.W_dec.T).amax(dim=1)
    assert float(nearest.mean()) == pytest.approx(
        expected_of_largest(1, latents, d_model), abs=4 * float(nearest.std()) / d_model**0.5
    )
    assert float((rotation @ free.W_dec.T).amax(dim=1).mean()) > 0.95

    def explained(sae: SAE) -> float:
        left = (sae.decode(sae.encode(x)) - x).square().sum()
        return 1 - float(left / (x - x.mean(dim=0)).square().sum())

    theory = expected_of_largest(2, latents, d_model)
    assert explained(free) > 0.95
    assert explained(frozen) == pytest.approx(theory, abs=0.05)
