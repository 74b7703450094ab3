"""The commands of comparisons write all tables that an analysis of models asks for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from compared_folder import HOOK, write_compared
from typer.testing import CliRunner

from saeflow.analyses.diffing import OF_CROSSCODER, OF_MODEL
from saeflow.analyses.diffing.classes import LATENTS
from saeflow.analyses.diffing.command import app
from saeflow.models.language_model import load_to_train
from saeflow.saes.io import load_of_models, save_crosscoder
from saeflow.tables import write_table

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


def test_prompts_are_said_as_the_base_says_them_wherever_it_stands_in_the_crosscoder(
    study: Path,
) -> None:
    """The base alone has a chat template, and is the second source."""
    shutil.copytree(study / "tuned", study / "spoken")
    tokenizer = load_to_train(study / "spoken").tokenizer
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }} and"
    tokenizer.save_pretrained(study / "spoken")
    crosscoder = load_of_models(study / "sae")
    sources = [{"model": name, "hook": HOOK} for name in ("base", "spoken")]
    save_crosscoder(study / "turned", replace(crosscoder, metadata={"sources": sources}))
    latents = pl.DataFrame(
        [{"model": "base", "latent": 0, "class": "shared", "contribution": 1.0}], schema=LATENTS
    )
    write_table(study / "turned.parquet", latents, LATENTS)
    examples = [{"text": f"{word} ran", "label": label} for label in "ab" for word in (label, "it")]
    examples[3]["text"] = "we ran"
    asked = {"blocks": 2, "numbers": [1], "singles": 0, "random": 1}
    asked["prompts"] = {"examples": examples, "each": 2}
    run(
        study,
        *("cause", f"--model={study / 'spoken'}", f"--sae={study / 'turned'}", "--base=spoken"),
        *(f"--latents={study / 'turned.parquet'}", f"--settings={json.dumps(asked)}"),
        *(f"--classes={json.dumps({'draws': 100})}", "--seed=0"),
        f"--output={study / 'turned-causal.parquet'}",
    )
    causal = pl.read_parquet(study / "turned-causal.parquet")
    assert causal["position"].drop_nulls().unique().to_list() == ["template[-1]"]


def test_a_base_that_the_crosscoder_does_not_read_is_told(study: Path) -> None:
    with pytest.raises(Exception, match="reads base, tuned and not 'other'"):
        run(
            study,
            *("classify", f"--sae={study / 'sae'}", "--base=other", "--settings={}", "--seed=0"),
            *(f"--output={study / 'a.parquet'}", f"--counts={study / 'b.parquet'}"),
        )
