"""SAEs are measured on the rows that a study would train them on, within a bounded memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from largest_tensor import LargestTensor
from tiny_models import save_tiny_model, tiny_language_model
from typer.testing import CliRunner

from saeflow.activations.capture import capture_rows
from saeflow.activations.exclusion import excluded_tokens
from saeflow.activations.sources import TextSource
from saeflow.activations.store import ActivationRows
from saeflow.cli.main import app
from saeflow.config.sections import Activations
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tokens import TokenBlocks, pack
from saeflow.errors import SaeflowError
from saeflow.models.exhaustion import halve_batch_on_oom
from saeflow.models.hooks import attach
from saeflow.models.language_model import LanguageModel, load_model
from saeflow.models.running import logits, token_losses
from saeflow.saes.comparison import Seen, evaluate_crosscoder
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.evaluation import evaluate_sae
from saeflow.saes.io import save_sae
from saeflow.saes.recovery import planted_recovery
from saeflow.saes.sae import SAE

HOOK, EARLY = "blocks.1.hook_resid_post", "blocks.0.hook_resid_post"
BOS = 0
SETTINGS = [
    Activations(),
    Activations(exclude="nothing"),
    Activations(exclude="special"),
    Activations(exclude="nothing", exclude_norm_above=1.3),
    Activations(exclude_norm_above=1.15),
]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A model in which BOS has the norm of an attention sink."""
    lm = tiny_language_model("llama")
    lm.model.get_input_embeddings().weight.data[BOS] *= 40
    return lm


@pytest.fixture(scope="module")
def blocks() -> TokenBlocks:
    """Documents that share blocks, so that BOS stands inside; some hold the token EOS."""
    generator = np.random.default_rng(0)
    documents = (generator.integers(1, 64, generator.integers(4, 12)).tolist() for _ in range(100))
    packed = pack(documents, 16, BOS, 11)
    assert (packed.tokens[:, 1:] == BOS).sum() > 10
    assert (packed.tokens == 1).any()
    return packed._replace(
        labels={"odd": (packed.tokens % 2).astype(np.uint8)}, label_names={"odd": ["no", "yes"]}
    )


def lossy_sae(width: int) -> SAE:
    """A latent for either sign of most dimensions."""
    part = torch.eye(width)[: width - 8]
    both = torch.cat([part, -part])
    return SAE(
        "standard", both.T.contiguous(), both, torch.zeros(len(both)), torch.full((width,), 0.1)
    )


def cached_rows(
    lm: LanguageModel, tokens: np.ndarray, hooks: Sequence[str], settings: Activations
) -> tuple[ActivationRows, torch.Tensor]:
    """The rows that a cache of all hooks would hold at the first, and where in the text they
    are."""
    passes = capture_rows(TextSource(lm, tokens), hooks, settings, excluded_tokens(lm, settings))
    parts = [rows[hooks[0]] for rows in passes]
    places = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("tokens", "positions", "blocks")
    ]
    rows = ActivationRows(torch.cat([part.activations for part in parts]), *places)
    where = torch.zeros(tokens.shape, dtype=torch.bool)
    where[rows.blocks, rows.positions] = True
    return rows, where


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_sae_is_measured_on_the_rows_of_the_cache_and_all_else_stays_as_it_is(
    lm, blocks, settings
):
    sae, tokens = lossy_sae(lm.d_model), torch.from_numpy(blocks.tokens).long()
    rows, where = cached_rows(lm, blocks.tokens, [HOOK, EARLY], settings)
    metrics = evaluate_sae(lm, sae, HOOK, blocks, batch=4, settings=settings, cached=[EARLY, HOOK])
    x = rows.activations
    latents = sae.encode(x)
    error = (x - sae.decode(latents)).double().square().sum()
    assert metrics["rows"] == len(x)
    assert metrics["predicted"] == tokens[:, 1:].numel()
    scatter = (x.double() - x.double().mean(0)).square().sum()
    assert metrics["explained_variance"] == pytest.approx(float(1 - error / scatter), abs=1e-6)
    assert metrics["mse"] == pytest.approx(float(error / x.numel()), rel=1e-6)
    assert metrics["l0"] == pytest.approx(float((latents > 0).sum(1).double().mean()))
    assert metrics["dead"] == int((latents.amax(0) <= 0).sum())
    mean = x.double().mean(0).float()
    replacements = {
        "loss_clean": lambda x: x,
        "loss_sae": sae.reconstruct,
        "loss_zero": torch.zeros_like,
        "loss_mean": lambda x: mean.expand_as(x),
    }
    for name, replaced in replacements.items():
        with attach(
            lm, [(HOOK, lambda x, replaced=replaced: torch.where(where[..., None], replaced(x), x))]
        ):
            expected = token_losses(logits(lm, tokens), tokens).double().mean()
        assert metrics[name] == pytest.approx(float(expected), abs=1e-5), name


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_planted_features_are_looked_for_on_the_rows_of_the_cache(lm, blocks, settings):
    rows, _ = cached_rows(lm, blocks.tokens, [HOOK, EARLY], settings)
    table = planted_recovery(lm, lossy_sae(lm.d_model), HOOK, blocks, 4, settings, [HOOK, EARLY])
    odd = rows.tokens % 2 == 1
    assert table["rows"].to_list() == [int((~odd).sum()), int(odd.sum())]
    x = rows.activations
    direction = x[odd].mean(0) - x[~odd].mean(0)
    assert table["cosine"][1] == pytest.approx(
        float(direction[:-8].abs().max() / direction.norm()), rel=1e-4
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_crosscoder_is_measured_on_the_rows_that_all_its_models_keep(lm, blocks, settings):
    other = tiny_language_model("qwen3")
    sae = lossy_sae(lm.d_model)
    twice = Crosscoder(
        torch.stack([sae.W_enc, torch.zeros_like(sae.W_enc)]),
        torch.stack([sae.W_dec, torch.zeros_like(sae.W_dec)], dim=1),
        sae.b_enc,
        torch.stack([sae.b_dec, torch.zeros_like(sae.b_dec)]),
        torch.ones(2),
    )
    sources = [Seen("sink", lm, HOOK), Seen("other", other, HOOK)]
    cached = {"sink": [HOOK, EARLY], "other": [HOOK, EARLY]}
    metrics, _ = evaluate_crosscoder(twice, sources, blocks, 4, settings, cached)
    kept = [cached_rows(model, blocks.tokens, [HOOK, EARLY], settings)[1] for model in (lm, other)]
    where = kept[0] & kept[1]
    assert metrics["rows"] == int(where.sum())
    if torch.equal(*kept):
        alone = evaluate_sae(lm, sae, HOOK, blocks, settings=settings, cached=cached["sink"])
        for name in ("explained_variance", "loss_sae", "loss_mean", "loss_zero", "kl"):
            assert metrics["sources"][0][name] == pytest.approx(alone[name], abs=1e-5), name


def test_the_command_leaves_out_what_the_settings_say(lm, blocks, tmp_path: Path):
    settings = Activations(exclude="special", exclude_norm_above=1.1)
    model = load_model(save_tiny_model(tmp_path / "model", "llama"))
    save_sae(tmp_path / "sae", lossy_sae(model.d_model))
    save_blocks(tmp_path / "eval.safetensors", blocks)
    line = [
        "sae",
        "evaluate",
        "--model",
        tmp_path / "model",
        "--sae",
        tmp_path / "sae",
        "--hook",
        HOOK,
    ]
    line += ["--corpus", tmp_path / "eval.safetensors", "--metrics", tmp_path / "m.json"]
    line += ["--recovery", tmp_path / "recovery.parquet", "--cached", EARLY]
    line += ["--settings", settings.model_dump_json(include={"exclude", "exclude_norm_above"})]
    assert CliRunner().invoke(app, list(map(str, line))).exit_code == 0
    rows, where = cached_rows(model, blocks.tokens, [HOOK, EARLY], settings)
    assert json.loads((tmp_path / "m.json").read_text())["rows"] == len(rows.tokens)
    assert cached_rows(model, blocks.tokens, [HOOK], settings)[1].sum() > where.sum(), (
        "norms at both hooks count"
    )


def test_text_of_which_nothing_is_kept_is_told(lm):
    blocks = TokenBlocks(np.full((2, 8), BOS, dtype=np.int32), {}, {})
    with pytest.raises(SaeflowError, match="leave no position to measure; exclude less"):
        evaluate_sae(lm, lossy_sae(lm.d_model), HOOK, blocks)


def test_a_measurement_holds_few_logits_and_few_latents_at_once():
    """All logits of this text would be 123 million numbers, and all latents 82 million."""
    lm = tiny_language_model("llama", vocab_size=60_000, max_position_embeddings=256)
    tokens = np.random.default_rng(0).integers(3, 60_000, (8, 256)).astype(np.int32)
    encoder = torch.randn(lm.d_model, 40_000, generator=torch.Generator().manual_seed(0))
    sae = SAE(
        "standard",
        encoder,
        encoder.T.contiguous() / 1e4,
        torch.full((40_000,), -9.0),
        torch.zeros(lm.d_model),
    )
    with LargestTensor() as largest:
        evaluate_sae(lm, sae, HOOK, TokenBlocks(tokens, {}, {}))
    assert largest.numbers <= 1 << 23


def test_where_memory_runs_out_half_as_many_are_taken():
    tried = []

    def work(size: int) -> int:
        tried.append(size)
        torch.empty(size << 52, dtype=torch.int8) if size > 5 else None
        return -size

    assert halve_batch_on_oom(32, work, 1, "") == (-4, 4)
    assert tried == [32, 16, 8, 4]
    with pytest.raises(SaeflowError, match="not even 8 fit"):
        halve_batch_on_oom(32, work, 8, "not even {size} fit")
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        halve_batch_on_oom(8, lambda _: torch.ones(2) @ torch.ones(3), 1, "")
