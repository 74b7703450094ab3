"""A job that is killed loses no more than the method that it was at."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer.main
import yaml
from steered import HOOK, unit_rows
from tiny_models import save_tiny_model, tiny_tokens

from saeflow.analyses.steering.io import SteeringVector, save_vector
from saeflow.cli.main import app
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tokens import TokenBlocks

KILLED = """
import os, signal, sys
import typer.main
from saeflow import parts
from saeflow.cli.main import app

keep = parts.Parts._keep

def keep_and_die(*arguments):
    keep(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

parts.Parts._keep = keep_and_die
typer.main.get_command(app).main(sys.argv[1:], "saeflow", standalone_mode=False)
"""
PROMPTING = json.dumps({"methods": ["prompt", "few_shot"], "examples": 1})
WRITTEN = json.dumps({"prompts": ["I think"], "scales": [0.0, 1.0], "samples": 4, "new_tokens": 4})


def run(*arguments: str) -> None:
    typer.main.get_command(app).main(list(arguments), "saeflow", standalone_mode=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a goal, text, and completions of two vectors and of two methods in words."""
    root = tmp_path_factory.mktemp("inputs")
    save_tiny_model(root / "model", "llama")
    goal = {
        "title": "Cats",
        "criterion": "It is about a cat.",
        "positive": ["a cat ran", "the cat"],
    }
    (root / "cats.yaml").write_text(yaml.safe_dump({**goal, "negative": ["a dog ran", "the dog"]}))
    questions = [{"question": "the cat", "answer": "sat", "others": ["ran", "on the mat"]}]
    (root / "questions.yaml").write_text(yaml.safe_dump({"questions": questions}))
    blocks = TokenBlocks(tiny_tokens(4, 12).numpy().astype(np.int32), {}, {})
    save_blocks(root / "eval.safetensors", blocks)
    for number, method in enumerate(("caa", "random")):
        described = {"hook": HOOK, "goal": "cats", "method": method, "norm": 1.0}
        vector = SteeringVector(unit_rows(2)[number], described)
        save_vector(root / "steering" / method / "vector.safetensors", vector)
    settings = ["--settings", WRITTEN, "--seed", "0", "--output", str(root / "steering")]
    run(
        *("steering", "complete-in-words", "--goal", str(root / "cats.yaml"), "--hook", HOOK),
        *("--model", str(root / "model"), "--prompting", PROMPTING, *settings),
    )
    bare = pl.read_parquet(root / "steering/prompt/completions.parquet").filter(scale=0.0)
    for method in ("caa", "random"):
        own = bare.with_columns(
            method=pl.lit(method), completion_id=pl.col("completion_id") + method
        )
        own.write_parquet(root / "steering" / method / "completions.parquet")
    return root


COMMANDS = {
    "complete-in-words": [
        *("--goal", "cats.yaml", "--hook", HOOK, "--model", "model", "--prompting", PROMPTING),
        *("--settings", WRITTEN, "--seed", "0", "--output", "OUT"),
    ],
    "divergence": [
        *("steering/caa/completions.parquet", "--vector", "steering/caa/vector.safetensors"),
        *("--in-words", "steering/prompt/completions.parquet"),
        *("--prompts", "steering/prompt/prompts.parquet", "--model", "model"),
        *("--output", "OUT/divergence.parquet"),
    ],
    "capability": [
        *("steering/caa/completions.parquet", "steering/random/completions.parquet"),
        *("--vector", "steering/caa/vector.safetensors"),
        *("--vector", "steering/random/vector.safetensors", "--model", "model"),
        *("--corpus", "eval.safetensors", "--settings", '{"tokens": 24}'),
        *("--questions", "questions.yaml", "--goal", "cats.yaml", "--prompting", PROMPTING),
        *("--output", "OUT/capability.parquet"),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_killed_job_had_finished_is_taken_up_and_nothing_differs(
    command: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(inputs)
    arguments = ["steering", command, *COMMANDS[command]]

    def to(folder: str) -> list[str]:
        return [each.replace("OUT", str(tmp_path / folder)) for each in arguments]

    kept = ["--parts", str(tmp_path / "parts")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *to("killed"), *kept], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "parts").rglob("*.parquet"))) == 1
    capfd.readouterr()
    run(*to("again"), *kept)
    first = {"complete-in-words": "prompt"}.get(command, "caa")
    assert f"kept from an earlier run: {first}\n" in capfd.readouterr().err
    run(*to("alone"))
    made = sorted(
        path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.p*")
    )
    assert made
    for path in made:
        again, alone = (pl.read_parquet(tmp_path / place / path) for place in ("again", "alone"))
        assert again.equals(alone)
    run(*to("thrice"), *kept)
    assert capfd.readouterr().err.count("kept from an earlier run") >= 1
