"""SAEs that read or write elsewhere, and crosscoders, held against the model's own activations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_language_model, tiny_tokenizer, tiny_tokens

from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach, editing
from saeflow.models.language_model import LanguageModel, check_same_tokens
from saeflow.models.running import capture
from saeflow.saes.comparison import Seen, evaluate_crosscoder
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.evaluation import evaluate_sae
from saeflow.saes.placing import placed, sources_of, with_sources
from saeflow.saes.recovery import planted_recovery
from saeflow.saes.sae import SAE

HOOKS = ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_language_model("llama")


@pytest.fixture(scope="module")
def blocks() -> TokenBlocks:
    return TokenBlocks(tiny_tokens(rows=9, length=12).numpy().astype(np.int32), {}, {})


def exact(width: int) -> SAE:
    """A latent for either sign of every dimension."""
    eye = torch.eye(width)
    both = torch.cat([eye, -eye], dim=1)
    return SAE("standard", both, both.T.contiguous(), torch.zeros(2 * width), torch.zeros(width))


def exact_crosscoder(width: int) -> Crosscoder:
    """A latent for either sign of every dimension of each of two sources, and one that never
    fires."""
    coder, n = exact(width), 2 * width
    encoder, decoder = torch.zeros(2, width, 2 * n + 1), torch.zeros(2 * n + 1, 2, width)
    for source in (0, 1):
        part = slice(source * n, (source + 1) * n)
        encoder[source, :, part] = coder.W_enc
        decoder[part, source] = coder.W_dec
    decoder[-1] = 1.0
    b_enc = torch.zeros(2 * n + 1)
    b_enc[-1] = -1.0
    return Crosscoder(encoder, decoder, b_enc, torch.zeros(2, width), torch.ones(2))


def layers(lm: LanguageModel) -> list[Seen]:
    return [Seen("tiny", lm, hook) for hook in HOOKS]


def test_an_exact_crosscoder_loses_nothing_and_its_latents_are_each_of_one_source(lm, blocks):
    metrics, table = evaluate_crosscoder(exact_crosscoder(lm.d_model), layers(lm), blocks, batch=4)
    assert metrics["explained_variance"] == pytest.approx(1)
    assert metrics["dead"] == 1
    assert metrics["rows"] == metrics["predicted"] == metrics["tokens"] - metrics["blocks"]
    for source in metrics["sources"]:
        assert source["loss_sae"] == pytest.approx(source["loss_clean"], abs=1e-5)
        assert source["recovered"] == pytest.approx(1, abs=1e-3)
    alive = table.filter(table["density"] > 0)
    assert set(alive.filter(alive["owner"])["relative_norm"]) == {1.0}
    assert set(alive.filter(~alive["owner"])["relative_norm"]) == {0.0}
    assert alive.filter(alive["owner"])["nu_error"].to_list() == pytest.approx(
        [1.0] * (len(alive) // 2)
    )
    silent = table.filter(table["density"] == 0)
    assert silent["nu_error"].null_count() == len(silent) == 2


def test_a_crosscoder_that_knows_the_means_alone_explains_nothing_of_any_source(lm, blocks):
    read = capture(lm, torch.from_numpy(blocks.tokens).long(), HOOKS)
    means = torch.stack([read[hook][:, 1:].double().mean((0, 1)).float() for hook in HOOKS])
    base = exact_crosscoder(lm.d_model)
    silent = replace(base, W_enc=torch.zeros_like(base.W_enc), b_enc=base.b_enc - 1, b_dec=means)
    metrics, table = evaluate_crosscoder(silent, layers(lm), blocks, batch=4)
    assert metrics["explained_variance"] == pytest.approx(0, abs=1e-9)
    assert (metrics["l0"], metrics["dead"]) == (0, silent.d_sae)
    for source in metrics["sources"]:
        assert source["loss_sae"] == pytest.approx(source["loss_mean"], abs=1e-6)
    assert table["density"].max() == 0


def test_two_models_are_each_replaced_by_their_own_reconstruction(lm, blocks):
    other = tiny_language_model("qwen3")
    sources = [Seen("tiny", lm, HOOKS[0]), Seen("other", other, HOOKS[0])]
    metrics, table = evaluate_crosscoder(exact_crosscoder(lm.d_model), sources, blocks, batch=4)
    alone = [evaluate_sae(model, exact(lm.d_model), HOOKS[0], blocks) for model in (lm, other)]
    for source, own in zip(metrics["sources"], alone, strict=True):
        for name in ("loss_clean", "loss_zero", "loss_mean", "loss_sae"):
            assert source[name] == pytest.approx(own[name], abs=1e-5), name
    assert alone[0]["loss_clean"] != alone[1]["loss_clean"]
    assert table["model"].unique().sort().to_list() == ["other", "tiny"]


def test_sources_that_do_not_fit_are_told(lm, blocks):
    crosscoder = exact_crosscoder(lm.d_model)
    with pytest.raises(SaeflowError, match="reads 2 sources, and 1 are given"):
        evaluate_crosscoder(crosscoder, layers(lm)[:1], blocks)
    with pytest.raises(SaeflowError, match=r"hook 'blocks.7.hook_mlp_out' does not exist"):
        evaluate_crosscoder(
            crosscoder, [layers(lm)[0], Seen("tiny", lm, "blocks.7.hook_mlp_out")], blocks
        )
    with pytest.raises(SaeflowError, match="does not name its sources"):
        sources_of(crosscoder, {"tiny"})
    named = with_sources(crosscoder, [f"tiny:{HOOKS[0]}", f"other:{HOOKS[1]}"])
    assert sources_of(named, {"tiny", "other"}) == [("tiny", HOOKS[0]), ("other", HOOKS[1])]
    with pytest.raises(SaeflowError, match="reads the model 'other', and only tiny are given"):
        sources_of(named, {"tiny"})
    with pytest.raises(SaeflowError, match="has 2 sources, and 1 are named"):
        with_sources(crosscoder, ["tiny:a"])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_an_edit_in_the_middle_of_a_layer_reaches_both_copies(family):
    lm, tokens = tiny_language_model(family), tiny_tokens()
    middle, mlp, after = (
        f"blocks.1.{site}" for site in ("hook_resid_mid", "hook_mlp_out", "hook_resid_post")
    )
    plain = capture(lm, tokens, [middle])[middle]
    seen: list[torch.Tensor] = []

    def edit(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return 0.5 * x + 1.0

    with attach(lm, editing(middle, edit)):
        read = capture(lm, tokens, [middle, mlp, after])
    torch.testing.assert_close(seen[0], plain)
    torch.testing.assert_close(read[middle], 0.5 * plain + 1.0)
    torch.testing.assert_close(read[after], read[middle] + read[mlp])


def test_an_sae_in_the_middle_of_a_layer_is_measured(lm, blocks):
    metrics_there = evaluate_sae(lm, exact(lm.d_model), "blocks.1.hook_resid_mid", blocks, batch=4)
    assert metrics_there["explained_variance"] == pytest.approx(1)
    assert metrics_there["loss_sae"] == pytest.approx(metrics_there["loss_clean"], abs=1e-5)
    assert metrics_there["loss_zero"] != pytest.approx(metrics_there["loss_clean"], abs=1e-4)


def transcoder(lm: LanguageModel, written: str | None) -> SAE:
    base = exact(lm.d_model)
    skip = torch.zeros(lm.d_model, lm.d_model)
    return replace(base, W_skip=skip, metadata={"hook_name_out": written} if written else {})


def test_a_transcoder_that_does_not_fit_the_model_is_told(lm, blocks):
    with pytest.raises(
        SaeflowError, match=r"reads blocks.1.hook_mlp_out, which the model computes after blocks.0"
    ):
        evaluate_sae(lm, transcoder(lm, HOOKS[0]), "blocks.1.hook_mlp_out", blocks)
    with pytest.raises(SaeflowError, match="does not say where it writes"):
        evaluate_sae(lm, transcoder(lm, None), HOOKS[0], blocks)


def test_a_transcoders_directions_are_those_of_what_it_writes(lm, blocks):
    written = "blocks.1.hook_mlp_out"
    labels = (blocks.tokens % 2).astype(np.uint8)
    named = TokenBlocks(blocks.tokens, {"parity": labels}, {"parity": ["even", "odd"]})
    coder = transcoder(lm, written)
    table = planted_recovery(lm, coder, HOOKS[0], named, batch=4)
    read = capture(lm, torch.from_numpy(blocks.tokens).long(), [HOOKS[0], written])
    odd = torch.from_numpy(labels[:, 1:]).bool()
    direction = read[written][:, 1:][odd].mean(0) - read[written][:, 1:][~odd].mean(0)
    cosines = coder.W_dec @ direction / direction.norm()
    assert table["cosine"][1] == pytest.approx(float(cosines.max()), rel=1e-4)
    firing = coder.encode(read[HOOKS[0]][:, 1:])[..., table["latent_f1"][1]] > 0
    assert table["recall"][1] == pytest.approx(float(firing[odd].float().mean()))


@pytest.mark.parametrize(
    ("said", "hook", "target", "reason"),
    [
        ({"hook_name": HOOKS[1]}, HOOKS[0], None, f"reads {HOOKS[1]}, not {HOOKS[0]}"),
        (
            {"hook_name": "blocks.0.ln2.hook_normalized"},
            HOOKS[0],
            None,
            r"correct its hook \(saes.<name>.hook\)",
        ),
        (
            {"hook_name_out": HOOKS[1]},
            HOOKS[0],
            None,
            f"is a transcoder; set its target to {HOOKS[1]}",
        ),
        (
            {"hook_name_out": HOOKS[1]},
            HOOKS[0],
            "blocks.1.hook_mlp_out",
            f"writes {HOOKS[1]}, not blocks.1",
        ),
    ],
)
def test_an_sae_from_elsewhere_is_refused_at_another_hook(
    said: dict[str, Any], hook, target, reason
):
    with pytest.raises(SaeflowError, match=reason):
        placed(replace(exact(4), metadata=said), hook, target)


def test_an_sae_from_elsewhere_is_placed_where_it_says_or_where_it_is_told():
    for said in (
        "",
        "layers.0",
        HOOKS[0],
        "blocks.1.hook_resid_pre",
    ):  # what enters a layer left the one before
        sae = replace(exact(4), metadata={"hook_name": said})
        assert placed(sae, HOOKS[0]).metadata["hook_name"] == HOOKS[0]
    placement = placed(exact(4), HOOKS[0], HOOKS[1])
    assert placement.is_transcoder
    assert placement.written_hook(HOOKS[0]) == HOOKS[1]


def test_a_model_with_other_tokens_is_not_compared():
    first, other = tiny_tokenizer(), tiny_tokenizer()
    other.add_tokens(["<more>"])
    check_same_tokens(other, first, "a and b")
    with pytest.raises(SaeflowError, match="a and b have different tokenizers"):
        check_same_tokens(first, other, "a and b")
