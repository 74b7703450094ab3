"""An adapter is a scale and a bias, found again where they were planted."""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from scipy.optimize import minimize
from tiny_models import D_VOCAB, WORDS, tiny_language_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saeflow.analyses.labels.adapter import (
    EMBEDDING,
    LATENT,
    Adapter,
    Pairs,
    Reading,
    adapted_explanations,
    embedding_pairs,
    fit,
    held_out_table,
    latent_pairs,
    said,
    split,
)
from saeflow.analyses.labels.patching import place
from saeflow.analyses.labels.self_explanation import Place, injected, random_directions
from saeflow.analyses.labels.settings import ScaleBiasAdapter, SelfExplanation
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import unembed

TEMPLATE = "w3 w9 {latent}"
DIRECTIONS, DRAWS = 40, 40
BIAS = partial(random_directions, 1, seed=7)
WHERE = Place(1, "replace", 2.0, "blocks.1.hook_resid_post")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A model of layers that add nothing and norms that change nothing, with a word for every
    token: what it says at a position are products with what was put in there."""
    lm = tiny_language_model("llama", rms_norm_eps=1e8)
    names = ["<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(3, D_VOCAB))]
    words = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", unk_token="<unk>")
    with torch.no_grad():
        for block in lm.blocks:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        lm.model.model.norm.weight.fill_(1e4)
        lm.model.lm_head.weight.copy_(3 * random_directions(D_VOCAB, lm.d_model, 1))
        lm.model.lm_head.weight[:3] = -10 * BIAS(lm.d_model)  # tokens that are no words
    return LanguageModel(lm.model, fast, lm.family)


@pytest.fixture(scope="module")
def reading(lm: LanguageModel) -> Reading:
    return Reading.of(lm, place(lm, TEMPLATE))


@pytest.fixture(scope="module")
def planted(lm: LanguageModel) -> Adapter:
    return Adapter(1.3, 0.8 * BIAS(lm.d_model)[0])


@pytest.fixture(scope="module")
def pairs(lm: LanguageModel, reading: Reading, planted: Adapter) -> Pairs:
    """Words that the model says of directions at the planted scale and bias, drawn as it says
    them."""
    directions = random_directions(DIRECTIONS, lm.d_model, 3)
    vectors = injected(directions, planted.scale, planted.of(WHERE))
    with torch.no_grad():
        states, _ = reading.prefix.states(vectors, WHERE.layer, WHERE.kind)
        chances = unembed(lm, states[:, -1]).float().softmax(-1)
    generator = torch.Generator().manual_seed(0)
    drawn = chances.multinomial(DRAWS, replacement=True, generator=generator)
    words = [f"w{token}" for own in drawn.tolist() for token in own]
    kinds = [EMBEDDING, LATENT] * (len(words) // 2)
    return Pairs(directions.repeat_interleave(DRAWS, 0), words, kinds)


def test_the_model_says_products_with_what_is_put_in(lm: LanguageModel, reading: Reading) -> None:
    vectors = random_directions(3, lm.d_model, 4)
    products = said(lm, reading, vectors, [[5], [9, 6], [11]], WHERE)
    logs = (vectors @ lm.model.lm_head.weight.T).log_softmax(-1)
    assert products.losses[0].item() == pytest.approx(-logs[0, 5].item(), abs=1e-4)
    assert products.right[2].item() == float(logs[2].argmax() == 11)
    # the second token of a word follows the first, with nothing put in
    again = lm.model(torch.tensor([[*reading.prefix.placed.tokens, 9]])).logits[0, -1]
    both = -logs[1, 9] - again.log_softmax(-1)[6]
    assert products.losses[1].item() == pytest.approx(both.item() / 2, abs=1e-4)


@pytest.fixture(scope="module")
def made(lm: LanguageModel, reading: Reading, pairs: Pairs) -> Adapter:
    asked = ScaleBiasAdapter(steps=200, batch=400, learning_rate=0.1)
    return fit(lm, [reading], pairs, WHERE, asked, 0)


def test_a_planted_scale_and_bias_are_found_again(made: Adapter, planted: Adapter) -> None:
    assert made.scale == pytest.approx(planted.scale, rel=0.05)
    cosine = torch.cosine_similarity(made.bias, planted.bias, dim=0)
    assert cosine > 0.93
    assert made.bias.norm().item() == pytest.approx(planted.bias.norm().item(), rel=0.1)


def test_the_fit_is_the_likeliest_scale_and_bias_of_scipy(
    lm: LanguageModel, pairs: Pairs, made: Adapter
) -> None:
    head, directions = (
        each.double().numpy() for each in (lm.model.lm_head.weight, pairs.directions)
    )
    words = np.array([int(word[1:]) for word in pairs.words])
    rows = np.arange(len(words))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean loss of softmax regression and its slope by scale and bias."""
        logits = WHERE.norm * (values[0] * directions + values[1:]) @ head.T
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        slopes = np.exp(logs)
        slopes[rows, words] -= 1
        by_vector = WHERE.norm * slopes @ head / len(words)
        slope = np.array([(by_vector * directions).sum(), *by_vector.sum(0)])
        return -float(logs[rows, words].mean()), slope

    likeliest = minimize(loss, np.zeros(1 + lm.d_model), jac=True, method="BFGS")
    ours = loss(np.array([made.scale, *made.bias.tolist()]))[0]
    assert ours == pytest.approx(likeliest.fun, abs=0.002)
    assert made.scale == pytest.approx(likeliest.x[0], rel=0.02)
    np.testing.assert_allclose(made.bias, likeliest.x[1:], atol=0.06)


def test_held_out_words_are_said_better_through_the_adapter_than_beside_it(
    lm: LanguageModel, reading: Reading, pairs: Pairs
) -> None:
    asked = ScaleBiasAdapter(steps=60, batch=200, learning_rate=0.1, held_out=0.4, bootstrap=200)
    fitted, held = split(pairs, asked.held_out, 0)
    assert not set(fitted.words) & set(held.words)
    assert len(fitted.words) + len(held.words) == len(pairs.words)
    adapter = fit(lm, [reading], fitted, WHERE, asked, 0)
    scales = [0.25, 1.0, 4.0]
    table = held_out_table(lm, [reading], adapter, fitted, held, scales, WHERE, asked, 0)
    assert set(table["pairs"]) == {EMBEDDING, LATENT}
    losses = dict(table.filter(pairs=LATENT).select("way", "loss").iter_rows())
    assert losses["adapter"] < losses["bias"] < losses["shuffled"]
    assert losses["adapter"] < losses["plain"]
    row = table.row(0, named=True)
    assert row["n"] + table.row(1, named=True)["n"] == len(held.words)
    assert row["loss_low"] < row["loss"] < row["loss_high"]


def test_pairs_of_the_embedding_are_words_and_their_centred_rows(lm: LanguageModel) -> None:
    own = embedding_pairs(tiny_language_model("llama"), 100, 0)
    assert set(own.words) == {"the", "cat", "dog", "sat", "ran", "under", "mat", "tree", "and",
                              "then", "think"}  # fmt: skip
    table = tiny_language_model("llama").model.get_input_embeddings().weight
    row = table[3 + WORDS.index("cat")] - table.mean(0)
    torch.testing.assert_close(own.directions[own.words.index("cat")], row / row.norm())


def test_pairs_of_latents_are_decoder_rows_with_the_word_they_promote() -> None:
    decoder = 3 * random_directions(6, 8, 2)
    rows = [(1, " ship"), (3, "!!"), (4, " of"), (5, " Sea"), (0, "iring")]
    promoted = pl.DataFrame(rows, schema=["latent", "token"], orient="row")
    own = latent_pairs(decoder, promoted, 10, 0)
    assert own.words == ["ship", "Sea"]
    torch.testing.assert_close(own.directions, decoder[torch.tensor([1, 5])] / 3)


def test_latents_are_explained_through_an_adapter_from_beginning_to_end() -> None:
    lm = tiny_language_model("llama")
    asked = SelfExplanation(
        templates=["the {latent} sat on the", "a {latent} and a"],
        layer=1, scales=[1.0, 4.0], random=9, chance=0.95, new_tokens=3,
    )  # fmt: skip
    adapter = ScaleBiasAdapter(words=20, steps=4, batch=4, held_out=0.4, bootstrap=100)
    decoder = 5 * random_directions(20, lm.d_model, 5)
    blocks = torch.tensor([[0, *range(3, 15)]] * 2)
    promoted = pl.DataFrame({"latent": range(20), "token": ["cat", "dog", "tree", "mat"] * 5})
    explained = partial(adapted_explanations, lm, decoder, [3, 8], blocks)
    result = explained(promoted, asked, adapter, 0)
    assert set(result.explanations.labels["source"]) <= {"adapted"}
    assert result.explanations.texts["latent"].to_list() == [3, 8]
    assert set(result.held_out["way"]) == {"adapter", "bias", "shuffled", "plain"}
    again = explained(promoted, asked, adapter, 0)
    assert again.adapter.scale == result.adapter.scale
    assert again.explanations.texts.equals(result.explanations.texts)
    few = adapter.model_copy(update={"words": 4})
    with pytest.raises(SaeflowError, match=r"labels.adapter: \d words are left to fit on"):
        explained(None, asked, few, 0)
