"""SAEs at a prompt are those of a study: read, trained, measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from notebook_files import HOOK, tiny_sae
from tiny_models import D_VOCAB
from typer.testing import CliRunner

import saeflow as sf
from saeflow.cli.main import app
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.notebook.texts import in_blocks
from saeflow.saes.evaluation import evaluate_sae
from saeflow.saes.io import export_sae, load_sae, save_sae
from saeflow.saes.sae import SAE
from saeflow.tables import read_table

pytestmark = pytest.mark.usefixtures("one_thread", "here")

MLP = "blocks.1.hook_mlp_out"
SETTINGS = {"d_sae": 48, "k": 4, "batch_size": 64, "tokens": 1280, "learning_rate": 1e-2}


def blocks(count: int = 24, context: int = 16) -> TokenBlocks:
    tokens = np.random.default_rng(1).integers(3, D_VOCAB, (count, context)).astype(np.int32)
    tokens[:, 0] = 0
    return TokenBlocks(tokens, {}, {})


def same(first: SAE, other: SAE) -> bool:
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    return all(torch.equal(getattr(first, name), getattr(other, name)) for name in names)


def command(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("target", [None, MLP])
def test_an_sae_trained_at_a_prompt_is_that_of_a_study(
    target: str | None, here: Path, tmp_path: Path
) -> None:
    """The workflow's own commands, from the corpus on, give the same bits."""
    save_blocks(tmp_path / "sae.safetensors", blocks())
    hooks = [HOOK, target] if target else [HOOK]
    shards = [tmp_path / hook / "shard-00000.parquet" for hook in hooks]
    command(
        *("activations", "cache", *shards, "--model", here / "models/tiny", "--shard", 0),
        *("--corpus", tmp_path / "sae.safetensors", "--settings", "{}"),
        *(word for hook in hooks for word in ("--hook", hook)),
    )
    manifests = [shard.with_name("manifest.json") for shard in shards]
    for shard, manifest in zip(shards, manifests, strict=True):
        command("activations", "gather", shard, "--output", manifest)
    command(
        *("sae", "train", "--manifest", manifests[0], "--seed", 7, "--name", "main"),
        *("--settings", json.dumps({"main": SETTINGS}), "--output", tmp_path / "saes"),
        *("--checkpoint", tmp_path / "state.pt"),
        *(("--target", manifests[1]) if target else ()),
    )
    lm = sf.load_model("models/tiny", device="cpu")
    trained = sf.train_sae(lm, blocks(), HOOK, SETTINGS, target=target, seed=7)
    study = load_sae(tmp_path / "saes" / "main")
    assert same(trained.sae, study)
    assert trained.sae.metadata.items() <= study.metadata.items()
    assert trained.curve.equals(read_table(tmp_path / "saes" / "main" / "training.parquet"))


def test_metrics_of_an_sae_are_those_of_the_room() -> None:
    lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
    assert sf.evaluate_sae(lm, sae, blocks()) == evaluate_sae(lm, sae, HOOK, blocks())


def test_texts_are_packed_one_after_another_with_bos_between() -> None:
    lm = sf.load_model("models/tiny")
    the, cat, dog = (lm.tokenize(word, bos=False)[0] for word in ("the", "cat", "dog"))
    packed = in_blocks(lm, ["the cat", "dog the cat dog"], context=4).tokens
    assert packed.tolist() == [[0, the, cat, 0], [0, dog, the, cat]]
    short = in_blocks(lm, "the cat", context=128).tokens
    assert short.tolist() == [[0, the, cat]]
    with pytest.raises(SaeflowError, match="texts: hold no token"):
        in_blocks(lm, [], context=4)


def test_an_sae_in_another_format_is_read_as_it_was(tmp_path: Path) -> None:
    export_sae(tmp_path / "sparsify", tiny_sae(), "sparsify")
    read = sf.load_sae(tmp_path / "sparsify", hook=HOOK)
    x = torch.randn(5, read.d_model)
    torch.testing.assert_close(read.encode(x), tiny_sae().encode(x))
    assert read.metadata["hook_name"] == HOOK


def test_wrong_settings_and_places_are_told_in_a_sentence(tmp_path: Path) -> None:
    lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
    with pytest.raises(SaeflowError, match=r"train_sae: k: 64 must be smaller than d_sae 48"):
        sf.train_sae(lm, "the cat", HOOK, {"d_sae": 48, "k": 64})
    with pytest.raises(SaeflowError, match=r"train_sae: d_latents: "):
        sf.train_sae(lm, "the cat", HOOK, {"d_latents": 48})
    with pytest.raises(SaeflowError, match=r"blocks\.2\.hook_resid_post"):
        sf.load_sae("saes/tiny", hook="blocks.2.hook_resid_post")
    with pytest.raises(SaeflowError, match=r"load_sae|no such|no SAE|absent"):
        sf.load_sae(tmp_path / "nothing")
    nowhere = SAE(sae.architecture, sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec, k=4)
    save_sae(tmp_path / "nowhere", nowhere)
    with pytest.raises(SaeflowError, match="sae: does not say where it reads; give its hook"):
        sf.evaluate_sae(lm, sf.load_sae(tmp_path / "nowhere"), "the cat")


def test_a_curve_is_a_table_over_tokens() -> None:
    lm = sf.load_model("models/tiny")
    curve = sf.train_sae(lm, blocks(), HOOK, SETTINGS).curve
    assert isinstance(curve, pl.DataFrame)
    assert curve["error"][-1] < curve["error"][0]
