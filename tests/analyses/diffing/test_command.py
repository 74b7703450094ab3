"""The commands of comparisons write all tables that an analysis of models asks for."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from compared_folder import HOOK, write_compared
from typer.testing import CliRunner

from saeflow.analyses.diffing import OF_CROSSCODER, OF_MODEL
from saeflow.analyses.diffing.command import app

pytestmark = pytest.mark.usefixtures("one_thread")
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
    return write_compared(tmp_path_factory.mktemp("compared"))


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
