"""Vectors by method equal their formulas; latents are chosen by what they tell apart; completions
share their noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from steered import D_MODEL, HOOK, tiny_lm, tiny_sae, unit_rows

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.steering.choice import (
    CANDIDATES_SCHEMA,
    TARGETS_SCHEMA,
    LatentChoice,
    LatentChoices,
)
from saeflow.analyses.steering.completions import absolute_scales, complete
from saeflow.analyses.steering.examples import bos_latents, read_examples
from saeflow.analyses.steering.io import (
    Contrast,
    SteeringVector,
    load_choice,
    load_contrast,
    load_vector,
    load_vectors,
    save_choices,
    save_contrast,
    save_vector,
)
from saeflow.analyses.steering.latents import (
    best_detector,
    differing_latents,
    firing_density,
    pursued_latents,
)
from saeflow.analyses.steering.methods import BUILDING, Method
from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
from saeflow.analyses.steering.settings import Completions, Fgaa, Pursuit
from saeflow.analyses.steering.vectors import BUILDERS, VectorInputs, build_vector
from saeflow.errors import DamagedError, SaeflowError
from saeflow.models.running import capture
from saeflow.saes.subject import Subject
from saeflow.tables import read_table, write_table

GENERATOR = torch.Generator().manual_seed(0)
D, F = 12, 30


def approximation(M: torch.Tensor, b: torch.Tensor, rotation: torch.Tensor) -> Approximation:
    return Approximation(M, b, rotation, torch.zeros(len(M)))


INPUTS = VectorInputs(
    goal="love",
    seed=7,
    targets={3: 0.75, 11: 0.25},
    W_dec=torch.randn(F, D, generator=GENERATOR),
    approximation=approximation(
        torch.randn(D, F, generator=GENERATOR),
        torch.randn(F, generator=GENERATOR),
        torch.linalg.qr(torch.randn(D, D, generator=GENERATOR))[0],
    ),
    positive=torch.randn(4, D, generator=GENERATOR),
    negative=torch.randn(6, D, generator=GENERATOR),
    bias_weight=0.5,
    differing={2: 0.6, 9: -0.4},
    pursued={5: 2.0, 20: -1.5},
    planted={7: 1.0},
)
TARGET = torch.zeros(F, dtype=torch.float64)
TARGET[[3, 11]] = torch.tensor([0.75, 0.25], dtype=torch.float64)


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


def formula(method: str) -> torch.Tensor:
    """The method written out once more, row by row."""
    W_dec, M, b = INPUTS.W_dec.double(), INPUTS.effects.M.double(), INPUTS.effects.b.double()
    rows = 0.75 * unit(W_dec[3]) + 0.25 * unit(W_dec[11])
    return {
        "caa": INPUTS.positive.double().mean(0) - INPUTS.negative.double().mean(0),
        "sae": rows,
        "sae_ts": unit(0.75 * M[:, 3] + 0.25 * M[:, 11]) - 0.5 * unit(M @ b),
        "pinverse": TARGET @ torch.linalg.pinv(M),
        "rotation": unit(rows @ INPUTS.effects.rotation.double()) - 0.5 * unit(M @ b),
        "pursuit": 2.0 * W_dec[5] - 1.5 * W_dec[20],
        "fgaa": unit(0.6 * M[:, 2] - 0.4 * M[:, 9]) - 0.5 * unit(M @ b),
    }[method]


def vector_of(method: str, inputs: VectorInputs) -> torch.Tensor:
    return build_vector(method, inputs).vector


@pytest.mark.parametrize(
    "method", ["caa", "sae", "sae_ts", "pinverse", "rotation", "fgaa", "pursuit"]
)
def test_a_method_equals_its_formula(method: str) -> None:
    expected = unit(formula(method)).float()
    torch.testing.assert_close(vector_of(method, INPUTS), expected, atol=1e-5, rtol=0)


def test_the_published_pseudo_inverse_solves_for_the_target_less_the_bias_and_its_norm_counts() -> (
    None
):
    published = build_vector("pinverse", replace(INPUTS, pinverse_form="published"))
    solved = (unit(TARGET) - INPUTS.effects.b.double()) @ torch.linalg.pinv(
        INPUTS.effects.M.double()
    )
    assert published.norm == pytest.approx(solved.norm().item(), rel=1e-5)
    torch.testing.assert_close(published.norm * published.vector, solved.float(), atol=1e-5, rtol=0)
    settings = Completions(scales=[0.0, 0.5])
    assert absolute_scales(settings, mean_norm=10.0, norm=published.norm) == [
        0.0,
        5.0 * published.norm,
    ]


@pytest.mark.parametrize("method", BUILDERS)
def test_no_other_norm_counts(method: str) -> None:
    assert build_vector(method, INPUTS).norm == 1.0


@pytest.mark.parametrize("method", BUILDERS)
def test_every_vector_has_unit_norm(method: str) -> None:
    vector = vector_of(method, INPUTS)
    assert vector.dtype == torch.float32
    assert vector.norm().item() == pytest.approx(1, abs=1e-6)


def test_pinverse_hits_the_target_and_nothing_else_where_it_can() -> None:
    few = replace(
        INPUTS,
        approximation=approximation(
            INPUTS.effects.M[:, :8], INPUTS.effects.b[:8], INPUTS.effects.rotation
        ),
        W_dec=INPUTS.W_dec[:8],
        targets={3: 1.0},
    )
    effects = vector_of("pinverse", few) @ few.effects.M
    assert effects.abs().argmax() == 3
    assert effects[torch.arange(8) != 3].abs().max() < 1e-5


def test_sae_ts_without_bias_weight_moves_the_target_most_of_all_unit_vectors() -> None:
    free = replace(INPUTS, bias_weight=0.0, targets={5: 1.0})
    best = (vector_of("sae_ts", free) @ INPUTS.effects.M)[5]
    assert all(
        (vector_of(method, free) @ INPUTS.effects.M)[5] <= best + 1e-6 for method in BUILDERS
    )


@pytest.mark.parametrize("method", ["sae", "sae_ts", "pinverse", "rotation"])
def test_a_planted_latent_is_steered_to_as_a_chosen_one_is(method: str) -> None:
    inputs = replace(INPUTS, planted={5: 1.0}, pinverse_form="published")
    same = build_vector(method, replace(inputs, targets={5: 1.0}))
    vector, norm = build_vector(f"{method}_planted", inputs)
    assert torch.equal(vector, same.vector)
    assert norm == same.norm
    assert not torch.allclose(vector, vector_of(method, INPUTS))


def test_the_best_detector_of_a_planted_topic_is_read_by_f1() -> None:
    rows = {
        "label": ["syntax", "topic"],
        "feature": ["love", "love"],
        "latent_f1": [3, 7],
        "latent_cosine": [4, 5],
    }
    assert best_detector(pl.DataFrame(rows), "love") == 7
    for table in (pl.DataFrame(rows), pl.DataFrame(rows).clear(), pl.DataFrame()):
        with pytest.raises(
            SaeflowError, match="the corpus plants no topic 'anger', so no latent is known"
        ):
            best_detector(table, "anger")


TARGETED = ["sae", "sae_ts", "pinverse", "rotation", "fgaa", "pursuit"]


@pytest.mark.parametrize("method", TARGETED)
def test_negative_weights_steer_the_other_way(method: str) -> None:
    free = replace(INPUTS, bias_weight=0.0)
    away = replace(
        free,
        targets={latent: -weight for latent, weight in INPUTS.targets.items()},
        differing={latent: -weight for latent, weight in INPUTS.differing.items()},
        pursued={latent: -weight for latent, weight in INPUTS.pursued.items()},
    )
    torch.testing.assert_close(vector_of(method, away), -vector_of(method, free))


@pytest.mark.parametrize("method", TARGETED)
def test_weights_of_several_latents_and_signs_raise_some_and_lower_others(method: str) -> None:
    weights = {3: 0.5, 11: 0.2, 4: -0.3}
    # columns of M and decoder rows are the same orthogonal directions, so that every method can do
    # it
    basis = torch.linalg.qr(torch.randn(D, D, generator=GENERATOR))[0]
    M, W_dec, rotation = basis, basis.T.contiguous(), torch.eye(D)
    both = {
        "targets": {latent % D: w for latent, w in weights.items()},
        "differing": weights,
        "pursued": weights,
        "bias_weight": 0.0,
    }
    inputs = replace(
        INPUTS, approximation=approximation(M, torch.zeros(D), rotation), W_dec=W_dec, **both
    )
    expected = torch.zeros(D)
    for latent, weight in weights.items():
        expected[latent] = weight
    torch.testing.assert_close(vector_of(method, inputs) @ M, unit(expected), atol=1e-5, rtol=0)


def test_the_random_vector_belongs_to_seed_and_goal() -> None:
    vector = vector_of("random", INPUTS)
    assert torch.equal(vector, vector_of("random", replace(INPUTS, targets={})))
    assert not torch.equal(vector, vector_of("random", replace(INPUTS, goal="anger")))
    assert not torch.equal(vector, vector_of("random", replace(INPUTS, seed=8)))


@pytest.mark.parametrize(
    ("method", "inputs", "complaint"),
    [
        ("magic", INPUTS, "there is no method 'magic'; there are caa, "),
        (
            "sae",
            replace(INPUTS, targets={30: 1.0}),
            "goal love: latent 30 does not exist; the SAE has 30 latents",
        ),
        ("sae", replace(INPUTS, targets={}), "method sae: the vector is zero"),
        ("caa", replace(INPUTS, negative=INPUTS.positive), "method caa: the vector is zero"),
        (
            "sae_ts",
            replace(
                INPUTS, approximation=INPUTS.effects._replace(M=INPUTS.effects.M * float("nan"))
            ),
            "method sae_ts: the vector holds NaN",
        ),
        (
            "caa",
            replace(INPUTS, positive=torch.ones(2, 5), negative=torch.zeros(2, 5)),
            r"shape \(5,\) and the model is 12",
        ),
    ],
)
def test_a_vector_that_cannot_be_built_is_one_sentence(
    method: str, inputs: VectorInputs, complaint: str
) -> None:
    with pytest.raises(SaeflowError, match=complaint) as caught:
        build_vector(method, inputs)
    assert "\n" not in str(caught.value)


# --- activations of texts and target latents ------------------------------------------------------


def test_examples_leave_bos_out_and_know_no_padding() -> None:
    lm, sae = tiny_lm("gpt2"), tiny_sae()
    texts = ["the cat sat", "dog", "a dog ran under the tree ."]
    examples = read_examples(Subject(lm, sae, HOOK, 0), texts)
    peaks = []
    for text, mean, last, latents in zip(texts, *examples[:3], strict=True):
        resid = capture(lm, torch.tensor([lm.tokenize(text)]), [HOOK])[HOOK][0, 1:]
        torch.testing.assert_close(mean, resid.mean(0))
        torch.testing.assert_close(last, resid[-1])
        torch.testing.assert_close(
            latents, sae.encode(resid).double().mean(0), atol=1e-6, rtol=1e-5
        )
        peaks.append(sae.encode(resid).amax(0))
    torch.testing.assert_close(examples.peak, torch.stack(peaks).amax(0))


@pytest.mark.parametrize(
    ("text", "complaint"), [("", "the example '' has no tokens"), ("cat " * 200, "shorten it")]
)
def test_a_text_that_cannot_be_an_example_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(SaeflowError, match=complaint):
        read_examples(Subject(tiny_lm(), tiny_sae(), HOOK, 0), ["the cat", text])


def test_latents_of_bos_are_those_that_no_token_of_the_examples_fires_more() -> None:
    lm, sae = tiny_lm(), tiny_sae()
    on_bos = sae.encode(capture(lm, torch.tensor([[lm.bos_id]]), [HOOK])[HOOK][0, 0])
    peak = on_bos.clone()
    peak[[3, 5]] += torch.tensor([0.1, -0.1])
    assert bos_latents(Subject(lm, sae, HOOK, 0), peak).nonzero().flatten().tolist() == [5]


def test_density_is_the_share_of_tokens_on_which_a_latent_fires() -> None:
    sae, rows = tiny_sae(), torch.randn(100, D_MODEL, generator=torch.Generator().manual_seed(3))
    expected = (sae.encode(rows[:60]) > 0).double().mean(0)
    parts = (rows[start : start + 20] for start in range(0, 100, 20))
    torch.testing.assert_close(firing_density(sae, parts, tokens=50), expected)


def test_fgaa_targets_what_differs_most_and_is_neither_dense_nor_from_bos() -> None:
    difference = torch.tensor([9.0, 5.0, 3.0, 1.0, 0.0, -1.0, -4.0, -8.0])
    density = torch.tensor([0.5, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2])
    from_bos = torch.tensor([False, True, False, False, False, False, False, False])
    differing = differing_latents(
        difference, from_bos, density, Fgaa(density=0.1, positive=2, negative=1)
    )
    assert differing == {2: 3 / 8, 3: 1 / 8, 6: -4 / 8}
    many = differing_latents(
        difference, from_bos, density, Fgaa(density=0.1, positive=100, negative=0)
    )
    assert set(many) == {2, 3}
    with pytest.raises(
        SaeflowError, match=r"of 7 that differ between the examples, 3 fire on more than 0\.001"
    ):
        differing_latents(difference, from_bos | (density == 0), density, Fgaa(density=0.001))


def test_pursuit_finds_the_latents_that_a_direction_was_made_of() -> None:
    W_dec = 3 * unit_rows(200, 32)
    direction = 2.0 * W_dec[7] - 1.0 * W_dec[30] + 0.5 * W_dec[150]
    assert pursued_latents(direction, W_dec, Pursuit(k=5)) == pytest.approx(
        {7: 2.0, 30: -1.0, 150: 0.5}, abs=1e-5
    )
    first = pursued_latents(direction, W_dec, Pursuit(k=1, by="matching"))
    assert list(first) == [7]
    positive = pursued_latents(direction, W_dec, Pursuit(k=4, by="gradient_positive"))
    assert min(positive.values()) > 0
    with pytest.raises(SaeflowError, match="is left with no latent"):
        pursued_latents(-W_dec[0], W_dec[:1], Pursuit(by="gradient_positive"))


# --- completions ----------------------------------------------------------------------------------

SETTINGS = Completions(
    prompts=["the cat", "a dog ran", ""], samples=5, new_tokens=8, scales=[0.0, 0.5, 2.0]
)


def completions(
    method: str = "caa", vector: int = 0, settings: Completions = SETTINGS, rows: int = 32
) -> pl.DataFrame:
    scales = absolute_scales(settings, mean_norm=10.0)
    return complete(
        tiny_lm(), HOOK, unit_rows(1, seed=vector)[0], scales, settings, 1, "love", method, rows
    )


def test_completions_have_their_schema_and_every_cell_of_the_grid_once() -> None:
    table = completions()
    assert dict(table.schema) == COMPLETIONS_SCHEMA
    assert len(table) == 3 * 3 * 5 == table["completion_id"].n_unique()
    assert table["scale"].unique(maintain_order=True).to_list() == [0.0, 5.0, 20.0]
    assert table.select("scale_index", "prompt", "sample").n_unique() == 45
    assert all(
        text.startswith(prompt) for prompt, text in table.select("prompt", "text").iter_rows()
    )
    assert not table["text"].str.contains("<bos>", literal=True).any()


def test_at_scale_zero_all_methods_write_the_same_texts() -> None:
    caa, other = completions("caa", 0), completions("sae", 1)
    unsteered = pl.col("scale_index") == 0
    assert caa.filter(unsteered)["text"].equals(other.filter(unsteered)["text"])
    assert not caa.filter(~unsteered)["text"].equals(other.filter(~unsteered)["text"])
    assert not set(caa["completion_id"]) & set(other["completion_id"])


def test_a_completion_keeps_its_text_and_name_when_the_grid_grows() -> None:
    table = completions()
    larger = completions(
        settings=SETTINGS.model_copy(update={"scales": [0.0, 0.5, 1.0, 2.0], "samples": 6})
    )
    both = table.join(larger, on="completion_id")
    assert len(both) == len(table)
    assert both["text"].equals(both["text_right"])


def test_scales_may_be_absolute() -> None:
    assert (
        absolute_scales(SETTINGS.model_copy(update={"scale_unit": "absolute"}), 10.0)
        == SETTINGS.scales
    )


def test_a_completion_s_text_is_prompt_and_continuation_read_as_one() -> None:
    text = completions().filter(pl.col("prompt") == "a dog ran")["text"][0]
    assert len(text.split()) <= 3 + 8
    assert text.split()[:3] == ["a", "dog", "ran"]


@pytest.mark.parametrize(
    ("vector", "scales", "complaint"),
    [
        (
            torch.ones(7),
            [0.0, 1.0],
            r"goal love, method caa: the vectors have shape \(1, 7\) and the model is 32 wide",
        ),
        (torch.full((D_MODEL,), float("nan")), [0.0, 1.0], "vector 0 holds NaN"),
        (unit_rows(1)[0], [0.0, float("inf")], "must be finite numbers"),
    ],
)
def test_a_vector_that_cannot_steer_is_refused(
    vector: torch.Tensor, scales: list[float], complaint: str
) -> None:
    with pytest.raises(SaeflowError, match=complaint):
        complete(tiny_lm(), HOOK, vector, scales, SETTINGS, 1, "love", "caa")


# --- files ----------------------------------------------------------------------------------------


def test_vector_choice_and_completions_are_read_back(tmp_path: Path) -> None:
    vector = SteeringVector(
        unit_rows(1)[0], {"hook": HOOK, "goal": "love", "method": "sae", "targets": {"3": 1.0}}
    )
    save_vector(tmp_path / "vector.safetensors", vector)
    read = load_vector(tmp_path / "vector.safetensors")
    assert torch.equal(read.vector, vector.vector)
    assert read.metadata == vector.metadata
    candidates = pl.DataFrame([[1, 3, *[0.5] * 6, None]], schema=CANDIDATES_SCHEMA, orient="row")
    choice = LatentChoice({3: 1.0, 11: -0.5}, candidates)
    targets = pl.DataFrame([{"goal": "love", "latent": 3, "weight": 1.0}], schema=TARGETS_SCHEMA)
    save_choices(tmp_path, LatentChoices({"love": choice}, targets))
    again = load_choice(tmp_path / "love/latents.json")
    assert read_table(tmp_path / "targets.parquet", TARGETS_SCHEMA).equals(targets)
    assert again.weights == choice.weights
    assert again.candidates.equals(choice.candidates)
    table = completions()
    write_table(tmp_path / "completions.parquet", table, COMPLETIONS_SCHEMA)
    assert read_table(tmp_path / "completions.parquet", COMPLETIONS_SCHEMA).equals(table)


def test_the_contrast_and_the_norm_of_a_vector_are_read_back(tmp_path: Path) -> None:
    pooled = [torch.rand(3, D) for _ in range(4)]
    contrast = Contrast(*pooled, torch.rand(F, dtype=torch.float64), torch.arange(F) % 3 == 0)
    save_contrast(tmp_path / "c", contrast)
    assert all(
        torch.equal(a, b) for a, b in zip(load_contrast(tmp_path / "c"), contrast, strict=True)
    )
    for metadata, norm in (({"norm": 2.5}, 2.5), ({}, 1.0)):
        save_vector(tmp_path / "v", SteeringVector(unit_rows(1)[0], metadata))
        assert load_vector(tmp_path / "v").norm == norm


def test_a_vector_in_the_place_of_another_is_named_before_a_text_is_written(
    tmp_path: Path,
) -> None:
    def written(folder: str, **metadata: str) -> Path:
        path = tmp_path / "love" / folder / "vector.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_vector(path, SteeringVector(unit_rows(1)[0], {"hook": HOOK, **metadata}))
        return path

    own = [written(name, goal="love", method=name) for name in ("caa", "sae", "pinverse")]
    assert [vector.method for vector in load_vectors([*own, written("theirs")])][3] == ""
    for metadata in ({"goal": "london", "method": "caa"}, {"goal": "love", "method": "sae"}):
        written("caa", **metadata)
        with pytest.raises(DamagedError) as caught:
            load_vectors(own)
        assert caught.value.remade == [own[0]]
        assert f"is the vector of goal {metadata['goal']!r} by {metadata['method']!r}, in the " in (
            str(caught.value)
        )


@pytest.mark.parametrize(
    ("name", "load"), [("v", load_vector), ("l", load_choice), ("c", load_contrast)]
)
def test_files_that_are_absent_or_broken_are_one_sentence(
    tmp_path: Path, name: str, load: object
) -> None:
    for content in (None, b"", b"{}", b"PAR1 and no more"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(SaeflowError) as caught:
            load(tmp_path / name)  # type: ignore[operator]
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("method", BUILDING, ids=lambda method: method.name)
def test_a_method_needs_the_approximator_where_its_entry_says_so_and_nowhere_else(
    method: Method,
) -> None:
    bare = replace(INPUTS, approximation=None)
    if method.needs_effects:
        with pytest.raises(SaeflowError, match=r"built from the approximator.*--approximator"):
            build_vector(method.name, bare)
    else:
        assert torch.equal(vector_of(method.name, bare), vector_of(method.name, INPUTS))
