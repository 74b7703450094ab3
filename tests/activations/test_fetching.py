"""A published cache comes whole: its manifest and the shards that the manifest vouches for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub, environment, serving
from planted_dictionary import METADATA, cached

from saeflow.activations.io import ActivationStore
from saeflow.errors import SaeflowError

HOOK = METADATA["hook"]
RUN = """
import json, sys
from pathlib import Path
from saeflow.activations.fetching import fetch_cache
from saeflow.config import Published
from saeflow.errors import SaeflowError
for file, hook, directory in json.loads(sys.argv[1]):
    try:
        fetch_cache(Published(repo="some/cache", repo_type="dataset", file=file), "this", hook,
        Path(directory))
        print()
    except SaeflowError as error:
        print(error)
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Hub, ActivationStore]]:
    store = cached(tmp_path / "made", torch.randn(100, 6), shards=2)
    files = {path.name: path.read_bytes() for path in store.directory.iterdir()}
    (shard,) = [name for name in files if "00001" in name]
    spoiled = {**files, shard: files[shard][:-1] + b"?"}
    with serving() as hub:
        folders = {f"caches/{HOOK}": files, "spoiled": spoiled, "none": {"a.txt": b"a"}}
        everything = {
            f"{folder}/{name}": content
            for folder, those in folders.items()
            for name, content in those.items()
        }
        hub.add("some/cache", {**everything, f"caches/{HOOK}/notes.parquet": b"notes"}, "datasets")
        yield hub, store


def test_a_cache_is_fetched_with_its_shards_or_refused(
    served: tuple[Hub, ActivationStore], tmp_path: Path
) -> None:
    hub, store = served
    other = "blocks.9.hook_resid_post"
    wishes = [
        ("caches/{hook}", HOOK, tmp_path / "back"),
        (f"caches/{HOOK}", other, tmp_path / "never"),
        ("spoiled", HOOK, tmp_path / "never"),
        ("none", HOOK, tmp_path / "never"),
    ]
    arguments = json.dumps([(file, hook, str(directory)) for file, hook, directory in wishes])
    variables = {**os.environ, **environment(hub, tmp_path / "home")}
    command = [sys.executable, "-c", RUN, arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "",
        f"this: is the cache of {HOOK}, not of {other}; name the folder of that hook",
        (
            "this: shard-00001.parquet of some/cache@main is not the one of its manifest.json; "
            "publish it again"
        ),
        "this: some/cache@main has no manifest.json in 'none'; name the cache's folder",
    ]
    assert not (tmp_path / "never").exists()
    back = ActivationStore.open(tmp_path / "back")
    back.verify()
    assert back.identity == store.identity
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert names == {
        "manifest.json",
        "published.json",
        "shard-00000.parquet",
        "shard-00001.parquet",
    }


def test_a_manifest_of_a_stranger_is_taken_or_told_in_one_sentence(tmp_path: Path) -> None:
    store = cached(tmp_path / "made", torch.randn(100, 6), shards=2)
    path = store.directory / "manifest.json"
    whole = json.loads(path.read_text())
    whole.pop("saeflow_seal", None)
    shards = whole["shards"]
    for manifest, message in (
        (whole, None),
        ([], "holds a list where names and values are needed"),
        (whole | {"shards": [1]}, "lacks"),
        (whole | {"shards": [{"file": "a"}]}, "lacks 'rows'"),
        (whole | {"mean": "x"}, "lacks"),
        (whole | {"shards": [shards[0] | {"rows": 10**13}]}, "declares 240,000,000,000,000 bytes"),
        (whole | {"d_model": 10**12}, "declares"),
        (
            whole | {"shards": [shards[0] | {"file": "../../elsewhere.parquet"}]},
            "which lies outside of it",
        ),
    ):
        path.write_text(json.dumps(manifest))
        if message is None:
            assert ActivationStore.open(store.directory).rows == store.rows
            continue
        with pytest.raises(SaeflowError, match=message) as refusal:
            ActivationStore.open(store.directory)
        assert "\n" not in str(refusal.value)
