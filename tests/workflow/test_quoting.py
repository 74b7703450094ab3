"""What rules hand to bash: whatever paths and texts a config holds, every command gets them as they
are."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from checkout import ROOT
from safetensors.numpy import save_file
from snakemake_runs import Workflow
from studies import GOALS, TINY, changed
from tiny_models import save_tiny_model
from typer.main import get_command

from saeflow.cli.main import app

# A folder's name that splits, expands, substitutes, globs and closes quotes wherever it is not
# quoted.
HOSTILE = "a b'c\"d$(touch PWNED)`touch PWNED`[e]*;touch PWNED&#~$HOME\\é"
TEXT = f"{HOSTILE} {{study}} {{x}} {{goal}}"
RULES = sorted(Path(ROOT, "rules").glob("*.smk"))
SECTIONS = r"(\w+)=(?:settings|FLOW\.published|calls)\("
JSON = {"saes", *(name for file in RULES for name in re.findall(SECTIONS, file.read_text()))}
RECORDER = """#!/usr/bin/env python3
import json, os, sys
words = [open(word[1:]).read() if word.startswith("@/dev/fd/") else word for word in sys.argv[1:]]
print(json.dumps(words), file=open(os.environ["RECORD"], "a"))
"""


def commands_of(file):
    """The text of every `shell:` in a file of rules, and of the constants that rules take it
    from."""
    lines = r'((?:[ \t]*(?:f?"(?:[^"\\]|\\.)*"|f?\'(?:[^\'\\]|\\.)*\')[ \t]*)+(?:\n|$))'
    return re.findall(rf"(?:shell:|^[A-Z_]+ = \()\n((?:{lines})+)", file.read_text(), re.M)


@pytest.mark.parametrize("file", [ROOT / "Snakefile", *RULES], ids=lambda file: file.name)
def test_every_command_quotes_all_that_it_is_given(file):
    commands = [text for text, _ in commands_of(file)]
    assert len(commands) >= file.read_text().count("shell:\n") - file.read_text().count(
        "shell:\n        TRAIN_SAES"
    )
    for command in commands:
        fields = re.findall(r"\{([^{}]+)\}", command)
        assert [field for field in fields if field != "threads" and not field.endswith(":q")] == []
        assert command.count("$(") == command.count('"$(dirname {')
        for name in JSON:
            assert command.count(f"{{params.{name}:q}}") == command.count(
                f"@<(printf %s {{params.{name}:q}})"
            )


@pytest.fixture
def hostile(tmp_path):
    """A working directory of a hostile name, and in it files that configs may name."""
    folder = tmp_path / HOSTILE.replace("/", "")
    (folder / HOSTILE).mkdir(parents=True)
    return folder


def commands_run(workflow, *targets, root=ROOT):
    """What `saeflow` would be called with by every job of a plan, by rule: each printed command is
    run by bash in the working directory, with a `saeflow` that only writes down its arguments."""
    workflow.root = root
    done = workflow.attempt(*targets, args=("--cores", "2", "--dry-run", "--printshellcmds"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    recorder, record = workflow.directory / "bin/saeflow", workflow.directory / "record"
    recorder.parent.mkdir(exist_ok=True)
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    calls = {}
    for name, command in re.findall(
        r"^(?:local)?rule (\w+):.*?^Shell command: (.*?)$", done.stdout, re.M | re.S
    ):
        if command == "None":  # a target
            continue
        record.unlink(missing_ok=True)
        Path(workflow.directory, re.search(r"> (\S+) 2>&1$", command)[1]).parent.mkdir(
            parents=True, exist_ok=True
        )
        subprocess.run(
            ["bash", "-c", f"set -euo pipefail; {command}"],
            cwd=workflow.directory,
            env={
                **os.environ,
                "PATH": f"{recorder.parent}{os.pathsep}{os.environ['PATH']}",
                "RECORD": str(record),
            },
            check=True,
        )
        calls.setdefault(name, []).append(json.loads(record.read_text()))
    assert calls
    for call in (call for listed in calls.values() for call in listed):
        assert_parsed(call)
    assert not list(workflow.directory.rglob("PWNED"))
    return calls


def assert_parsed(call):
    """The command line takes these words."""
    command, words = get_command(app), call
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(command.context_class(command), words)
    command.make_context("saeflow", list(words))


def write_sae(folder):
    """An SAE of width 64, as the config looks at it."""
    folder.mkdir()
    (folder / "cfg.json").write_text('{"architecture": "standard", "d_in": 64, "d_sae": 8}')
    save_file({"W_dec": np.zeros((8, 64), np.float32)}, folder / "sae_weights.safetensors")


def settings_of(call, option="--settings"):
    return json.loads(call[call.index(option) + 1])


def test_every_path_and_text_of_a_study_of_language_reaches_its_command_as_it_is(
    hostile, monkeypatch
):
    monkeypatch.setenv("MY_KEY", "none")
    place, goals = hostile / HOSTILE, hostile / TEXT
    goals.mkdir()
    for name in GOALS:
        (goals / f"{name}.yaml").write_text(
            (ROOT / f"workflow/goals/tales/{name}.yaml").read_text()
        )
    (goals / "sets.yaml").write_text("sets:\n  a: {words: [love, king]}\n")
    (place / "text.jsonl").write_text('{"text": "Once."}\n')
    save_file({TEXT: np.eye(24, 64, dtype=np.float32)}, place / "vectors.safetensors")
    write_sae(place / "sae {x}")
    save_tiny_model(place / "model", "llama", hidden_size=64)
    changes = {
        "corpus.kind": "text",
        "corpus.path": str(place / "text.jsonl"),
        "corpus.separator": TEXT,
        "model": {"name": "linked", "path": str(place / "model")},
        "saes.imported": {"path": str(place / "sae {x}"), "format": "saelens"},
        "examples": {},
        "logit_lens": {"token_sets": {"files": [str(goals / "sets.yaml")]}},
        "effects.measurement.prompts": [TEXT],
        "effects.vectors.kind": "file",
        "effects.vectors.path": str(place / "vectors.safetensors"),
        "effects.vectors.tensor": TEXT,
        "effects.vectors.range": [0, 24],
        "steering.sae": "main",
        "steering.goals.directory": str(goals),
        "steering.completions.prompts": [TEXT],
        "steering.judge": {"kind": "openai", "model": TEXT, "parameters": {"stop": TEXT}},
        "steering.pairs": 2,
        "calls": {"key": "MY_KEY"},
    }
    study = changed(TINY, changes)
    calls = commands_run(Workflow(hostile, study, base=None), "all")
    assert settings_of(calls["record_study"][0], "--study")["steering"]["completions"][
        "prompts"
    ] == [TEXT]
    assert settings_of(calls["write_corpus"][0])["separator"] == TEXT
    assert calls["link_model"][0][2:4] == ["--path", str(place / "model")]
    assert str(place / "sae {x}") in calls["import_sae"][0]
    assert str(goals / "sets.yaml") in calls["find_token_sets"][0]
    assert str(place / "vectors.safetensors") in calls["measure_effects"][0]
    assert settings_of(calls["measure_effects"][0], "--vectors")["tensor"] == TEXT
    assert calls["choose_latents"][0][2:4] == [str(goals / f"{name}.yaml") for name in GOALS]
    assert settings_of(calls["complete_prompts"][0])["prompts"] == [TEXT]
    judge = settings_of(calls["judge_completions"][0])
    assert judge["model"] == judge["parameters"]["stop"] == TEXT
    assert settings_of(calls["judge_completions"][0], "--calls")["key"] == "MY_KEY"
    assert f"steering={goals}" in calls["write_report"][0]
    assert str(goals) in calls["compare_pairs"][0]


def test_every_path_of_a_study_of_chess_reaches_its_command_as_it_is(hostile):
    place = hostile / HOSTILE
    (place / "games.pgn").touch()
    (place / "player").touch()
    (place / "sae {x}").mkdir()
    study = {
        "kind": "chess",
        "study": "chess",
        "positions": {"path": str(place / "games.pgn")},
        "model": {"name": "player", "path": str(place / "player")},
        "saes": {
            "main": {"train": {"d_sae": 48, "k": 4}},
            "imported": {"path": str(place / "sae {x}")},
        },
        "engine": {"command": str(place / "stockfish {x}")},
        "transitions": {},
        "blunders": {},
        "fine_tune": {},
    }
    calls = commands_run(Workflow(hostile, study, base=None), "all")
    assert str(place / "games.pgn") in calls["read_games"][0]
    assert settings_of(calls["provide_player"][0])["path"] == str(place / "player")
    assert str(place / "sae {x}") in calls["import_sae"][0]
    assert settings_of(calls["evaluate_positions"][0])["command"] == str(place / "stockfish {x}")


def test_patterns_of_what_is_published_reach_their_commands(workflow):
    vectors = {"repo": "me/x", "file": "{goal}/{method}/vector.safetensors"}
    published = {
        "activations.published": {"repo": "me/x", "file": "cache/{hook}"},
        "steering.vectors.published": vectors,
    }
    workflow.overrides = changed(TINY, published)
    calls = commands_run(workflow, "all")
    assert settings_of(calls["fetch_activations"][0], "--published")["file"] == "cache/{hook}"
    assert (
        settings_of(calls["fetch_vectors"][0], "--published")["file"]
        == "{goal}/{method}/vector.safetensors"
    )


def test_settings_longer_than_an_argument_may_be_reach_their_jobs(workflow):
    prompts = [f"{'é' * 40} '{{study}}' {number}" for number in range(2_500)]
    workflow.run("results/tiny/config.yaml", config={"steering.completions.prompts": prompts})
    written = yaml.safe_load((workflow.results / "config.yaml").read_text())
    assert written["steering"]["completions"]["prompts"] == prompts
