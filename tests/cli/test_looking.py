"""What a user asks the command line first: its version, what is in a file, what differs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import yaml
from studies import TINY
from tiny_models import save_tiny_model, tiny_tokenizer
from typer.testing import CliRunner

import saeflow
from saeflow.cli.main import app
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.workflow import Workflow


def output(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_version_is_that_of_the_package() -> None:
    assert output("--version").strip() == saeflow.__version__


def test_a_table_is_shown_with_its_first_rows(tmp_path: Path) -> None:
    pl.DataFrame({"goal": ["london", "love", "anger"], "f1": [0.25, 0.5, 1.0]}).write_parquet(
        tmp_path / "t.parquet"
    )
    shown = output("show", tmp_path / "t.parquet", "--rows", "2")
    assert "3 rows" in shown
    assert "london" in shown
    assert "0.5" in shown
    assert "anger" not in shown
    assert "london" not in output("show", tmp_path / "t.parquet", "--rows", "0")


def test_a_table_that_is_wider_than_a_terminal_is_shown_row_by_row(tmp_path: Path) -> None:
    columns = {f"behaviour_{n}": [0.123456789 + n, None] for n in range(30)}
    pl.DataFrame(columns).write_parquet(tmp_path / "t.parquet")
    lines = output("show", tmp_path / "t.parquet").splitlines()
    assert lines[-62:-60] == ["row 0", "  behaviour_0   0.123457"]
    assert lines[-31:-29] == ["row 1", "  behaviour_0"]
    assert max(map(len, lines)) < 120


def test_a_corpus_is_shown_as_text_where_its_study_has_the_tokenizer(tmp_path: Path) -> None:
    words = tiny_tokenizer()
    ids = words("the cat sat", add_special_tokens=False)["input_ids"]
    (tmp_path / "corpus").mkdir()
    corpus = tmp_path / "corpus/eval.safetensors"
    save_blocks(corpus, TokenBlocks(np.array([ids], np.int32), {}, {}))
    assert "cat" not in output("show", corpus)  # of no study
    (tmp_path / "config.yaml").touch()
    save_tiny_model(tmp_path / "models/lm", "llama")
    assert "the cat sat" in output("show", corpus)


def test_the_difference_of_equal_studies_is_told_to_be_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("study: x\n")
        (tmp_path / name / "provenance.json").write_text("{}")
    unfinished = tmp_path / "b" / ".report.0123abcd.part"  # of a job at work, or killed
    unfinished.mkdir()
    (unfinished / "goal.js").touch()
    assert "no difference" in output("diff", tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("goal", "method", "sentence"),
    [
        ("lnodon", "caa", "there is no goal 'lnodon'; the study has london, love"),
        ("love", "sae", "of goal 'love' there is no method 'sae'; it has caa"),
        ("love", None, "--goal needs --method; goal 'love' has caa"),
    ],
)
def test_a_goal_or_method_that_a_study_lacks_is_answered_with_those_it_has(
    tmp_path: Path, goal: str, method: str | None, sentence: str
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TINY))
    for there in ("london", "love"):
        (tmp_path / "steering" / there / "caa").mkdir(parents=True)
        (tmp_path / "steering" / there / "caa" / "vector.safetensors").touch()
    named = ["--method", method] if method else []
    with pytest.raises(SaeflowError, match=sentence):
        output("steer", "I think", "--study", str(tmp_path), "--goal", goal, *named)


@pytest.mark.parametrize(
    "arguments",
    [
        ["study", "record", "--study", "x", "--config", "c", "--provenance", "p"],
        ["sae", "summarise", "m.json", "--saes", "x", "--output", "o.parquet"],
    ],
)
def test_an_option_that_is_no_json_is_named(arguments: list[str]) -> None:
    with pytest.raises(SaeflowError, match=r"^--(study|saes): is no JSON mapping"):
        output(*arguments)


def test_a_split_that_a_corpus_lacks_is_answered_with_those_it_has(tmp_path: Path) -> None:
    words = ["corpus", "write", "--settings", "{}", "--seed", "0", "--split", "test"]
    with pytest.raises(SaeflowError, match="no split 'test'; there are model, sae, eval"):
        output(*words, "--output", str(tmp_path / "o.safetensors"))


def test_the_last_lines_of_the_log_of_every_failed_job_are_shown(tmp_path: Path) -> None:
    (tmp_path / "b.log").write_text("".join(f"line {n}\n" for n in range(30)))
    jobs = [
        SimpleNamespace(log=[str(tmp_path / name)], rule=SimpleNamespace(name=rule))
        for name, rule in (("b.log", "train_sae"), ("absent.log", "write_corpus"))
    ]
    shown = Workflow.ends_of_logs([jobs[0], SimpleNamespace(jobs=[jobs[1]])])  # the last a group
    absent, _, ended = shown.partition("train_sae failed")
    assert f"write_corpus failed with nothing in {tmp_path}/absent.log" in absent
    assert "above, under 'Error in rule write_corpus'" in absent
    assert ended.splitlines()[1:] == [f"    line {n}" for n in range(20, 30)]
