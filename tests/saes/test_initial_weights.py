"""Trainings that begin with another SAE's weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_dictionary import cached, planted
from studies import study_config

from saeflow.activations.io import ActivationStore
from saeflow.activations.reader import ShuffledReader
from saeflow.config.sections import SAETraining
from saeflow.config.sections.architectures import ARCHITECTURES
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.saes.architectures import architecture_of
from saeflow.saes.dictionary import Normalisation
from saeflow.saes.feeds import Feed, sae_feed
from saeflow.saes.sae import SAE, tensors_of
from saeflow.saes.training import train_saes

OF_ARCHITECTURE: dict[str, dict[str, Any]] = {
    "standard": {"sparsity_coefficient": 0.05},
    "gated": {"sparsity_coefficient": 0.05},
    "topk": {"k": 3},
    "batchtopk": {"k": 3},
    "matryoshka": {"k": 3, "prefixes": [0.75]},
    "jumprelu": {"sparsity_coefficient": 0.02, "bandwidth": 0.3},
}


def settings_of(architecture: str, tokens: int = 7680) -> SAETraining:
    return SAETraining(
        architecture=architecture,
        d_sae=64,
        batch_size=256,
        tokens=tokens,
        learning_rate=1e-2,
        **OF_ARCHITECTURE[architecture],
    )


def feed_of(store: ActivationStore) -> Feed:
    return sae_feed(ShuffledReader(store, 256, 0), store, {"hook_name": store.hook})


def trained(store: ActivationStore, settings: SAETraining, initial: SAE | None = None) -> Any:
    return train_saes(feed_of(store), [settings], 0, initial=[initial])[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return cached(tmp_path_factory.mktemp("cache"), planted(rows=8000)[0])


def test_every_architecture_is_tried_here() -> None:
    assert set(OF_ARCHITECTURE) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", OF_ARCHITECTURE)
def test_a_trained_sae_is_unfolded_into_weights_that_fold_into_it_again(
    name: str, store: ActivationStore
) -> None:
    sae = trained(store, settings_of(name)).sae
    architecture = architecture_of(settings_of(name))
    generator = torch.Generator().manual_seed(0)
    elsewhere = Normalisation.of(torch.randn(32, generator=generator).double(), 3.7)
    for normalisation in (feed_of(store).read, elsewhere):
        weights = architecture.unfolded(sae, normalisation, normalisation)
        norms = weights.decoder.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones(64), atol=1e-6, rtol=0)
        again = architecture.folded(weights, normalisation, normalisation, {})
        x = planted(rows=64)[0]
        torch.testing.assert_close(again.encode(x), sae.encode(x), atol=2e-3, rtol=1e-3)
        assert [tensor for tensor, _ in tensors_of(again)] == [t for t, _ in tensors_of(sae)]
        torch.testing.assert_close(again.W_dec, sae.W_dec, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(again.b_dec, sae.b_dec, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["topk", "jumprelu"])
def test_a_training_goes_on_where_the_other_ended(name: str, store: ActivationStore) -> None:
    first = trained(store, settings_of(name, 76_800))
    fresh = trained(store, settings_of(name, 2560)).curve["error"][0]
    goes_on = trained(store, settings_of(name, 2560), first.sae)
    assert goes_on.curve["error"][0] < 1.3 * first.curve["error"][-1] + 0.01
    assert goes_on.curve["error"][0] < 0.3 * fresh
    moved = torch.cosine_similarity(goes_on.sae.W_dec, first.sae.W_dec).median()
    assert moved > 0.9


def test_an_interrupted_training_that_goes_on_from_weights_ends_as_a_whole_one(
    store: ActivationStore, tmp_path: Path
) -> None:
    first, settings = trained(store, settings_of("topk")).sae, settings_of("topk", 5120)
    whole = trained(store, settings, first).sae

    class StopError(Exception):
        pass

    def stop(at: Any) -> None:
        if at.tokens >= 2560:
            raise StopError

    checkpoint = tmp_path / "half.pt"
    with pytest.raises(StopError):
        train_saes(
            feed_of(store), [settings], 0, checkpoint, stop, checkpoint_seconds=0, initial=[first]
        )
    resumed = train_saes(feed_of(store), [settings], 0, checkpoint, initial=[first])[0].sae
    assert torch.equal(resumed.W_dec, whole.W_dec)
    # The checkpoint of a training that began elsewhere is not gone on with.
    other = train_saes(feed_of(store), [settings], 0, checkpoint)[0].sae
    assert not torch.equal(other.W_dec, whole.W_dec)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "standard"}, "init_from has architecture standard"),
        ({"per_token": "layer_norm"}, "normalises every token by itself"),
        ({"W_enc": torch.zeros(32, 60)}, "init_from has d_sae 60"),
        ({"W_enc": torch.zeros(31, 64)}, "init_from has width that it reads 31"),
    ],
)
def test_weights_of_another_kind_are_refused(
    change: dict[str, Any], words: str, store: ActivationStore
) -> None:
    generator = torch.Generator().manual_seed(1)
    W_dec = torch.randn(64, 32, generator=generator)
    sae = SAE("topk", W_dec.T.contiguous(), W_dec, torch.zeros(64), torch.zeros(32), k=3)
    with pytest.raises(SaeflowError, match=words):
        trained(store, settings_of("topk"), replace(sae, **change))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"saes.other.train": {"init_from": "main", "d_sae": 32}}, "has d_sae 64, and this SAE 32"),
        ({"saes.main.train.init_from": "main"}, "is trained by the same job"),
        (
            {
                "saes.main.train.init_from": "other",
                "saes.other.train": {"init_from": "main", "d_sae": 64},
            },
            "begins with the weights of 'main' itself",
        ),
        (
            {
                "saes.other": {
                    "train": {"init_from": "x", "architecture": "standard"},
                    "models": ["lm", "two"],
                }
            },
            "is for SAEs and transcoders",
        ),
    ],
)
def test_trainings_that_cannot_begin_so_are_refused_with_the_config(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SaeflowError, match=words):
        check_any_study(study_config("minimal", changes))
