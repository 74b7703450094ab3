"""Logit weights, their moments and classes; the unembedding of every family; the causal check."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from tiny_models import FAMILY_NAMES, tiny_language_model, tiny_tokens

from saeflow.analyses.logit_lens import causal, lens_tables
from saeflow.analyses.logit_lens.classes import classify, classify_as_published, thresholds
from saeflow.analyses.logit_lens.lens_tables import LensInput, apply_lens
from saeflow.analyses.logit_lens.logit_lens import BINS, look_through, moments, random_directions
from saeflow.analyses.logit_lens.settings import Enrichment, Gsea, Projection
from saeflow.analyses.logit_lens.token_sets import MemberSet
from saeflow.errors import SaeflowError
from saeflow.models.norms import centres
from saeflow.models.running import capture, logits
from saeflow.models.unembedding import final_norm, unembedding
from saeflow.models.vocabulary import Vocabulary
from saeflow.saes.sae import SAE
from saeflow.seeds import numpy_generator


def plain_sae(decoder: torch.Tensor, **metadata: str) -> SAE:
    d_sae, d_model = decoder.shape
    zeros = torch.zeros(d_sae), torch.zeros(d_model)
    return SAE("standard", decoder.T.contiguous(), decoder, *zeros, metadata=metadata)


def words(count: int) -> Vocabulary:
    return Vocabulary(
        np.arange(count, dtype=np.int32),
        [f"word{i}" for i in range(count)],
        np.zeros(count, dtype=bool),
    )


def test_moments_equal_scipy_s() -> None:
    weights = numpy_generator(0, "moments").gamma(2, 1, 5000).astype(np.float32)
    computed = moments(weights)
    wide = weights.astype(np.float64)
    assert computed.mean == pytest.approx(wide.mean(), rel=1e-6)
    assert computed.std == pytest.approx(wide.std(), rel=1e-5)
    assert computed.skewness == pytest.approx(stats.skew(wide), rel=1e-4)
    assert computed.kurtosis == pytest.approx(stats.kurtosis(wide), rel=1e-4)
    assert computed.entropy == pytest.approx(stats.entropy(np.exp(wide)), rel=1e-5)


def test_a_single_spike_has_a_kurtosis_of_about_vocabulary_and_equal_weights_have_no_shape() -> (
    None
):
    spike = np.zeros(4000, np.float32)
    spike[17] = 9.0
    assert moments(spike).kurtosis == pytest.approx(4000, rel=0.01)
    flat = moments(np.full(500, 2.5, np.float32))
    assert (flat.std, flat.skewness, flat.kurtosis) == (0, 0, 0)
    assert flat.entropy == pytest.approx(np.log(500))


def test_two_groups_of_known_separation_have_the_kurtosis_of_their_mixture() -> None:
    d = 3.0  # half the distance, in standard deviations: excess kurtosis -2 d^4 / (1 + d^2)^2
    generator = numpy_generator(0, "mixture")
    weights = generator.standard_normal(200_000) + d * np.where(np.arange(200_000) % 2, 1, -1)
    assert moments(weights.astype(np.float32)).kurtosis == pytest.approx(
        -2 * d**4 / (1 + d**2) ** 2, abs=0.01
    )


def test_everything_of_a_direction_equals_the_whole_product() -> None:
    generator = numpy_generator(0, "product")
    rows = torch.from_numpy(generator.standard_normal((900, 24))).float()
    directions = random_directions(70, 24, generator)
    table, again = (
        look_through(directions, rows, [np.arange(9, dtype=np.int32)], 6, threads)
        for threads in (1, 2)
    )
    product = (directions.double() @ rows.double().T).numpy()
    assert np.allclose(table.column("std"), product.std(axis=1), rtol=1e-5)
    assert (table.top == np.argsort(-product, axis=1)[:, :6]).all()
    assert (table.bottom == np.argsort(product, axis=1)[:, :6]).all()
    assert np.allclose(table.top_weights[:, 0], product.max(axis=1), rtol=1e-5)
    for row in (0, 69):
        counts, _ = np.histogram(product[row], BINS, (product[row].min(), product[row].max()))
        assert np.abs(table.counts[row].astype(int) - counts).sum() <= 4  # float32 at the edges
    assert (table.counts.sum(axis=1) == 900).all()
    assert all((getattr(table, name) == getattr(again, name)).all() for name in vars(table))


def test_no_chunk_of_the_product_changes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = numpy_generator(0, "chunks")
    rows, directions = torch.randn(300, 16, generator=torch.Generator().manual_seed(1)), None
    directions = random_directions(50, 16, generator)
    whole = look_through(directions, rows, [], 5)
    monkeypatch.setattr("saeflow.analyses.logit_lens.logit_lens._CHUNK_BYTES", 4 * 300 * 7)
    parts = look_through(directions, rows, [], 5)
    assert np.allclose(whole.moments, parts.moments, rtol=1e-4, atol=1e-5)
    assert (whole.top == parts.top).all()


def heavy_tailed_rows(generator: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(
        generator.standard_normal((1200, 48)) * generator.gamma(2, 0.5, (1200, 1))
    ).float()


def shape_of(directions: torch.Tensor, rows: torch.Tensor) -> list[np.ndarray]:
    table = look_through(directions, rows, [], 5)
    return [table.column(name) for name in ("std", "skewness", "kurtosis")]


def test_random_directions_are_given_a_class_no_more_often_than_is_stated() -> None:
    generator = numpy_generator(0, "classes")
    rows = heavy_tailed_rows(generator)
    beyond = thresholds(*shape_of(random_directions(2000, 48, generator), rows), 0.05)
    classes = classify(*shape_of(random_directions(4000, 48, generator), rows), beyond)
    assert np.mean(classes != "none") < 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5 + 0.01


def test_planted_shapes_are_given_their_class() -> None:
    generator = numpy_generator(0, "shapes")
    rows = heavy_tailed_rows(generator) / 4
    rows[:, 0] = torch.where(torch.arange(1200) % 2 == 0, 2.0, -2.0)  # splits the vocabulary in two
    rows[:, 1] = 0.0
    rows[:15, 1] = 4.0  # promotes fifteen tokens
    beyond = thresholds(*shape_of(random_directions(1000, 48, generator), rows), 0.01)
    axes = torch.eye(48)[:2]
    planted = torch.cat([axes[:1], axes[1:], -axes[1:], -axes[:1]])
    classes = ["partition", "prediction", "suppression", "partition"]
    assert classify(*shape_of(planted, rows), beyond).tolist() == classes
    assert classify_as_published(*shape_of(planted, rows)).tolist() == classes
    assert classify_as_published(np.array([0.01]), np.array([0.1]), np.array([0.2])).tolist() == [
        "none"
    ]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_logits_are_the_residual_stream_through_the_folded_unembedding(family: str) -> None:
    lm = tiny_language_model(family)
    tokens = tiny_tokens(2, 9)
    last = f"blocks.{lm.n_layers - 1}.hook_resid_post"
    resid, given = capture(lm, tokens, [last])[last], logits(lm, tokens)
    if cap := getattr(lm.model.config, "final_logit_softcapping", None):
        given = cap * torch.atanh(given / cap)
    length = causal._length(lm, resid.flatten(0, 1)).view(2, 9, 1)
    folded = resid @ unembedding(lm, range(lm.d_vocab), ["final_norm"]).T / length
    bias = given - folded  # of a LayerNorm and of the unembedding: the same everywhere
    assert torch.allclose(bias, bias[:1, :1].expand_as(bias), atol=2e-3)
    assert centres(final_norm(lm), lm.d_model) == (family in ("gpt2", "gpt_neox"))
    if family not in ("gpt2", "gpt_neox"):
        assert torch.allclose(bias, torch.zeros_like(bias), atol=2e-3)


def test_the_unembedding_is_centred_over_the_tokens_that_are_asked_for() -> None:
    lm = tiny_language_model("llama")
    ids = [3, 5, 8, 13]
    centred = unembedding(lm, ids, ["final_norm", "centred"])
    assert torch.allclose(centred.mean(dim=0), torch.zeros(lm.d_model), atol=1e-6)
    cosine = unembedding(lm, ids, ["cosine"])
    assert torch.allclose(cosine.norm(dim=1), torch.ones(4))
    bare = lm.model.get_output_embeddings().weight[ids]
    assert torch.equal(unembedding(lm, ids, []), bare)


def given_lens(generator: np.random.Generator, tokens: int = 600, latents: int = 40) -> LensInput:
    rows = torch.from_numpy(generator.standard_normal((tokens, 32))).float()
    rows[:50, 3] += 3
    decoder = random_directions(latents, 32, generator)
    decoder[0] = torch.eye(32)[3]
    sets = [
        MemberSet("planted", "user", "the first fifty", np.arange(50, dtype=np.int32)),
        MemberSet("other", "user", "any", np.arange(100, 220, dtype=np.int32)),
    ]
    density = np.linspace(0, 0.5, latents)
    return LensInput(
        decoder, rows - rows.mean(0), words(tokens), sets, density, np.linspace(1, 3, latents), 4
    )


def test_tables_say_what_the_lens_shows() -> None:
    given = given_lens(numpy_generator(0, "tables"))
    result = apply_lens(
        given, Projection(tokens=7), Enrichment(gsea=Gsea(latents=3, permutations=99)), seed=0
    )
    product = (given.decoder @ given.unembedding.T).numpy()
    for name, schema in (("latents", lens_tables.LATENTS), ("tokens", lens_tables.TOKENS)):
        assert dict(getattr(result, name).schema) == dict(schema)
    assert result.latents["log10_density"][0] is None
    assert result.latents["log10_density"][39] == pytest.approx(np.log10(0.5))
    assert result.latents["layer"].unique().to_list() == [4]
    top = result.tokens.filter(latent=5, side="top")
    assert top["token_id"].to_list() == np.argsort(-product[5])[:7].tolist()
    assert top["token"][0] == f"word{top['token_id'][0]}"
    assert (result.histograms["counts"].list.sum() == 600).all()
    first = result.enrichment.row(0, named=True)
    assert (first["latent"], first["set"]) == (0, "planted")
    assert first["auc"] > 0.95
    assert set(result.enrichment["set"].to_list()) <= {"planted", "other"}
    scores = result.scores.filter(latent=0, set="planted")
    assert (scores["ks"][0], scores["auc"][0]) == (
        pytest.approx(first["ks"]),
        pytest.approx(first["auc"]),
    )
    assert result.scores.height == 80
    split = result.splits.row(0, named=True)
    assert (sum(split["inside"]), sum(split["outside"])) == (50, 550)
    assert result.gsea is not None
    assert result.gsea.height == 6


def test_a_typical_activation_scales_weights_and_changes_no_order() -> None:
    given = given_lens(numpy_generator(0, "scales"))
    unit, typical = (
        apply_lens(given, Projection(scale=scale), Enrichment(), seed=0)
        for scale in ("unit", "typical")
    )
    ratio = (typical.latents["std"] / unit.latents["std"]).to_numpy()
    assert ratio == pytest.approx(np.linspace(1, 3, 40), rel=1e-5)
    assert unit.tokens["token_id"].to_list() == typical.tokens["token_id"].to_list()
    assert unit.latents["class"].to_list() == typical.latents["class"].to_list()
    assert unit.latents["entropy"][39] > typical.latents["entropy"][39]


def test_without_sets_and_density_the_lens_still_shows_the_rest() -> None:
    given = given_lens(numpy_generator(0, "bare"))._replace(sets=[], density=None, typical=None)
    result = apply_lens(given, Projection(), Enrichment(), seed=0)
    assert result.enrichment.is_empty()
    assert result.splits.is_empty()
    assert result.latents["log10_density"].null_count() == 40


def test_a_dead_row_of_the_decoder_is_flat_and_hinders_no_other() -> None:
    given = given_lens(numpy_generator(0, "dead"))
    decoder = given.decoder.clone()
    decoder[7] = 0
    dead, whole = (
        apply_lens(each, Projection(), Enrichment(gsea=Gsea(latents=3, permutations=99)), seed=0)
        for each in (given._replace(decoder=decoder), given)
    )
    columns = ["latent", "mean", "std", "skewness", "kurtosis", "entropy", "class"]
    for pair in (dead.latents.select(columns), whole.latents.select(columns)):
        assert pair.select(pl.exclude("class")).null_count().sum_horizontal().item() == 0
    assert dead.latents["std"][7] == dead.latents["decoder_norm"][7] == 0
    others = pl.col("latent") != 7
    assert (
        dead.latents.select(columns)
        .filter(others)
        .equals(whole.latents.select(columns).filter(others))
    )
    assert not any(
        row["latent"] == 7 and row["q_bh"] < 0.5 for row in dead.enrichment.iter_rows(named=True)
    )


def test_a_sae_that_does_not_write_the_residual_stream_is_refused() -> None:
    lm = tiny_language_model("llama")
    sae = plain_sae(torch.eye(16))
    with pytest.raises(SaeflowError, match="set logit_lens: null"):
        lens_tables.written_hook(lm, sae, "blocks.0.hook_resid_post")
    transcoder = plain_sae(torch.eye(lm.d_model), hook_name_out="blocks.1.hook_mlp_out")
    assert (
        lens_tables.written_hook(lm, transcoder, "blocks.1.hook_resid_mid")
        == "blocks.1.hook_mlp_out"
    )


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_after_the_last_layer_the_model_does_what_the_lens_predicts(family: str) -> None:
    lm = tiny_language_model(family)
    tokens = tiny_tokens(6, 10)
    (direction,) = random_directions(1, lm.d_model, numpy_generator(0, "direction"))
    last = f"blocks.{lm.n_layers - 1}.hook_resid_post"
    direction = direction - direction.mean()  # so that a LayerNorm takes nothing of it away
    for amount in (1e-2, -1e-2):
        places = causal.LatentEdits(tokens, np.arange(2, 8), np.full(6, amount))
        changed = causal.change(lm, last, direction, places, range(lm.d_vocab))
        assert changed.measured.abs().max() > 1e-5
        # the length of the stream changes, too, which the lens does not see: a part of the same
        # order is left over
        assert np.corrcoef(changed.measured, changed.predicted)[0, 1] > 0.9
    weights = unembedding(lm, range(lm.d_vocab), ["final_norm"]) @ direction
    assert np.corrcoef(weights, -changed.predicted)[0, 1] > 0.99


def test_a_latent_is_added_at_one_position_and_nowhere_else() -> None:
    lm = tiny_language_model("llama")
    tokens = tiny_tokens(1, 8).repeat(2, 1)
    direction = torch.ones(lm.d_model) / lm.d_model**0.5
    hook = "blocks.0.hook_resid_post"
    places = causal.LatentEdits(tokens, np.array([3, 6]), np.array([2.0, 0.0]))
    measured = causal.change(lm, hook, direction, places, range(lm.d_vocab))
    alone = causal.change(lm, hook, direction, places.part(slice(0, 1)), range(lm.d_vocab))
    assert torch.allclose(measured.measured, alone.measured / 2, atol=1e-6)
    from saeflow.models.hooks import attach

    def edit(resid: torch.Tensor) -> torch.Tensor:
        changed = resid.clone()
        changed[0, 3] += 2 * direction
        return changed

    with attach(lm, [(hook, edit)]):
        changed = logits(lm, tokens[:1, :4])[0, 3].log_softmax(-1)
    expected = changed - logits(lm, tokens[:1])[0, 3].log_softmax(-1)
    assert torch.allclose(alone.measured, expected.double(), atol=1e-5)


def test_the_latents_checked_are_the_clearest_each_for_another_set() -> None:
    rows = [
        (0, "a", 0.9),
        (1, "a", 0.8),
        (0, "b", 0.7),
        (2, "b", 0.6),
        (3, "c", -0.9),
        (4, "c", 0.5),
        (5, "d", 0.4),
    ]
    table = pl.DataFrame(rows, schema=["latent", "set", "effect"], orient="row")
    shapes = pl.DataFrame({"latent": range(7), "skewness": [0.0, 0.5, 0.1, 2.0, 0.0, -3.0, 1.0]})
    assert causal.clearest(table, shapes, [0, 1, 2, 4], 2) == [(0, "a"), (2, "b")]
    assert causal.clearest(table, shapes, [0, 1, 2, 3, 5], 4) == [
        (0, "a"),
        (2, "b"),
        (5, "d"),
        (3, None),
    ]
