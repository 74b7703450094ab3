"""SAEs of what sets two models apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_batch import initial_weights, outcome
from planted_models import BASE_ONLY, BOTH, TUNED_ONLY, planted
from rows_in_memory import InMemory, statistics_of
from studies import study_config
from tiny_models import tiny_language_model, tiny_tokens
from torch.nn.functional import normalize

from saeflow.config.sections import SAETraining
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.saes.comparison import Seen, evaluate_difference
from saeflow.saes.crosscoder import difference_as_crosscoder
from saeflow.saes.feeds import difference_feed, sae_feed
from saeflow.saes.io import load_of_models, save_sae
from saeflow.saes.sae import SAE
from saeflow.saes.training import train_saes

pytestmark = pytest.mark.usefixtures("one_thread")
HOOK = "blocks.1.hook_resid_post"
NAMED = [{"model": name, "hook": HOOK} for name in ("base", "tuned")]


def settings_of(**changes: Any) -> SAETraining:
    small = {"d_sae": 24, "k": 1, "batch_size": 256, "tokens": 256 * 300, "learning_rate": 1e-2}
    return SAETraining(**{"architecture": "batchtopk", **small, **changes})


def pairs(x: torch.Tensor) -> InMemory:
    return InMemory(x, batch_size=256)


def exact(width: int) -> SAE:
    """A latent for either sign of every dimension of a difference."""
    eye = torch.eye(width)
    both, bias = torch.cat([eye, -eye], dim=1), torch.zeros(width)
    made = {"difference": NAMED, "hook_name": HOOK}
    return SAE("standard", both, both.T.contiguous(), torch.zeros(2 * width), bias, metadata=made)


def test_batches_are_the_second_source_less_the_first_brought_to_one_size() -> None:
    x = torch.randn(3_000, 2, 8, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 3 * x[:, 1] + 2
    feed = difference_feed(pairs(x), {})
    first = next(pairs(x))
    difference = x[:, 1] - x[:, 0]
    scale = 8 / (difference - difference.mean(0)).square().sum(1).mean()
    read, target = feed.next("cpu")
    torch.testing.assert_close(read, target)
    wanted = (first[:, 1] - first[:, 0] - difference.mean(0)) * scale.sqrt()
    torch.testing.assert_close(read, wanted, rtol=0.02, atol=0.02)  # of the first rows, repeated
    assert feed.identity != sae_feed(pairs(x), statistics_of(difference), {}).identity
    assert feed.reader.state() == {"batch": 1}


def test_sources_that_hold_the_same_have_no_difference_to_learn() -> None:
    x = torch.randn(300, 1, 8).expand(-1, 2, -1)
    with pytest.raises(SaeflowError, match="both sources hold the same"):
        difference_feed(pairs(x), {})


@pytest.mark.parametrize("sparse", [False, True])
def test_a_crosscoder_at_minus_one_that_reads_the_difference_alone_is_an_sae_of_it(
    sparse: bool,
) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 2, 6, generator=generator)
    apart, across = settings_of(k=3), settings_of(k=3, delta=-1.0)
    own = initial_weights(apart, 6, generator)
    both = initial_weights(across, 12, generator, n_sources=2)
    with torch.no_grad():
        own.encoder.add_(0.1 * torch.randn(24, 6, generator=generator))
        both.encoder.copy_(torch.cat([-own.encoder, own.encoder], dim=1))
        both.decoder.copy_(torch.cat([-own.decoder, own.decoder], dim=1) / 2)
    alone = outcome(x[:, 1] - x[:, 0], own, apart, sparse)
    together = outcome(x.flatten(1), both, across, sparse)
    assert together.active == alone.active == 120
    # Means over twice as many numbers.
    assert float(together.loss.detach()) == pytest.approx(float(alone.loss.detach()) / 2, rel=1e-5)
    alone.loss.backward()
    together.loss.backward()
    if not sparse:
        for name, share in (("encoder", 0.5), ("decoder", 1.0)):
            first, second = getattr(both, name).grad.chunk(2, dim=1)
            wanted = share * getattr(own, name).grad
            torch.testing.assert_close(second - first, wanted, rtol=1e-4, atol=1e-7)


def test_an_sae_of_the_difference_finds_what_one_model_has_alone_and_nothing_that_both_have() -> (
    None
):
    world = planted()
    feed = difference_feed(pairs(world.x), {"difference": NAMED})
    settings = settings_of(architecture="standard", sparsity_coefficient=0.1)
    (trained,) = train_saes(feed, [settings], 0)
    crosscoder = difference_as_crosscoder(trained.sae)
    latents = crosscoder.encode(world.x)
    fires = (latents > 0).double().mean(0) > 0.005
    rows = normalize(crosscoder.W_dec[fires, 1], dim=1)
    added, missing = world.tuned[-TUNED_ONLY:], -world.base[BOTH : BOTH + BASE_ONLY]
    cosines = rows @ torch.cat([added, missing]).T
    assert cosines.amax(0).min() > 0.98
    assert cosines.amax(1).min() > 0.9, "a latent that stands for none of them"
    rebuilt = crosscoder.decode(latents)[:, 1]
    difference = world.x[:, 1] - world.x[:, 0]
    left = (rebuilt - difference).square().sum() / difference.square().sum()
    assert float(left) < 0.05


def test_as_a_crosscoder_it_reads_the_same_and_is_kept_on_disk_as_an_sae(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    sae = SAE(
        "jumprelu",
        torch.randn(5, 9, generator=generator),
        normalize(torch.randn(9, 5, generator=generator), dim=1),
        torch.randn(9, generator=generator),
        torch.randn(5, generator=generator),
        threshold=torch.full((9,), 0.2),
        metadata={"difference": NAMED, "hook_name": HOOK},
    )
    save_sae(tmp_path / "apart", sae)
    loaded = load_of_models(tmp_path / "apart")
    x = torch.randn(7, 2, 5, generator=generator)
    z = sae.encode(x[:, 1] - x[:, 0])
    torch.testing.assert_close(loaded.encode(x), z)
    torch.testing.assert_close(loaded.decode(z)[:, 1], sae.decode(z))
    assert loaded.of_difference
    assert loaded.metadata["sources"] == NAMED
    save_sae(tmp_path / "plain", SAE("standard", *(sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec)))
    with pytest.raises(SaeflowError, match="is not of a difference of two models"):
        load_of_models(tmp_path / "plain")


def test_losses_are_those_of_the_second_model_that_goes_on_from_the_first_one_s_stream() -> None:
    base, tuned = tiny_language_model("llama"), tiny_language_model("llama", seed=1)
    blocks = TokenBlocks(tiny_tokens(rows=6, length=12).numpy().astype(np.int32), {}, {})
    seen = [Seen("base", base, HOOK), Seen("tuned", tuned, HOOK)]
    whole = evaluate_difference(difference_as_crosscoder(exact(tuned.d_model)), seen, blocks)
    assert whole["explained_variance"] == pytest.approx(1)
    assert whole["loss_sae"] == pytest.approx(whole["loss_clean"], abs=1e-5)
    assert whole["recovered"] == pytest.approx(1, abs=1e-3)
    nothing = exact(tuned.d_model)
    silent = difference_as_crosscoder(
        SAE("standard", 0 * nothing.W_enc, nothing.W_dec, nothing.b_enc - 1, nothing.b_dec,
            metadata=nothing.metadata)
    )  # fmt: skip
    none = evaluate_difference(silent, seen, blocks)
    assert none["loss_sae"] == pytest.approx(none["loss_zero"], abs=1e-6)
    assert none["loss_zero"] != pytest.approx(none["loss_clean"], abs=1e-3)
    assert none["l0"] == 0


@pytest.mark.parametrize(
    ("sae", "reason"),
    [
        ({"difference": ["lm", "x"]}, r"saes.apart.difference.1: there is no model 'x'"),
        ({"difference": ["lm"]}, "at least 2"),
        ({"difference": ["lm", "other"], "models": ["lm", "other"]}, "models: stands beside diff"),
        ({"difference": ["lm", "other"], "target": HOOK}, "an SAE of a difference rebuilds what"),
        ({"difference": ["lm", "other"], "train": {"d_sae": 64}}, "'topk' is not one of standard"),
        ({"difference": ["lm", "other"], "group": "two"}, r"saes.\w+: reads or writes elsewhere"),
    ],
)
def test_what_is_no_difference_is_told_before_any_job(sae: dict, reason: str) -> None:
    values = study_config("minimal")
    values["models"] = [{"name": "other", "train": {"n_layers": 2}}]
    train = {"architecture": "batchtopk", "d_sae": 8, "k": 2}
    values["saes"]["apart"] = {"train": train} | sae
    if sae.get("group"):
        both = {"group": "two", "models": ["lm", "other"], "train": train}
        values["saes"]["both"] = both
    with pytest.raises(Exception, match=reason):
        check_any_study(values)


def test_both_models_are_cached_for_a_difference() -> None:
    values = study_config("minimal")
    values["models"] = [{"name": "other", "train": {"n_layers": 2}}]
    train = {"architecture": "batchtopk", "d_sae": 8, "k": 2}
    values["saes"]["apart"] = {"difference": ["lm", "other"], "train": train}
    study = check_any_study(values)
    assert study.saes["apart"].kind == "difference"
    assert [source.model for source in study.sources_of("apart")] == ["lm", "other"]
    assert study.caches["other"] == [study.hook]
