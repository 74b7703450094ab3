"""The model that comes with saeflow is what the default study would train."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
from checkout import ROOT
from safetensors.torch import load_file
from studies import changed

from saeflow.artifacts import read_object
from saeflow.cli import models
from saeflow.config import ModelTraining
from saeflow.config.embedded import EMBEDDED, is_embedded
from saeflow.corpora.tales import tokenizer
from saeflow.corpora.tales.stories import story_blocks
from saeflow.kinds import read_any_study
from saeflow.models.evaluation import block_losses
from saeflow.models.io import save_model
from saeflow.models.language_model import load_model
from saeflow.models.training import train_model

RECIPE = read_object(EMBEDDED / "recipe.json")


def study(**changes):
    return read_any_study(ROOT / "config.yaml", over=changed({}, changes))


def test_the_default_study_takes_it():
    assert is_embedded(study(), study().model)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.source": "compute"},
        {"seed": 1},
        {"corpus.context": 32},
        {"corpus.tokens.model": 100_000},
        {"model.train.d_model": 32},
        {"model.train.epochs": 2},
    ],
    ids=str,
)
def test_a_study_that_would_train_another_model_or_insists_trains(changes):
    assert not is_embedded(study(**changes), study(**changes).model)


def test_changes_that_no_training_reads_leave_it():
    other = {"study": "mine", "model.name": "mine", "model.dtype": "bfloat16", "calls": {}}
    other |= {"hook": "blocks.2.hook_resid_post", "corpus.tokens.sae": 65_536}
    assert is_embedded(study(**other), study(**other).model)


def test_it_is_put_into_a_study_whole(tmp_path):
    folder = tmp_path / "models/tales-lm"
    models.provide(folder, tmp_path / "models/tales-lm.checksums.json")
    copied = {file.name for file in folder.iterdir()}
    assert copied == {file.name for file in EMBEDDED.iterdir()} | {"checksums.json"}
    lm, blocks = load_model(folder), story_blocks(0, "eval", 256, RECIPE["corpus"]["context"])
    assert lm.n_layers == RECIPE["train"]["n_layers"]
    assert lm.tokenizer.get_vocab() == tokenizer().get_vocab()
    assert 0.05 < float(block_losses(lm, blocks.tokens).mean()) - 2.083 < 0.11


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training_it_again_gives_the_same_bytes(tmp_path):
    """On a processor of the kind that it was trained on; on another, the same loss."""
    corpus, threads = RECIPE["corpus"], torch.get_num_threads()
    blocks = story_blocks(
        corpus["seed"], "model", corpus["tokens"] // corpus["context"], corpus["context"]
    )
    torch.set_num_threads(RECIPE["threads"])
    try:
        trained = train_model(ModelTraining(**RECIPE["train"]), blocks, tokenizer(), corpus["seed"])
    finally:
        torch.set_num_threads(threads)
    save_model(tmp_path / "again", trained, {})
    curve, again = (
        pl.read_parquet(folder / "training.parquet") for folder in (EMBEDDED, tmp_path / "again")
    )
    if processor() != RECIPE["processor"]:
        torch.testing.assert_close(
            torch.from_numpy(again["loss"].to_numpy()),
            torch.from_numpy(curve["loss"].to_numpy()),
            atol=0.05,
            rtol=0,
        )
        return
    assert again.equals(curve)
    weights, own = (
        load_file(folder / "model.safetensors") for folder in (EMBEDDED, tmp_path / "again")
    )
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[name], own[name]) for name in weights)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (EMBEDDED / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def processor():
    """Maker and widest instructions: what rounding depends on."""
    information = Path("/proc/cpuinfo")
    makers = [
        line.partition(":")[2].strip()
        for line in (information.read_text().splitlines() if information.is_file() else [])
        if line.startswith("vendor_id")
    ]
    return {"maker": makers[0] if makers else "", "widest": torch.backends.cpu.get_cpu_capability()}
