"""Classes of latents, held to planted worlds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from planted_models import (
    BASE_ONLY,
    BOTH,
    SHRUNK,
    TUNED_ONLY,
    Planted,
    faulty,
    loosely,
    planted,
)
from rows_in_memory import InMemory, statistics_of
from torch.nn.functional import normalize

from saeflow.analyses.diffing.classes import COUNTS, LATENTS, NAMES, class_tables, classify, norms
from saeflow.analyses.diffing.scaling import Pass, Sides
from saeflow.analyses.diffing.settings import Classes
from saeflow.analyses.diffing.words import CLASSES
from saeflow.config.sections import SAETraining
from saeflow.saes.crosscoder import (
    Crosscoder,
    as_crosscoder,
    difference_as_crosscoder,
    latent_scaling,
)
from saeflow.saes.feeds import crosscoder_feed
from saeflow.saes.sae import SAE
from saeflow.saes.training import train_saes

pytestmark = pytest.mark.usefixtures("one_thread")
SIDES = Sides([0], [1])
CLASSES_ASKED = Classes(draws=100)


def passed(crosscoder: Crosscoder, x: torch.Tensor, sides: Sides = SIDES, groups: int = 8) -> Pass:
    measured = Pass(crosscoder, sides, groups)
    for group, part in enumerate(torch.tensor_split(x, groups)):
        for batch in torch.split(part, 700):
            measured.add(batch, group)
    return measured


def of_class(latents: pl.DataFrame, name: str) -> list[int]:
    return latents.filter(pl.col("class") == name)["latent"].to_list()


def test_each_latent_of_a_faulty_crosscoder_has_the_class_of_its_fault() -> None:
    world = planted(2_000, orthogonal=True)
    crosscoder, classes = faulty(world)
    latents, counts = class_tables(passed(crosscoder, world.x), "tuned", CLASSES_ASKED, 0)
    assert dict(latents.schema) == LATENTS
    assert dict(counts.schema) == COUNTS
    for name in CLASSES:
        assert of_class(latents, name) == classes[name], name
        assert counts.filter(pl.col("class") == name)["count"].to_list() == [len(classes[name])]
    assert (counts["low"] <= counts["count"]).all()
    assert (counts["high"] >= counts["count"]).all()
    exclusive = latents.filter(pl.col("class") == "tuned_only")
    assert exclusive["nu_error_tuned"].abs().max() < 1e-5
    assert exclusive["nu_reconstruction_tuned"].abs().max() < 1e-5
    shrunk = latents.row(SHRUNK, named=True)
    assert shrunk["nu_error_tuned"] == pytest.approx(1, abs=1e-4)
    decoupled = latents.filter(pl.col("class") == "decoupled")
    assert decoupled["nu_reconstruction_tuned"][0] == pytest.approx(1, abs=1e-4)
    assert decoupled["nu_reconstruction_base"][1] == pytest.approx(1, abs=1e-4)
    assert latents["sure"].min() == 1  # exact, whatever part of the text is seen
    # The base's own latents are found by the direction of the base.
    assert latents.filter(pl.col("class") == "base_only")["nu_error_base"].abs().max() < 1e-5


def test_a_text_of_one_part_tells_classes_and_not_how_sure_they_are() -> None:
    world = planted(2_000, orthogonal=True)
    crosscoder, classes = faulty(world)
    measured = passed(crosscoder, world.x, groups=1)
    latents, counts = class_tables(measured, "tuned", CLASSES_ASKED, 0)
    for name in CLASSES:
        assert of_class(latents, name) == classes[name], name
    assert latents["sure"].null_count() == len(latents)
    assert counts["low"].null_count() == counts["high"].null_count() == len(counts)


def test_scaling_in_groups_is_that_of_least_squares_over_all_rows() -> None:
    world = planted(600)
    generator = torch.Generator().manual_seed(1)
    crosscoder = Crosscoder(
        W_enc=torch.randn(2, 32, 8, generator=generator),
        W_dec=torch.randn(8, 2, 32, generator=generator),
        b_enc=torch.randn(8, generator=generator),
        b_dec=torch.randn(2, 32, generator=generator),
        scale=torch.tensor([1.0, 3.0]),
    )
    scaling = passed(crosscoder, world.x).scaling()
    z, scale = crosscoder.encode(world.x), crosscoder.scale[:, None]
    rebuilt = crosscoder.decode(z)
    for latent in range(8):
        for owner in (0, 1):
            direction = (crosscoder.W_dec[latent, owner] / scale[owner]).double()
            basis = (z[:, latent, None].double() * direction).flatten()
            for seen in (0, 1):
                own = z[:, latent, None] * crosscoder.W_dec[latent, seen]
                left = ((world.x - rebuilt)[:, seen] + own) / scale[seen]
                made = (rebuilt - crosscoder.b_dec)[:, seen] / scale[seen]
                for target, beta in ((left, scaling.error), (made, scaling.reconstruction)):
                    fitted = np.linalg.lstsq(
                        basis[:, None].numpy(), target.double().flatten().numpy(), rcond=None
                    )[0][0]
                    assert beta[latent, owner, seen] == pytest.approx(fitted, rel=1e-4, abs=1e-5)
    for owner in (0, 1):
        once = latent_scaling(crosscoder, [world.x], torch.full((8,), owner))
        np.testing.assert_allclose(scaling.error[:, owner], once.error, rtol=1e-4, atol=1e-5)


def test_a_latent_is_elsewhere_by_shares_of_norms_as_those_of_two_models_are() -> None:
    """One that the base holds a third as long as a third model does, and the tuned model does not,
    sets the two apart."""
    lengths = torch.tensor([[0.3, 0.0, 1.0], [0.05, 0.04, 1.0], [0.3, 0.3, 1.0]])
    crosscoder = Crosscoder(
        W_enc=torch.zeros(3, 4, 3),
        W_dec=lengths[..., None] * torch.tensor([1.0, 0, 0, 0]),
        b_enc=torch.ones(3),
        b_dec=torch.zeros(3, 4),
        scale=torch.ones(3),
    )
    told = norms(Pass(crosscoder, Sides([0], [1]), 1))
    expected = lengths[:, 2] / lengths.sum(1)
    np.testing.assert_allclose(told.elsewhere, expected, rtol=1e-6)
    held = np.zeros((3, 2))
    classes = classify(told, held, held, np.ones(3, bool), Classes())
    assert [NAMES[place] for place in classes] == ["base_only", "elsewhere", "shared"]


def test_hooks_of_a_model_count_together_and_a_third_model_s_latents_are_elsewhere() -> None:
    world = planted(2_000, orthogonal=True)
    crosscoder, classes = faulty(world)
    third = torch.zeros(1, 32, crosscoder.d_sae + 1)
    wide = Crosscoder(
        W_enc=torch.cat([torch.cat([crosscoder.W_enc, torch.zeros(2, 32, 1)], 2), third]),
        W_dec=torch.cat(
            [torch.cat([crosscoder.W_dec, torch.zeros(1, 2, 32)]), third.permute(2, 0, 1)], 1
        ),
        b_enc=torch.cat([crosscoder.b_enc, torch.ones(1)]),
        threshold=torch.full((crosscoder.d_sae + 1,), 0.1),
        b_dec=torch.zeros(3, 32),
        scale=torch.ones(3),
    )
    wide.W_dec[-1, 2] = 1.0
    x = torch.cat([world.x, torch.zeros(2_000, 1, 32)], 1)
    latents, _ = class_tables(passed(wide, x), "tuned", CLASSES_ASKED, 0)
    assert of_class(latents, "elsewhere") == [crosscoder.d_sae]
    assert of_class(latents, "tuned_only") == classes["tuned_only"]
    # Two hooks of each model: what is exclusive at both is exclusive.
    twice = Crosscoder(
        W_enc=torch.cat([crosscoder.W_enc, torch.zeros_like(crosscoder.W_enc)])[[0, 2, 1, 3]],
        W_dec=crosscoder.W_dec.repeat(1, 2, 1)[:, [0, 2, 1, 3]],
        b_enc=crosscoder.b_enc,
        b_dec=torch.zeros(4, 32),
        scale=torch.ones(4),
        threshold=crosscoder.threshold,
    )
    x = world.x.repeat(1, 2, 1)[:, [0, 2, 1, 3]]
    latents, _ = class_tables(passed(twice, x, Sides([0, 1], [2, 3])), "tuned", CLASSES_ASKED, 0)
    for name in classes:
        assert of_class(latents, name) == classes[name], name


def test_latents_of_a_difference_are_of_neither_model_and_contribute_all_that_they_rebuild() -> (
    None
):
    world = planted(2_000, orthogonal=True)
    decoder = torch.cat([world.tuned[-TUNED_ONLY:], -world.base[BOTH : BOTH + BASE_ONLY]])
    decoder = torch.cat([decoder, torch.ones(1, 32) / 32**0.5])
    sae = SAE(
        "jumprelu",
        decoder.T.contiguous(),
        decoder,
        torch.tensor([0.0] * 6 + [-1e3]),
        torch.zeros(32),
        threshold=torch.full((7,), 0.1),
        metadata={"difference": [{"model": name, "hook": "x"} for name in ("base", "tuned")]},
    )
    measured = passed(difference_as_crosscoder(sae), world.x)
    latents, counts = class_tables(measured, "tuned", CLASSES_ASKED, 0)
    assert of_class(latents, "difference") == list(range(6))
    assert of_class(latents, "dead") == [6]
    assert latents["relative_norm"].null_count() == latents["owner"].null_count() == 7
    assert counts.filter(pl.col("class") == "difference").row(0, named=True)["low"] == 6
    difference = world.x[:, 1] - world.x[:, 0]
    whole = float(difference.square().sum(1).mean())  # orthogonal: the sum of all contributions
    assert latents["contribution"].sum() == pytest.approx(whole, rel=1e-4)


def test_a_latent_is_of_a_model_alone_only_if_both_ratios_say_so() -> None:
    world = planted(2_000, orthogonal=True)
    crosscoder, classes = faulty(world)
    measured = passed(crosscoder, world.x)
    lenient, _ = class_tables(measured, "tuned", Classes(nu_error=2, nu_reconstruction=2), 0)
    wrong = {SHRUNK, classes["decoupled"][0]}
    assert set(of_class(lenient, "tuned_only")) == {*classes["tuned_only"], *wrong}
    assert of_class(lenient, "shrunk") == []


def test_density_of_a_model_is_how_often_a_latent_would_fire_if_both_were_that_model() -> None:
    world = planted(2_000, orthogonal=True)
    crosscoder, _ = faulty(world)
    latents, _ = class_tables(passed(crosscoder, world.x), "tuned", CLASSES_ASKED, 0)
    fires = (world.values > 0).double().mean(0).numpy()
    own = latents.filter(pl.col("class") == "tuned_only")
    np.testing.assert_allclose(own["density_tuned"], fires[-TUNED_ONLY:], atol=1e-9)
    assert own["density_base"].max() == 0
    both = latents.filter(pl.col("class") == "shared")
    np.testing.assert_allclose(both["density_base"], fires[3:BOTH], atol=1e-9)
    np.testing.assert_allclose(both["density_tuned"], fires[3:BOTH], atol=1e-9)


@cache
def trained(
    world: str, architecture: str = "batchtopk"
) -> tuple[Planted, pl.DataFrame, Crosscoder]:
    """A crosscoder trained on a planted world for a second or two, and its latents."""
    made = planted(exclusive=world in ("diff", "loose", "shuffled"), rotated=world == "rotated")
    made = loosely(made) if world == "loose" else made
    x = made.x
    if world == "shuffled":
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
        x = torch.stack([x[:, 0], x[order, 1]], 1)
    settings = SAETraining(
        architecture=architecture,
        sparsity_coefficient=0.1 if architecture == "standard" else None,
        d_sae=48,
        k=2 if world == "shuffled" else 1,  # about as many as are there
        tokens=600 * 256,
        batch_size=256,
        learning_rate=4e-3,
        dead_after=20_000,
    )
    feed = crosscoder_feed(
        InMemory(x, batch_size=256), [statistics_of(x[:, 0]), statistics_of(x[:, 1])], {}
    )
    (result,) = train_saes(feed, [settings], 0)
    crosscoder = as_crosscoder(result.sae, 2, feed.read)
    latents, _ = class_tables(passed(crosscoder, x[:4_000]), "tuned", CLASSES_ASKED, 0)
    return made, latents, crosscoder


def test_every_feature_of_one_model_is_found_as_such() -> None:
    world, latents, crosscoder = trained("diff")
    directions = {"base_only": world.base[BOTH : BOTH + BASE_ONLY], "tuned_only": world.tuned[-3:]}
    for side, (name, wanted) in enumerate(directions.items()):
        own = of_class(latents, name)
        rows = normalize(crosscoder.W_dec[torch.tensor(own), side], dim=1)
        assert (rows @ wanted.T).amax(0).min() > 0.98, f"{name}: recall is not whole"
    shared = latents.filter(pl.col("class") == "shared")
    assert shared["relative_norm"].median() == pytest.approx(0.5, abs=0.03)
    assert shared["cosine"].median() > 0.98


def test_latents_that_l1_makes_of_one_model_s_norm_are_told_by_scaling_from_those_that_are() -> (
    None
):
    world, latents, crosscoder = trained("loose", "standard")
    seeming = latents.filter(
        pl.col("class") != "dead", (pl.col("relative_norm") - 0.5).abs() >= 0.4
    )
    true, false = [], []
    for row in seeming.iter_rows(named=True):
        side = int(row["relative_norm"] > 0.5)
        own = normalize(crosscoder.W_dec[row["latent"], side], dim=0)
        cosines = (world.base, world.tuned)[side] @ own
        assert cosines.max() > 0.9
        name = ("base", "tuned")[side]
        ratios = row[f"nu_error_{name}"], row[f"nu_reconstruction_{name}"]
        (true if int(cosines.argmax()) >= BOTH else false).append((row["class"], *ratios))
    assert len(true) >= BASE_ONLY + TUNED_ONLY
    assert len(false) >= 6  # as many features are not held alike
    assert {name for name, _, _ in true} == {"base_only", "tuned_only"}
    assert max(max(ratios) for _, *ratios in true) < 0.1
    assert {name for name, _, _ in false} <= {"shrunk", "decoupled"}
    assert min(max(ratios) for _, *ratios in false) > 0.4
    assert max(max(ratios) for _, *ratios in false) > 0.7
    # BatchTopK, which pays for latents and not for norms, makes none.
    _, latents, _ = trained("loose")
    assert not of_class(latents, "shrunk")
    assert not of_class(latents, "decoupled")
    assert len(of_class(latents, "base_only")) == BASE_ONLY
    assert len(of_class(latents, "tuned_only")) == TUNED_ONLY


def test_models_that_are_the_same_have_no_latent_of_their_own() -> None:
    _, latents, _ = trained("same")
    assert not of_class(latents, "base_only")
    assert not of_class(latents, "tuned_only")
    assert len(of_class(latents, "shared")) >= BOTH


def test_shared_features_that_are_turned_stay_shared_and_lose_their_cosine() -> None:
    _, latents, _ = trained("rotated")
    shared = latents.filter(pl.col("class") == "shared")
    assert len(shared) >= BOTH
    assert shared["relative_norm"].median() == pytest.approx(0.5, abs=0.05)
    assert shared["cosine"].median() < 0.8


def test_pairs_that_are_shuffled_share_nothing() -> None:
    _, latents, _ = trained("shuffled")
    alive = latents.filter(pl.col("class") != "dead")
    of_one = alive.filter(pl.col("class").is_in(["base_only", "tuned_only"]))
    assert len(of_class(latents, "shared")) < 0.1 * len(alive)
    assert len(of_one) > 0.8 * len(alive)


def test_bounds_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shared: 0\.1 must be at least exclusive 0\.2"):
        Classes(exclusive=0.2, shared=0.1)


def test_a_direction_that_its_owner_does_not_hold_has_no_ratio() -> None:
    world = planted(1_000, orthogonal=True)
    crosscoder, _ = faulty(world)
    against = replace(crosscoder, W_dec=-crosscoder.W_dec)
    latents, _ = class_tables(passed(against, world.x), "tuned", CLASSES_ASKED, 0)
    assert not of_class(latents, "tuned_only")
    assert latents["nu_error_tuned"].drop_nulls().is_finite().all()
