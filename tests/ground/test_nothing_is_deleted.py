"""Nothing of the user's is deleted or replaced, whatever is damaged and whoever wrote the file that
names it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from tiny_models import save_tiny_model

from saeflow.activations.io import ActivationStore
from saeflow.artifacts import check_replaceable, inside, read_json, write_json, write_sealed_json
from saeflow.cli.clearing import STUDY_FOLDER, cleared
from saeflow.errors import DamagedError, SaeflowError
from saeflow.models.io import link_model
from saeflow.models.language_model import load_model
from saeflow.saes.io import save_sae
from saeflow.saes.sae import SAE
from saeflow.tables import write_table


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def command(*arguments: object, study: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, as a job of a study if one is named."""
    environment = {**os.environ, **({STUDY_FOLDER: str(study)} if study else {})}
    line = [sys.executable, "-m", "saeflow.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def damaged_sae(folder: Path) -> Path:
    save_sae(
        folder,
        SAE("standard", torch.randn(8, 16), torch.randn(16, 8), torch.zeros(16), torch.zeros(8)),
    )
    flip(folder / "sae_weights.safetensors")
    return folder / "sae_weights.safetensors"


def manifest(**changes: Any) -> dict[str, Any]:
    shard = {
        "file": "shard-00000.parquet",
        "rows": 8,
        "bytes": 3,
        "sha256": "0" * 64,
        "text": "t",
        **changes,
    }
    about = {
        "hook": "blocks.0.hook_resid_post",
        "model": "lm",
        "dtype": "float32",
        "rows": 8,
        "d_model": 2,
    }
    return {**about, "mean": [0.0, 0.0], "variance": 1.0, "mean_norm": 1.0, "shards": [shard]}


@pytest.mark.parametrize("as_job", [False, True])
def test_an_import_leaves_the_user_s_damaged_sae_where_it_is(as_job: bool, tmp_path: Path) -> None:
    study = tmp_path / "results/mine"
    weights = damaged_sae(tmp_path / "precious")
    options = ("--path", weights.parent, "--format", "auto", "--hook", "blocks.0.hook_resid_post")
    done = command(
        "sae", "import", *options, "--output", study / "saes/main", study=study if as_job else None
    )
    assert done.returncode == 1
    assert weights.is_file()
    assert "is damaged" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["../../home/thesis.txt", "/etc/hosts", "..", "a/../../b", "", "a\\..\\b", "a\0b"]
)
def test_a_name_in_a_stranger_s_file_stays_inside_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match="lies outside of it"):
        inside(tmp_path, name)
    assert (
        inside(tmp_path, "activations/shard-00000.parquet")
        == tmp_path / "activations/shard-00000.parquet"
    )


@pytest.mark.parametrize("absolute", [False, True])
def test_a_manifest_that_names_a_file_elsewhere_is_refused_and_the_file_stays(
    absolute: bool, tmp_path: Path
) -> None:
    study, victim = tmp_path / "results/x", tmp_path / "thesis.txt"
    victim.write_text("years of work")
    cache = study / "activations/lm/hook"
    cache.mkdir(parents=True)
    name = str(victim) if absolute else os.path.relpath(victim, cache)
    write_sealed_json(cache / "manifest.json", manifest(file=name))
    done = command("activations", "verify", cache / "manifest.json", study=study)
    assert done.returncode == 1
    assert "lies outside of it" in done.stderr
    assert victim.read_text() == "years of work"
    with pytest.raises(SaeflowError, match="lies outside of it"):
        ActivationStore.open(cache).path(0)


def test_a_model_that_names_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    checkpoint = save_tiny_model(tmp_path / "checkpoint", "llama")
    link_model(checkpoint, tmp_path / "linked")
    record = read_json(tmp_path / "linked/model.json")
    record["files"]["../other.safetensors"] = record["files"]["config.json"]
    write_sealed_json(tmp_path / "linked/model.json", record)
    with pytest.raises(SaeflowError, match="lies outside of it"):
        load_model(tmp_path / "linked")
    write_json(
        checkpoint / "model.safetensors.index.json",
        {"weight_map": {"a": "../../elsewhere.safetensors"}},
    )
    with pytest.raises(SaeflowError, match="lies outside of it"):
        load_model(checkpoint)


def test_a_command_that_only_reads_removes_nothing(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name / "steering").mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"study": name}))
        write_table(tmp_path / name / "steering/best.parquet", pl.DataFrame({"x": range(100)}))
    table = tmp_path / "a/steering/best.parquet"
    flip(table)
    before = table.read_bytes()
    for line in (
        ("diff", tmp_path / "a", tmp_path / "b"),
        ("verify", tmp_path / "a"),
        ("show", table),
    ):
        done = command(*line)
        assert table.read_bytes() == before
        assert done.returncode == 1 or line[0] == "show", done.stderr
    assert "best.parquet: is damaged" in command("verify", tmp_path / "a").stdout


@pytest.mark.parametrize(
    ("place", "removed"),
    [
        ("results/mine/saes/main/sae_weights.safetensors", True),
        ("results/mine/judging/ledger.sqlite", False),
        ("results/mine/notes.txt", False),
        ("results/other/saes/main/sae_weights.safetensors", False),
        ("elsewhere/sae_weights.safetensors", False),
        ("results/mine/saes/linked/sae_weights.safetensors", False),
    ],
)
def test_a_job_removes_only_what_jobs_of_its_own_study_make(
    place: str, removed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results/mine/saes").mkdir(parents=True)
    (tmp_path / "results/mine/saes/linked").symlink_to(tmp_path / "elsewhere")
    file = Path(place)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("content")
    error = DamagedError(f"{file}: is damaged", [file])
    assert "; if the workflow made" in cleared(error), "without a study, nothing is removed"
    monkeypatch.setenv(STUDY_FOLDER, "results/mine")
    sentence = cleared(error)
    assert file.exists() is not removed
    assert ("is removed, start again" in sentence) is removed


def test_a_result_does_not_replace_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    checkpoint = save_tiny_model(tmp_path / "checkpoint", "llama")
    mine = tmp_path / "mine"
    (mine / "deep").mkdir(parents=True)
    (mine / "deep/photo.jpg").write_text("x")
    shutil.copy(checkpoint / "config.json", mine)
    for line in (
        ("model", "link", "--path", checkpoint, "--output", mine),
        (
            "model",
            "train",
            "--corpus",
            mine,
            "--settings",
            "{}",
            "--seed",
            0,
            "--checkpoint",
            mine,
            "--output",
            mine,
        ),
    ):
        done = command(*line)
        assert done.returncode == 1
        assert "was not written there by this command" in done.stderr, done.stderr
        assert sorted(path.name for path in mine.rglob("*")) == ["config.json", "deep", "photo.jpg"]
    linked = tmp_path / "linked"
    for _ in range(2):  # an earlier result is replaced
        assert command("model", "link", "--path", checkpoint, "--output", linked).returncode == 0
    (linked / "notes.txt").write_text("mine")
    with pytest.raises(SaeflowError, match=r"holds notes\.txt"):
        check_replaceable(linked)
    assert json.loads((linked / "model.json").read_text())["path"] == str(checkpoint)
