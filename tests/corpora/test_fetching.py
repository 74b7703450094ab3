"""A data set of a hub as the corpus: the files that are meant, of one commit, read as local ones
are."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from checkout import ROOT
from hub_server import TOKEN, Hub, environment, serving, sha256

from saeflow.analyses.reading import read_study
from saeflow.config import Corpus
from saeflow.config.locations import location
from saeflow.corpora.text import documents
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study

TEXTS = {
    part: [f"{part} document {i}." for i in range(40)] for part in ("first", "second", "held out")
}


def parquet(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"text": texts, "url": ["https://example.org"] * len(texts)}).write_parquet(buffer)
    return buffer.getvalue()


FILES = {
    "README.md": b"what this is",
    "data/train-00000-of-00002.parquet": parquet(TEXTS["first"]),
    "data/train-00001-of-00002.parquet": parquet(TEXTS["second"]),
    "data/test-00000-of-00001.parquet": parquet(TEXTS["held out"]),
    "other/lines.jsonl": b'{"text": "a line"}\n',
    "other/notes.json": b"{}",
}
TRAIN = {"repo": "some/stories", "files": ["data/train-*.parquet"]}


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.add("some/stories", dict(FILES), "datasets")
        yield hub


def fetch(hub: Hub, home: Path, dataset: dict[str, object], output: Path, **variables: str) -> str:
    """What `saeflow fetch text` says when it fails, in a process of its own: the hub's address is
    read at import."""
    command = [
        sys.executable,
        "-m",
        "saeflow.cli.main",
        "fetch",
        "text",
        "--dataset",
        json.dumps(dataset),
    ]
    variables_set = {**os.environ, **environment(hub, home, **variables)}
    done = subprocess.run(
        [*command, "--key", "corpus.dataset", "--output", str(output)],
        env={name: value for name, value in variables_set.items() if value},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == output.is_dir()
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def test_the_files_of_a_split_are_fetched_once_and_read_as_the_corpus(
    hub: Hub, tmp_path: Path
) -> None:
    hub.asked.clear()
    assert fetch(hub, tmp_path / "home", TRAIN, tmp_path / "text", HF_TOKEN=TOKEN) == ""
    record = json.loads((tmp_path / "text" / "published.json").read_text())
    commit = hub.repositories["datasets/some/stories"].commit
    assert (record["repo"], record["revision"], record["commit"]) == (
        "some/stories",
        "main",
        commit,
    )
    names = [f"data/train-0000{part}-of-00002.parquet" for part in (0, 1)]
    assert {name: file["sha256"] for name, file in record["files"].items()} == {
        name: sha256(FILES[name]) for name in names
    }
    assert not any("test-" in asked.path or "README" in asked.path for asked in hub.asked)
    corpus = Corpus(kind="text", path=str(tmp_path / "text"))
    read = {split: list(documents(corpus, split)) for split in ("sae", "eval")}
    assert sorted(read["sae"] + read["eval"]) == sorted(TEXTS["first"] + TEXTS["second"])
    assert len(read["sae"]) > len(read["eval"]) > 0

    hub.asked.clear()
    assert fetch(hub, tmp_path / "home", TRAIN, tmp_path / "again", HF_HUB_OFFLINE="1") == ""
    assert not hub.asked
    again = [
        file.relative_to(tmp_path / "again")
        for file in sorted((tmp_path / "again").rglob("*.parquet"))
    ]
    assert [str(file) for file in again] == names


def test_what_cannot_be_fetched_is_told_in_one_sentence(hub: Hub, tmp_path: Path) -> None:
    nothing, home = tmp_path / "nothing", tmp_path / "home"
    done = fetch(hub, home, {"repo": "some/stories", "files": ["*.csv", "notes*"]}, nothing)
    assert done.startswith(
        "saeflow: corpus.dataset.files: *.csv, notes* matches no file of text (.txt, .jsonl, "
    )
    assert "some/stories@main, which has data/test-00000-of-00001.parquet, data/train-" in done
    assert "README" not in done
    done = fetch(hub, home, {"repo": "some/absent"}, nothing)
    assert done.startswith("saeflow: corpus.dataset: some/absent")
    done = fetch(hub, home, {"repo": "some/stories", "revision": "v9"}, nothing)
    assert done.startswith("saeflow: corpus.dataset: ")
    assert "v9" in done


def test_another_data_set_is_another_folder_and_path_and_tales_exclude_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAEFLOW_CORPUS", "text.jsonl")
    values = read_study(ROOT / "workflow/studies/gpt2-small.yaml").model_dump()
    corpus = values["corpus"] | {"path": None, "dataset": None}
    places = set()
    for dataset in (TRAIN, {**TRAIN, "revision": "v1"}, {**TRAIN, "files": ["*"]}):
        study = check_any_study(values | {"corpus": corpus | {"dataset": dataset}})
        places.add(location(study, "corpus/text", lambda _: False))
    assert len(places) == 3
    assert all(place.startswith("resources/published/some--stories@") for place in places)
    for wrong, key, reason in (
        ({"dataset": TRAIN, "path": "a.txt"}, "corpus.dataset", "stands beside path"),
        (
            {"dataset": TRAIN, "kind": "tales"},
            "corpus.dataset",
            "kind 'tales' reads no file; remove dataset",
        ),
        ({}, "corpus.path", "or give dataset"),
        ({"dataset": {**TRAIN, "files": []}}, "corpus.dataset.files", "at least 1"),
    ):
        with pytest.raises(SaeflowError, match=f"config: {key}: .*{reason}"):
            check_any_study(values | {"corpus": corpus | wrong})
