"""A model of a hub: what is needed of it is fetched, and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Hub, environment, serving
from tiny_models import save_tiny_model, tiny_language_model, tiny_tokens

from saeflow.artifacts import sha256
from saeflow.models.language_model import load_model
from saeflow.models.running import logits


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    checkpoint = save_tiny_model(tmp_path_factory.mktemp("served") / "model", "llama")
    files = {path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    others = {
        "pytorch_model.bin": b"not wanted",
        "README.md": b"nor this",
        "onnx/model.onnx": b"nor that",
    }
    with serving() as hub:
        hub.add("some/model", files | others)
        hub.add("some/several", {f"step-100/{name}": content for name, content in files.items()})
        hub.add(
            "some/pickled",
            {name: content for name, content in files.items() if name != "model.safetensors"},
        )
        yield hub


def fetch(
    hub: Hub, home: Path, published: dict[str, str], output: Path
) -> subprocess.CompletedProcess[str]:
    command = [
        Path(sys.executable).parent / "saeflow",
        "fetch",
        "model",
        "--published",
        json.dumps(published),
    ]
    command += ["--key", "model.published", "--output", output]
    variables = {**os.environ, **environment(hub, home, HF_TOKEN=TOKEN)}
    return subprocess.run(
        [str(part) for part in command], env=variables, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "published", [{"repo": "some/model"}, {"repo": "some/several", "file": "step-100"}]
)
def test_a_fetched_model_runs_and_says_where_it_is_from(
    hub: Hub, tmp_path: Path, published: dict[str, str]
) -> None:
    directory = tmp_path / "fetched"
    done = fetch(hub, tmp_path / "home", published, directory)
    assert done.returncode == 0, done.stderr
    record = json.loads((directory / "published.json").read_text())
    assert record["commit"] == hub.repositories[f"models/{published['repo']}"].commit
    assert {path.name for path in directory.iterdir()} == {
        *record["files"],
        "published.json",
        "checksums.json",
    }
    assert not {"README.md", "pytorch_model.bin"} & set(record["files"])
    assert all(sha256(directory / name) == file["sha256"] for name, file in record["files"].items())
    for text in ((directory / "published.json").read_text(), done.stdout, done.stderr):
        assert TOKEN not in text
    assert str(tmp_path) not in (directory / "published.json").read_text()
    assert torch.equal(
        logits(load_model(directory), tiny_tokens()),
        logits(tiny_language_model("llama"), tiny_tokens()),
    )


def test_a_repository_without_safetensors_is_refused_and_leaves_nothing(
    hub: Hub, tmp_path: Path
) -> None:
    done = fetch(hub, tmp_path / "home", {"repo": "some/pickled"}, tmp_path / "models" / "never")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "saeflow: model.published: some/pickled@main: has no weights as model.safetensors; name a "
        "revision that has, or convert the checkpoint"
    )
    assert not (tmp_path / "models").exists()
