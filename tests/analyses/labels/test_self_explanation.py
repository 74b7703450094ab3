"""A direction in place of a word: where it goes, what is read of it, and that chance gets no
label."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import chat_language_model, tiny_language_model
from torch.nn.functional import normalize

from saeflow.analyses.labels.patching import Prefix, patched, place, resid_pre, typical_norm
from saeflow.analyses.labels.self_explanation import (
    Grid,
    Place,
    best_places,
    calibrated,
    consensus,
    first_phrase,
    injected,
    look,
    random_directions,
    self_explanations,
    self_labels,
    spoken,
)
from saeflow.analyses.labels.settings import SelfExplanation
from saeflow.config.sections import Message
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach
from saeflow.models.language_model import LanguageModel

TEMPLATE = "the {latent} sat on a {latent} and then the"


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_language_model("llama")


def by_hand(
    lm: LanguageModel, vectors: torch.Tensor, layer: int, kind: str, tokens: list[int]
) -> torch.Tensor:
    """Final logits of a whole pass without a cache, with the vectors at positions 2 and 6."""

    def edit(resid: torch.Tensor) -> torch.Tensor:
        resid = resid.clone()
        for position in (2, 6):
            if kind == "replace":
                resid[:, position] = vectors
            else:
                norm = resid[:, position].norm(dim=-1, keepdim=True)
                resid[:, position] += vectors * norm
        return resid

    with torch.no_grad(), attach(lm, [(resid_pre(layer), edit)]):
        rows = torch.tensor([tokens] * len(vectors))
        return lm.model(rows, use_cache=False).logits[:, -1]


def test_placeholders_are_found_in_text_and_in_messages(lm: LanguageModel) -> None:
    placed = place(lm, TEMPLATE)
    assert placed.positions == [2, 6]
    assert placed.tokens[0] == lm.bos_id
    chat = chat_language_model()
    asked = [Message(role="user", content="think {latent} then")]
    placed = place(chat, asked)
    unknown = chat.tokenizer.unk_token_id
    assert [placed.tokens[at] for at in placed.positions] == [unknown]
    assert placed.tokens.count(chat.bos_id) == 1
    with pytest.raises(SaeflowError, match=r"templates: .* has no \{latent\}"):
        place(lm, "the cat sat")


@pytest.mark.parametrize("kind", ["replace", "add"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_shared_prefix_says_what_a_whole_pass_says(
    lm: LanguageModel, kind: str, layer: int
) -> None:
    placed = place(lm, TEMPLATE)
    vectors = 3 * random_directions(4, lm.d_model, 1)
    states, _ = Prefix(lm, placed).states(vectors, layer, kind)
    ours = lm.model.lm_head(states[:, -1])
    torch.testing.assert_close(ours, by_hand(lm, vectors, layer, kind, placed.tokens))


def test_what_is_generated_is_not_edited(lm: LanguageModel) -> None:
    placed = place(lm, TEMPLATE)
    where = Place(1, "replace", 2.0, "blocks.2.hook_resid_post")
    vectors = injected(random_directions(3, lm.d_model, 2), 1.5, where)
    said = spoken(lm, placed, vectors, where, 1)
    first = by_hand(lm, vectors, 1, "replace", placed.tokens).argmax(-1)
    assert said == [lm.tokenizer.decode([int(token)], skip_special_tokens=True) for token in first]
    edited: list[torch.Size] = []
    with patched(lm, placed, vectors, 1, "replace"):
        lm.model(torch.tensor([placed.tokens] * 3))
        with attach(lm, [(resid_pre(1), lambda x: edited.append(x.shape))]):  # type: ignore[arg-type, return-value]
            plain = lm.model(torch.tensor([placed.tokens] * 3)).logits
    assert edited
    torch.testing.assert_close(plain[0], plain[2])


def test_read_outs_are_those_of_their_definitions(lm: LanguageModel) -> None:
    placed, probe = place(lm, TEMPLATE), "blocks.1.hook_resid_post"
    directions, random = random_directions(3, lm.d_model, 3), random_directions(4, lm.d_model, 4)
    norm = typical_norm(lm, torch.tensor([[0, 3, 4, 5, 6, 7]]), 1)
    where = Place(1, "replace", norm, probe)
    grid = look(lm, [placed], directions, random, [0.5, 2.0], where)
    every = torch.cat([random, directions])
    logits = by_hand(lm, every * 2.0 * norm, 1, "replace", placed.tokens).double()
    p = logits.softmax(-1)
    np.testing.assert_allclose(grid.entropy[0, 1], -(p * p.log()).sum(-1), rtol=1e-4)
    rest = p[:4].mean(0)
    np.testing.assert_allclose(
        grid.contrast[0, 1, 4:], (p[4:] * (p[4:] / rest).log()).sum(-1), rtol=1e-3
    )
    others = p[1:4].mean(0)
    np.testing.assert_allclose(
        grid.contrast[0, 1, 0], (p[0] * (p[0] / others).log()).sum(), rtol=1e-3
    )
    # rows have norms of their own: a direction compared with itself, row by row, is 1
    states = Prefix(lm, placed).states(every * 2.0 * norm, 1, "replace", [probe])[1][probe][:, -1]
    cosines = (normalize(states, dim=-1) * every).sum(-1)
    np.testing.assert_allclose(grid.self_similarity[0, 1], cosines, atol=1e-5)


def test_the_norm_is_the_median_of_tokens_and_no_opening_token_counts(lm: LanguageModel) -> None:
    tokens = torch.tensor([[0, 3, 4, 5], [0, 6, 7, 8]])
    seen: list[torch.Tensor] = []
    with attach(lm, [(resid_pre(2), seen.append)]):
        lm.model(tokens)
    assert typical_norm(lm, tokens, 2) == pytest.approx(float(seen[0][:, 1:].norm(dim=-1).median()))


def test_the_best_place_is_the_one_with_the_largest_score_itself() -> None:
    score = np.zeros((2, 4, 5))
    score[1, 2, 4] = 3.0  # template 1, scale 2, of the one latent behind four random directions
    score[0, 0, 4] = 2.0
    grid = Grid(score, score, score, score, 4)
    assert best_places(grid, 0, 2) == [(1, 2), (0, 0)]
    assert grid.p.tolist() == [1 / 5]
    score[1, 2, :4] = [0.5, 1.0, 1.5, 0.0]
    score[0, 3, 1] = 3.5  # a random direction stands out more, where nothing else does
    assert Grid(score, score, score, score, 4).p.tolist() == [2 / 5]


def noise(seed: int, random: int, latents: int) -> Grid:
    """Read-outs that mean nothing, skewed as divergences are."""
    generator = np.random.default_rng(seed)
    contrast, similarity = generator.exponential(1, (2, 3, 11, random + latents))
    score = (calibrated(contrast, random) + calibrated(similarity, random)) / 2
    return Grid(contrast, similarity, contrast, score, random)


def test_pure_noise_has_p_values_that_are_as_small_as_they_say_and_no_more_labels() -> None:
    p = np.stack([noise(seed, 24, 10).p for seed in range(100)])
    for level in (0.04, 0.2, 0.4):
        assert (p <= level + 1e-9).mean() == pytest.approx(level, abs=0.05)
    names = ["latent", "template", "scale", "score", "variety", "text"]
    rows = [(latent, 0, 1.0, 1.0, 1.0, "a thing") for latent in range(40)]
    texts = pl.DataFrame(rows, schema=names, orient="row")
    labelled = [
        len(self_labels(texts, range(40), noise(seed, 99, 40).p, 0.1)) for seed in range(40)
    ]
    assert sum(map(bool, labelled)) <= 10  # 4 in 40 are expected
    assert sum(labelled) < 40 * 40 * 0.05


def test_latents_that_stand_out_are_labelled_among_those_that_do_not() -> None:
    grid = noise(0, 99, 60)
    grid.contrast[1, 4, 99:119] += 20
    names = ["latent", "template", "scale", "score", "variety", "text"]
    rows = [(latent, 0, 1.0, 1.0, 1.0, "a thing") for latent in range(60)]
    texts = pl.DataFrame(rows, schema=names, orient="row")
    labels = self_labels(texts, range(60), grid.p, 0.1)
    assert set(range(20)) <= set(labels["latent"])
    assert len(labels) <= 25
    assert "q 0.0" in labels["provenance"][0]


def test_calibrated_read_outs_of_random_directions_have_mean_0_and_spread_1() -> None:
    values = np.random.default_rng(0).normal(5, 3, (2, 3, 50))
    scores = calibrated(values, 40)
    np.testing.assert_allclose(scores[..., :40].mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(scores[..., :40].std(-1, ddof=1), 1)


def test_a_label_is_what_most_scales_agree_on_and_chance_gets_none() -> None:
    rows = [
        (7, 0, 1.0, 5.0, 1.0, "the red planet"),
        (7, 0, 2.0, 4.0, 1.0, "a planet of the sun"),
        (7, 1, 4.0, 3.0, 1.0, "planet planet planet"),
        (9, 0, 1.0, 1.0, 1.0, "nothing"),
    ]
    names = ["latent", "template", "scale", "score", "variety", "text"]
    texts = pl.DataFrame(rows, schema=names, orient="row")
    labels = self_labels(texts, [7, 9], np.array([0.04, 0.5]), 0.1)
    assert labels["latent"].to_list() == [7]
    assert labels["text"][0] in {"the red planet", "a planet of the sun"}
    assert consensus(["a b", "c d", "c d e"], [1.0, 1.0, 1.0]) == 1
    circling = ["sea ship", "ship sea ship sea ship sea", "ship of the sea"]
    assert consensus(circling, [1.0, 0.4, 1.0]) == 0
    assert consensus(circling[1:2] + circling[:1], [0.4, 1.0]) == 1
    assert first_phrase('\n "ocean". It is big.\nMore') == "ocean"
    assert first_phrase(". A ship at sea. It sails") == "A ship at sea"


def test_decoder_rows_are_explained_from_beginning_to_end(lm: LanguageModel) -> None:
    decoder = 5 * random_directions(20, lm.d_model, 5)
    asked = SelfExplanation(
        templates=[TEMPLATE], layer=1, scales=[1.0, 4.0], random=9, chance=0.9, new_tokens=3, best=2
    )
    blocks = torch.tensor([[0, *range(3, 15)]] * 2)
    result = self_explanations(lm, decoder, [3, 8], blocks, asked, 0)
    assert result.texts["latent"].to_list() == [3, 3, 8, 8]
    assert len(result.read_outs) == 2 * (9 + 2)
    assert set(result.labels["latent"]) <= {3, 8}
    again = self_explanations(lm, decoder, [8, 3], blocks, asked, 0)
    merged = result.texts.sort("latent", "scale"), again.texts.sort("latent", "scale")
    assert merged[0]["text"].equals(merged[1]["text"])
    with pytest.raises(SaeflowError, match="layer: 7 does not exist; the model has layers 0 to 2"):
        self_explanations(lm, decoder, [3], blocks, asked.model_copy(update={"layer": 7}), 0)
