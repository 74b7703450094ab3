"""A hub on this machine: repositories of models and data sets, downloads, uploads, and failures on
purpose.

It speaks what `huggingface_hub` asks for: information on a revision with every file's checksum;
files with ETag and commit, large ones behind a redirect to another host that takes no token;
ranges; the ways in which a hub says no; uploads of large files and commits. Every request is
remembered.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of-the-tests"
LARGE = (".npz", ".pt", ".safetensors", ".h5", ".parquet")
FILE = re.compile(
    r"^/(?P<data>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$"
)
INFO = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?$"
)
UPLOAD = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit)/[^/]+$"
)
BATCH = re.compile(r"^/(datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch$")


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    token: str | None
    range: str | None


class Fault(NamedTuple):
    """What happens instead of an answer: a status, or a connection that is cut after some bytes of
    the body."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    cut_after: int | None = None


@dataclass
class Repository:
    """The files of one commit; every branch and tag is that commit."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        names = json.dumps({name: sha256(content) for name, content in sorted(self.files.items())})
        return hashlib.sha1(names.encode()).hexdigest()


class Hub:
    """What the server holds and has seen."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[Asked] = []
        self.faults: dict[str, deque[Fault]] = {}
        self.uploaded: dict[str, bytes] = {}
        self.url = ""

    def add(
        self, name: str, files: dict[str, bytes] | Path, kind: str = "models", **options: Any
    ) -> Repository:
        """Add a repository.

        Args:
            name: ``owner/name``.
            files: their content by name, or a folder.
            kind: ``models`` or ``datasets``.
        """
        if isinstance(files, Path):
            folder = files
            files = {
                str(file.relative_to(folder)): file.read_bytes()
                for file in folder.rglob("*")
                if file.is_file()
            }
        self.repositories[f"{kind}/{name}"] = repository = Repository(files, **options)
        return repository

    def fail(self, part: str, *faults: Fault) -> None:
        """Let the next requests whose path holds `part` meet these faults, one each."""
        self.faults[part] = deque(faults)

    def fetches(self, name: str) -> int:
        """How often the content of a file was sent, from its beginning."""
        return sum(
            request.method == "GET" and request.path.endswith(name) and not request.range
            for request in self.asked
        )

    def fault_of(self, path: str) -> Fault | None:
        return next(
            (faults.popleft() for part, faults in self.faults.items() if part in path and faults),
            None,
        )

    def commit(self, kind: str, repo: str, lines: list[dict[str, Any]]) -> Repository:
        """Apply an upload."""
        repository = self.repositories[f"{kind}/{repo}"]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.uploaded[value["oid"]]
        return repository


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub that its server has."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        if path.startswith("/api/agent"):  # the client asks for things of its own
            return self.answer(404)
        self.hub.asked.append(Asked(self.command, path, token, self.headers.get("Range")))
        if fault := self.hub.fault_of(path):
            if fault.cut_after is None:
                return self.answer(fault.status, b"{}", dict(fault.headers))
            return self.cut(path, fault.cut_after)
        if token and token != f"Bearer {TOKEN}":
            return self.answer(
                401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        if path.startswith("/cdn/"):
            return self.answer(*self.ranged(self.of_cdn(path)))
        if match := INFO.match(path):
            return self.info(match["kind"], match["repo"], match["revision"] or "main")
        if match := FILE.match(path):
            return self.file(
                "datasets" if match["data"] else "models",
                match["repo"],
                match["revision"],
                match["file"],
            )
        return self.answer(404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.hub.asked.append(Asked("POST", path, self.headers.get("Authorization"), None))
        if fault := self.hub.fault_of(path):
            return self.answer(fault.status, b"{}", dict(fault.headers))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(
                401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            kind = f"{asked.get('type', 'model')}s"
            name = f"{asked['organization']}/{asked['name']}"
            if f"{kind}/{name}" not in self.hub.repositories:
                self.hub.add(name, {}, kind)
            return self.json({"url": f"{self.hub.url}/{name}", "id": name})
        if match := BATCH.match(path):
            return self.json(
                {"objects": [self.lfs_object(entry) for entry in json.loads(body)["objects"]]}
            )
        if match := UPLOAD.match(path):
            if match["what"] == "preupload":
                return self.json(
                    {"files": [upload_mode(entry["path"]) for entry in json.loads(body)["files"]]}
                )
            lines = [json.loads(line) for line in body.splitlines()]
            repository = self.hub.commit(match["kind"], match["repo"], lines)
            url = f"{self.hub.url}/{match['repo']}/commit/{repository.commit}"
            return self.json({"success": True, "commitOid": repository.commit, "commitUrl": url})
        return self.answer(404)

    def do_PUT(self) -> None:
        body = self.body()
        self.hub.asked.append(Asked("PUT", self.path, self.headers.get("Authorization"), None))
        self.hub.uploaded[self.path.rpartition("/")[2]] = body
        self.answer(200)

    def info(self, kind: str, repo: str, revision: str) -> None:
        if not (repository := self.repository(kind, repo, revision)):
            return
        siblings = [described(name, content) for name, content in repository.files.items()]
        self.json(
            {
                "id": repo,
                "sha": repository.commit,
                "siblings": siblings,
                "cardData": repository.card,
            }
        )

    def file(self, kind: str, repo: str, revision: str, name: str) -> None:
        if not (repository := self.repository(kind, repo, revision)):
            return None
        commit = {"X-Repo-Commit": repository.commit}
        if repository.gated and not self.headers.get("Authorization"):
            return self.answer(401, headers={"X-Error-Code": "GatedRepo", **commit})
        if name not in repository.files:
            return self.answer(404, headers={"X-Error-Code": "EntryNotFound", **commit})
        content = repository.files[name]
        if not name.endswith(LARGE):
            return self.answer(*self.ranged(content, {"ETag": f'"{git_blob(content)}"', **commit}))
        linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        other_host = self.hub.url.replace("127.0.0.1", "localhost")
        target = f"{other_host}/cdn/{kind}/{repo}/{name}?Signature=secret"
        return self.answer(302, headers={"Location": target, **linked, **commit})

    def repository(self, kind: str, repo: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(f"{kind}/{repo}")
        if not repository:
            self.answer(401, headers={"X-Error-Code": "RepoNotFound"})
        elif revision not in (*repository.revisions, repository.commit):
            self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def of_cdn(self, path: str) -> bytes:
        kind, owner, name, file = path.removeprefix("/cdn/").split("/", 3)
        return self.hub.repositories[f"{kind}/{owner}/{name}"].files[file]

    def ranged(
        self, content: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        headers = {"Accept-Ranges": "bytes", **(headers or {})}
        if not (asked := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            return 200, content, headers
        start = int(asked[1])
        return (
            206,
            content[start:],
            {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"},
        )

    def lfs_object(self, asked: dict[str, Any]) -> dict[str, Any]:
        target = {"href": f"{self.hub.url}/lfs/{asked['oid']}"}
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": target}}

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self, path: str, after: int) -> None:
        """Begin an answer and drop the connection in the middle."""
        status, content, headers = self.ranged(self.of_cdn(path))
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content[:after])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep the tests quiet."""


def described(name: str, content: bytes) -> dict[str, Any]:
    """What the hub says of a file."""
    described_file: dict[str, Any] = {
        "rfilename": name,
        "size": len(content),
        "blobId": git_blob(content),
    }
    if name.endswith(LARGE):
        described_file["lfs"] = {
            "sha256": sha256(content),
            "size": len(content),
            "pointerSize": 134,
        }
    return described_file


def upload_mode(name: str) -> dict[str, Any]:
    """How a file of this name is to be uploaded."""
    return {
        "path": name,
        "uploadMode": "lfs" if name.endswith(LARGE) else "regular",
        "shouldIgnore": False,
    }


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub with nothing in it, on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub()
    server.hub = hub  # type: ignore[attr-defined]
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def environment(hub: Hub | str, home: Path, **variables: str) -> dict[str, str]:
    """What a process must have in its environment to talk to a hub and nothing else; empty values
    are left out."""
    url = hub if isinstance(hub, str) else hub.url
    variables_set = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
        "HF_HUB_OFFLINE": "",
    }
    return {**variables_set, **variables}
