"""Fetching from a hub: a small one on this machine that speaks as much of its language as is needed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny_models import save_tiny_model, tiny_language_model, tiny_tokens

from saeflow.artifacts import sha256
from saeflow.models.language_model import load_model
from saeflow.models.running import logits

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSALS = {
    "some/absent": (404, "RepoNotFound"),
    "some/gated": (403, "GatedRepo"),
    "some/broken": (500, ""),
}
FETCH = """
import json, sys
from pathlib import Path
from saeflow.errors import SaeflowError
from saeflow.models.io import fetch_model
for repo, revision, directory in json.loads(sys.argv[1]):
    try:
        fetch_model(repo, revision, Path(directory))
        print("fetched")
    except SaeflowError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """Serves the files of ``some/model`` at one commit."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        parts = self.path.lstrip("/").split("?")[0].split("/")
        if "some" not in parts:  # the client asks for things of its own, with no token
            return self._answer(404, b"", {})
        self.asked.append((self.path, self.headers.get("Authorization")))
        if parts[:2] == ["api", "models"]:
            return self._info("/".join(parts[2:4]), parts[5])
        content = self.files["/".join(parts[4:])]
        return self._answer(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    do_HEAD = do_GET  # noqa: N815

    def _info(self, repo: str, revision: str) -> None:
        if repo in REFUSALS:
            status, code = REFUSALS[repo]
            self._answer(status, b"{}", {"X-Error-Code": code})
        elif revision not in ("main", COMMIT):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            names = [name for name in self.files if repo != "some/pickled" or not name.endswith(".safetensors")]
            info: dict[str, Any] = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self._answer(200, json.dumps(info).encode(), {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests quiet."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    checkpoint = save_tiny_model(tmp_path_factory.mktemp("served") / "model", "llama")
    Hub.files = {path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    Hub.files |= {"pytorch_model.bin": b"not wanted", "README.md": b"nor this", "onnx/model.onnx": b"nor that"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(endpoint: str, home: Path, *wishes: tuple[str, str, Path], **environment: str) -> list[str]:
    """What `fetch_model` says to each wish, in a process of its own as the hub's address is read at import."""
    command = [
        sys.executable,
        "-c",
        FETCH,
        json.dumps([(repo, revision, str(path)) for repo, revision, path in wishes]),
    ]
    variables = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*", **environment}
    variables = {key: value for key, value in variables.items() if value}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_model_is_fetched_at_the_commit_its_revision_names_and_runs_offline(hub, tmp_path):
    directory = tmp_path / "fetched"
    Hub.asked.clear()
    wish = ("some/model", "main", directory)
    assert fetch(hub, tmp_path / "home", wish, HF_TOKEN="hf_secret", HF_HUB_OFFLINE="") == ["fetched"]
    assert all(token == "Bearer hf_secret" for _, token in Hub.asked)
    files = {path for path, _ in Hub.asked[1:]} - {"/some/model/resolve/main/config.json"}
    assert all(path.startswith(f"/some/model/resolve/{COMMIT}/") for path in files)

    record = json.loads((directory / "model.json").read_text())
    assert (record["repo"], record["revision"], record["commit"]) == ("some/model", "main", COMMIT)
    assert {path.name for path in directory.iterdir()} == {*record["files"], "model.json"}
    assert not {"README.md", "pytorch_model.bin"} & set(record["files"])
    assert all(sha256(directory / name) == file["sha256"] for name, file in record["files"].items())
    assert "hf_secret" not in (directory / "model.json").read_text()
    assert str(tmp_path) not in (directory / "model.json").read_text()
    assert torch.equal(
        logits(load_model(directory), tiny_tokens()), logits(tiny_language_model("llama"), tiny_tokens())
    )

    again, unseen = ("some/model", "main", tmp_path / "again"), ("some/other", "main", tmp_path / "unseen")
    Hub.asked.clear()
    said = fetch(hub, tmp_path / "home", again, unseen, HF_HUB_OFFLINE="1")
    assert said[0] == "fetched"
    assert "some/other@main: is not in the cache, and HF_HUB_OFFLINE is set" in said[1]
    assert (tmp_path / "again" / "model.json").read_bytes() == (directory / "model.json").read_bytes()
    assert Hub.asked == []


def test_what_cannot_be_fetched_is_told_in_one_sentence_and_leaves_nothing(hub, tmp_path):
    target = tmp_path / "models" / "never"
    repos = ["some/absent", "some/gated", "some/broken", "some/pickled"]
    wishes = [(repo, "main", target) for repo in repos] + [("some/model", "v9", target)]
    said = fetch(hub, tmp_path / "home", *wishes, HF_HUB_OFFLINE="")
    assert said == [
        f"some/absent: is not on {hub}, or is private; check model.repo, or set HF_TOKEN",
        f"some/gated: is gated; accept its terms on {hub}/some/gated and set HF_TOKEN",
        f"some/broken@main: {hub} answered 500; try again later",
        "some/pickled@main: has no weights as model.safetensors; name a revision that has, or convert the checkpoint",
        "some/model: has no revision 'v9'; check model.revision",
    ]
    assert not target.parent.exists()


def test_a_hub_out_of_reach_is_told(tmp_path):
    said = fetch("http://127.0.0.1:9", tmp_path / "home", ("some/model", "main", tmp_path / "never"), HF_HUB_OFFLINE="")
    assert len(said) == 1
    assert said[0].startswith("some/model: the hub cannot be reached (ConnectError); check the network and HF_ENDPOINT")
