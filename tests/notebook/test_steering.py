"""Steering vectors and completions at a prompt are those of the rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from notebook_files import D_MODEL, D_SAE, HOOK

import saeflow as sf
from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.steering.completions import complete
from saeflow.analyses.steering.settings import Completions
from saeflow.errors import SaeflowError
from saeflow.models.running import capture
from saeflow.seeds import torch_generator

pytestmark = pytest.mark.usefixtures("one_thread", "here")

ON, OFF = ["I think the cat sat", "I think a dog ran"], ["the mat under the tree .", "a tree"]


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


def approximation() -> Approximation:
    generator = torch.Generator().manual_seed(5)
    M, b = torch.randn(D_MODEL, D_SAE, generator=generator), torch.randn(D_SAE, generator=generator)
    rows = sf.load_sae("saes/tiny").W_dec
    return Approximation.of(M, b, rows)


@pytest.mark.parametrize("positions", ["mean", "last"])
def test_caa_is_the_difference_of_mean_activations(positions: str) -> None:
    lm = sf.load_model("models/tiny", device="cpu")

    def pooled(text: str) -> torch.Tensor:
        x = capture(lm, torch.tensor([lm.tokenize(text)]), [HOOK])[HOOK][0, 1:]  # never BOS
        return x[-1] if positions == "last" else x.mean(0)

    on, off = (torch.stack([pooled(text) for text in texts]).mean(0) for texts in (ON, OFF))
    built = sf.steering_vector(
        lm, HOOK, positive=ON, negative=OFF, settings={"caa_positions": positions}
    )
    torch.testing.assert_close(built.vector, unit(on - off))
    assert (built.hook, built.method, built.norm) == (HOOK, "caa", 1.0)


def test_methods_for_latents_follow_their_formulas() -> None:
    lm, sae, effects = sf.load_model("models/tiny"), sf.load_sae("saes/tiny"), approximation()
    given: dict[str, Any] = {"sae": sae, "latents": {5: 1.0, 9: -0.5}, "approximator": effects}
    target = torch.zeros(D_SAE, dtype=torch.float64)
    target[5], target[9] = 1.0, -0.5
    M, b = effects.M.double(), effects.b.double()
    expected = {
        "sae": target @ sae.W_dec.double(),
        "sae_ts": unit(M @ target) - 0.5 * unit(M @ b),
        "pinverse": target @ torch.linalg.pinv(M),
    }
    for method, vector in expected.items():
        built = sf.steering_vector(lm, HOOK, method, **given, settings={"bias_weight": 0.5})
        torch.testing.assert_close(built.vector, unit(vector).float(), atol=1e-5, rtol=1e-4)
        assert built.metadata["targets"] == {"5": 1.0, "9": -0.5}


def test_a_random_vector_is_the_draw_that_a_study_names() -> None:
    lm = sf.load_model("models/tiny")
    built = sf.steering_vector(lm, HOOK, "random", goal="london", seed=3)
    generator = torch_generator(3, "steering", "random", "london")
    drawn = torch.randn(D_MODEL, generator=generator, dtype=torch.float64)
    assert torch.equal(built.vector, unit(drawn).float())


def test_fgaa_targets_rare_latents_that_differ_between_the_texts() -> None:
    lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
    density = torch.full((D_SAE,), 0.001)
    density[::2] = 0.5  # every other latent is dense
    built = sf.steering_vector(
        lm,
        HOOK,
        "fgaa",
        positive=ON,
        negative=OFF,
        sae=sae,
        approximator=approximation(),
        density=density,
        settings={"fgaa": {"positive": 3}},
    )
    targets = {int(latent): weight for latent, weight in built.metadata["targets"].items()}
    assert 0 < len(targets) <= 3
    assert all(latent % 2 for latent in targets)
    assert sum(targets.values()) == pytest.approx(1)


def test_pursuit_nears_the_vector_of_the_texts_as_latents_are_added() -> None:
    lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
    texts = {"positive": ON, "negative": OFF}
    whole = sf.steering_vector(lm, HOOK, **texts).vector
    near = []
    for latents in (1, 4, D_MODEL):
        settings = {"pursuit": {"k": latents}}
        built = sf.steering_vector(lm, HOOK, "pursuit", **texts, sae=sae, settings=settings)
        assert len(built.metadata["targets"]) <= latents
        near.append(float(built.vector @ whole))
    assert near == sorted(near)
    assert near[-1] > 0.999


@pytest.mark.parametrize(
    ("method", "given", "needs"),
    [
        ("caa", {"positive": ON}, "positive and negative texts"),
        ("sae", {"latents": 5}, "sae"),
        ("sae", {"sae": True}, "latents"),
        ("sae_ts", {"sae": True, "latents": 5}, "approximator"),
        ("pursuit", {"positive": ON, "negative": OFF}, "sae"),
        ("fgaa", {"positive": ON, "negative": OFF, "sae": True, "approximator": True}, "density"),
    ],
)
def test_what_a_method_needs_is_asked_for(method: str, given: dict[str, Any], needs: str) -> None:
    lm = sf.load_model("models/tiny")
    real = {"sae": sf.load_sae("saes/tiny"), "approximator": approximation()}
    given = {name: real[name] if value is True else value for name, value in given.items()}
    with pytest.raises(SaeflowError, match=f"method '{method}' needs {needs}; give it"):
        sf.steering_vector(lm, HOOK, method, **given)


def test_completions_are_those_of_a_study_of_which_the_first_are_kept() -> None:
    lm = sf.load_model("models/tiny")
    vector = sf.steering_vector(lm, HOOK, positive=ON, negative=OFF, goal="thinking")
    scales = [0.0, 3.0, 9.0]
    settings = Completions(prompts=["I think", "the"], samples=4, new_tokens=6, scales=scales)
    study = complete(lm, HOOK, vector.vector, scales, settings, 11, "thinking", "caa")
    here = sf.steer(
        lm, vector, ["I think", "the"], [0, 1, 3], mean_norm=3.0, samples=2, new_tokens=6, seed=11
    )
    assert here.equals(study.filter(study["sample"] < 2))
    assert here["scale"].unique().sort().to_list() == scales
    assert set(here.filter(scale_index=0)["text"]) != set(here.filter(scale_index=2)["text"])


def test_a_bare_direction_needs_a_hook_and_the_model_s_width() -> None:
    lm = sf.load_model("models/tiny")
    direction = torch.ones(D_MODEL)
    with pytest.raises(SaeflowError, match="does not say where it is added; give its hook"):
        sf.steer(lm, direction, "the", 1)
    with pytest.raises(SaeflowError, match="has 7 numbers, and the model's width is 32"):
        sf.steer(lm, torch.ones(7), "the", 1, hook=HOOK)
    with pytest.raises(SaeflowError, match=r"steer: sampling\.temperature"):
        sf.steer(lm, direction, "the", 1, hook=HOOK, sampling={"temperature": -1})
    once = sf.steer(lm, direction, "the", 2, hook=HOOK, samples=1, sampling={"temperature": 0})
    twice = sf.steer(lm, direction * 2, "the", 1, hook=HOOK, samples=1, sampling={"temperature": 0})
    assert once["text"].to_list() == twice["text"].to_list()


def test_an_approximator_is_read_from_its_folder(tmp_path: Path) -> None:
    from saeflow.analyses.effects.io import save_approximation

    lm, sae, effects = sf.load_model("models/tiny"), sf.load_sae("saes/tiny"), approximation()
    save_approximation(tmp_path, effects, {})
    read, given = (
        sf.steering_vector(lm, HOOK, "sae_ts", sae=sae, latents=5, approximator=approximator)
        for approximator in (tmp_path, effects)
    )
    assert torch.equal(read.vector, given.vector)
