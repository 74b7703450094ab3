"""An SAE that is one file of a repository: it is fetched with its settings, and nothing else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import environment, serving, sha256

from saeflow.saes.io import import_sae, load_sae

D_MODEL, D_SAE = 6, 24
draw = torch.Generator().manual_seed(0)
WEIGHTS = {
    "W_enc": torch.randn(D_SAE, D_MODEL, generator=draw),
    "W_dec": torch.randn(D_MODEL, D_SAE, generator=draw),
    "b_enc": torch.randn(D_SAE, generator=draw),
    "b_dec": torch.randn(D_MODEL, generator=draw),
}
X = torch.randn(20, D_MODEL, generator=draw)
SETTINGS = {"act_size": D_MODEL, "dict_size": D_SAE, "act_name": "blocks.5.attn.hook_z"}
buffer = io.BytesIO()
torch.save(WEIGHTS, buffer)
FILE = buffer.getvalue()


@pytest.mark.parametrize(
    ("repo", "file", "hook"),
    [
        ("ckkissane/attn-saes", "all/gpt2-small_L5.pt", "blocks.5.attn.hook_z"),
        ("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_5", "layer5.sae.pt", "blocks.5.hook_resid_post"),
    ],
)
def test_a_file_of_a_hub_is_fetched_with_its_settings_and_no_other(
    tmp_path: Path, repo: str, file: str, hook: str
) -> None:
    folder, _, name = file.rpartition("/")
    beside = f"{file.removesuffix('.pt')}_cfg.json"
    files = {file: FILE, "README.md": b"read me", file.replace("5", "6"): FILE}
    if folder:
        files[beside] = json.dumps(SETTINGS).encode()
    with serving() as hub:
        hub.add(repo, files)
        published = {"repo": repo, "file": file, "sha256": sha256(FILE)}
        words = ["fetch", "sae", "--published", json.dumps(published), "--key", "saes.it.published"]
        words += ["--hook", hook, "--d-sae", str(D_SAE), "--output", str(tmp_path / "own")]
        done = subprocess.run(
            [Path(sys.executable).with_name("saeflow"), *words],
            env={**os.environ, **environment(hub, tmp_path / "home")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert hub.fetches(file.replace("5", "6")) == hub.fetches("README.md") == 0
    local = tmp_path / repo / name
    local.parent.mkdir(parents=True)
    for path, content in files.items():
        (local.parent / Path(path).name).write_bytes(content)
    sae = load_sae(tmp_path / "own")
    assert sae.k == (None if folder else 5)
    assert torch.equal(sae.reconstruct(X), import_sae(local).reconstruct(X))
    record = json.loads((tmp_path / "own" / "published.json").read_text())
    assert set(record["files"]) == {name} | ({Path(beside).name} if folder else set())
