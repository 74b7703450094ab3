"""The commands of comparisons write all tables that an analysis of models asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from saeflow.analyses.diffing import OF_CROSSCODER, OF_MODEL
from saeflow.analyses.diffing.command import app
from saeflow.config.embedded import EMBEDDED
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tales import story_blocks
from saeflow.models.language_model import load_to_train
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.io import save_crosscoder

pytestmark = pytest.mark.usefixtures("one_thread")
HOOK = "blocks.1.hook_resid_post"
BASELINES = {
    "blocks": 4,
    "positions": 2,
    "tokens": 3,
    "components": 2,
    "steering": {"scales": [0.5], "prompts": 2, "new_tokens": 3},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a crosscoder and text."""
    root = tmp_path_factory.mktemp("compared")
    shutil.copytree(EMBEDDED, root / "base")
    shutil.copytree(EMBEDDED, root / "tuned", ignore=shutil.ignore_patterns("checksums*"))
    generator = torch.Generator().manual_seed(0)
    tuned = load_to_train(EMBEDDED)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight += 0.2 * weight.std() * torch.randn(weight.shape, generator=generator)
    tuned.model.save_pretrained(root / "tuned")
    sources = [{"model": name, "hook": HOOK} for name in ("base", "tuned")]
    crosscoder = Crosscoder(
        W_enc=torch.randn(2, 64, 12, generator=generator) / 8,
        W_dec=torch.randn(12, 2, 64, generator=generator) / 8,
        b_enc=torch.zeros(12),
        b_dec=torch.zeros(2, 64),
        scale=torch.ones(2),
        metadata={"sources": sources},
    )
    save_crosscoder(root / "sae", crosscoder)
    save_blocks(root / "eval.safetensors", story_blocks(0, "eval", 6, 24))
    return root


def run(study: Path, *words: str) -> str:
    models = [f"--model={study / name}" for name in ("base", "tuned")]
    given = [*models, f"--corpus={study / 'eval.safetensors'}", "--activations={}"]
    done = CliRunner().invoke(app, [words[0], *given, *words[1:]])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands_write_every_table(study: Path) -> None:
    classes = f"--classes={json.dumps({'groups': 3, 'draws': 100})}"
    out = study / "models"
    run(
        study,
        *("compare", f"--hook={HOOK}", f"--settings={json.dumps(BASELINES)}", classes),
        *("--seed=0", f"--output={out}"),
    )
    assert {file.name for file in out.iterdir()} == set(OF_MODEL)
    moved = pl.read_parquet(out / "weights.parquet")
    assert moved["relative"].drop_nulls().median() == pytest.approx(0.2, abs=0.1)
    of_sae, sae = study / "saes", [f"--sae={study / 'sae'}", "--base=base"]
    latents = of_sae / "latents.parquet"
    run(
        study,
        *("classify", *sae, classes.replace("--classes", "--settings"), "--seed=0"),
        *(f"--output={latents}", f"--counts={of_sae / 'classes.parquet'}"),
    )
    causal = {"blocks": 2, "numbers": [2], "singles": 1, "random": 1}
    run(
        study,
        *("cause", *sae, f"--latents={latents}", f"--settings={json.dumps(causal)}", classes),
        *("--seed=0", f"--output={of_sae / 'causal.parquet'}"),
    )
    run(
        study,
        *("contexts", *sae, f"--latents={latents}", "--settings={}", classes),
        *(f"--output={of_sae / 'contexts.parquet'}", f"--decoders={of_sae / 'decoders.parquet'}"),
        *(f"--scatter={of_sae / 'scatter.parquet'}", "--seed=0"),
    )
    assert {file.name for file in of_sae.iterdir()} == set(OF_CROSSCODER)
    assert pl.read_parquet(latents)["model"].unique().to_list() == ["tuned"]
    rows = pl.read_parquet(of_sae / "causal.parquet")
    assert rows.filter(kind="everything")["recovered"][0] == pytest.approx(1, abs=1e-4)


def test_a_base_that_the_crosscoder_does_not_read_is_told(study: Path) -> None:
    with pytest.raises(Exception, match="reads base, tuned and not 'other'"):
        run(
            study,
            *("classify", f"--sae={study / 'sae'}", "--base=other", "--settings={}", "--seed=0"),
            *(f"--output={study / 'a.parquet'}", f"--counts={study / 'b.parquet'}"),
        )
