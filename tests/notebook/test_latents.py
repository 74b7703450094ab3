"""The logit lens and the examples of latents, against plain products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from notebook_files import HOOK

import saeflow as sf
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError

pytestmark = pytest.mark.usefixtures("one_thread", "here")


def test_the_lens_lists_the_extreme_tokens_of_a_plain_product() -> None:
    lm, sae = sf.load_model("models/tiny", device="cpu"), sf.load_sae("saes/tiny")
    vocab = sorted(lm.tokenizer.get_vocab().values())
    rows = lm.model.get_output_embeddings().weight[vocab] * lm.model.model.norm.weight
    weights = sae.W_dec[[9, 4]] @ (rows - rows.mean(0)).T
    lens = sf.logit_lens(lm, sae, [9, 4], tokens=3)
    for number, latent in enumerate((9, 4)):
        for side, largest in (("top", True), ("bottom", False)):
            own = lens.filter(latent=latent, side=side)
            values, places = weights[number].topk(3, largest=largest)
            assert own["rank"].to_list() == [0, 1, 2]
            assert own["token_id"].to_list() == [vocab[place] for place in places]
            np.testing.assert_allclose(own["weight"], values, rtol=1e-4)
            assert own["token"].to_list() == lm.tokenizer.convert_ids_to_tokens(
                own["token_id"].to_list()
            )


def test_a_direction_a_vector_and_a_latent_look_alike() -> None:
    lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
    of_latent = sf.logit_lens(lm, sae, 5).drop("latent")
    assert sf.logit_lens(lm, sae.W_dec[5]).drop("latent").equals(of_latent)
    assert sf.logit_lens(lm, sae.W_dec, 5).drop("latent").equals(of_latent)
    by_numpy = np.array([5])[0]  # such as an argmax gives
    assert sf.logit_lens(lm, sae, by_numpy).drop("latent").equals(of_latent)
    vector = sf.steering_vector(lm, HOOK, "sae", sae=sae, latents=by_numpy)
    shown = sf.logit_lens(lm, vector)
    assert shown["token_id"].to_list() == of_latent["token_id"].to_list()


def test_examples_are_the_largest_activation_of_each_block() -> None:
    lm, sae = sf.load_model("models/tiny", device="cpu"), sf.load_sae("saes/tiny")
    tokens = np.random.default_rng(2).integers(3, 19, (12, 10)).astype(np.int32)
    tokens[:, 0] = 0
    examples = sf.top_examples(
        lm, sae, TokenBlocks(tokens, {}, {}), [3, 8], top=4, before=2, after=1
    )
    rows = sf.capture(lm, TokenBlocks(tokens, {}, {}), HOOK)[HOOK].activations
    z = sae.encode(rows).view(12, 10, -1)[:, 1:]
    assert examples["latent"].unique().sort().to_list() == [3, 8]
    for latent in (3, 8):
        largest, places = z[..., latent].max(dim=1)
        order = [block for block in largest.argsort(descending=True).tolist() if largest[block] > 0]
        own = examples.filter(latent=latent)
        assert own["block"].to_list() == order[:4]
        assert own["position"].to_list() == [int(places[block]) + 1 for block in order[:4]]
        np.testing.assert_allclose(own["activation"], largest[order[:4]], rtol=1e-5)
        for row in own.iter_rows(named=True):
            first = row["position"] - row["offset"]
            window = tokens[row["block"]][first : row["position"] + 2].tolist()
            assert row["token_ids"] == window
            assert row["text"] == lm.tokenizer.decode(window)
            fired = int(tokens[row["block"], row["position"]])
            assert row["token"] == lm.tokenizer.convert_ids_to_tokens([fired])[0]


def test_a_latent_that_is_not_there_is_refused() -> None:
    lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
    with pytest.raises(SaeflowError, match=r"latents: 64 does not exist; there are 64 \(0\.\.63\)"):
        sf.logit_lens(lm, sae, 64)
    with pytest.raises(SaeflowError, match=r"latents: -1 does not exist"):
        sf.top_examples(lm, sae, "the cat", -1)
    with pytest.raises(SaeflowError, match=r"the directions are 7 wide and the model 32"):
        sf.logit_lens(lm, torch.ones(7))
    with pytest.raises(SaeflowError, match=r"logit_lens: unembedding"):
        sf.logit_lens(lm, sae, 1, steps=["whitened"])
