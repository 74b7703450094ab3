"""Files of a hub are fetched once, of one commit, whole; what cannot be fetched is told in one sentence."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Fault, Handler, Hub, environment, git_blob, serving, sha256

from saeflow.errors import SaeflowError
from saeflow.hub.mishaps import told_in_one_sentence

FETCH = """
import json, sys
import huggingface_hub.constants, saeflow.hub.mishaps
from saeflow.config import Published
from saeflow.errors import SaeflowError
from saeflow.hub.files import fetch
saeflow.hub.mishaps.BACKOFF = 0.01
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 2**16  # what an interrupted download loses
for wish in json.loads(sys.argv[1]):
    try:
        found = fetch(Published(**wish), "effects.published")
        print(json.dumps([str(found.folder), found.names, found.record]))
    except SaeflowError as error:
        print(json.dumps(str(error)))
"""
FILES = {
    "README.md": b"what this is",
    "effects_2b.pt": bytes(range(256)) * 3000,
    "layer_12/width_16k/params.npz": b"\x00weights" * 1000,
    "layer_12/width_65k/params.npz": b"\x01weights" * 1000,
}
WISH = {"repo": "some/set", "repo_type": "dataset", "file": "effects_2b.pt"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.add("some/set", dict(FILES), "datasets", revisions=("main", "v1"))
        hub.add("some/gated", {"effects_2b.pt": b"effects"}, gated=True)
        yield hub


def fetched(hub: Hub | str, home: Path, *wishes: dict[str, Any], **variables: str) -> list[Any]:
    """What `fetch` gives or says, in a process of its own: the hub's address is read at import."""
    process = attempt(hub, home, *wishes, **variables)
    assert process.returncode == 0, process.stderr
    assert TOKEN not in process.stdout + process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def attempt(
    hub: Hub | str, home: Path, *wishes: dict[str, Any], **variables: str
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment(hub, home, **variables)}
    variables = {name: value for name, value in variables.items() if value}
    return subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(wishes)],
        env=variables,
        capture_output=True,
        text=True,
    )


def test_a_file_is_fetched_at_the_commit_of_its_revision_and_once(hub: Hub, tmp_path: Path) -> None:
    commit = hub.repositories["datasets/some/set"].commit
    pinned = {**WISH, "revision": commit, "sha256": sha256(FILES["effects_2b.pt"])}
    first, second, third = fetched(
        hub, tmp_path, WISH, {**WISH, "revision": "v1"}, pinned, HF_TOKEN=TOKEN
    )
    folder, names, record = first
    assert names == ["effects_2b.pt"]
    assert Path(folder, "effects_2b.pt").read_bytes() == FILES["effects_2b.pt"]
    assert record == {
        "repo": "some/set",
        "repo_type": "dataset",
        "revision": "main",
        "commit": commit,
        "file": "effects_2b.pt",
        "files": {
            "effects_2b.pt": {
                "sha256": sha256(FILES["effects_2b.pt"]),
                "bytes": len(FILES["effects_2b.pt"]),
            }
        },
    }
    assert second[2]["commit"] == third[2]["commit"] == commit
    assert hub.fetches("/effects_2b.pt") == 1
    assert [
        request.path for request in hub.asked if request.token and "/cdn/" in request.path
    ] == []
    assert all(
        request.token == f"Bearer {TOKEN}" for request in hub.asked if "/cdn/" not in request.path
    )


def test_of_a_folder_all_files_are_fetched_and_none_beside_it(hub: Hub, tmp_path: Path) -> None:
    (file,) = fetched(hub, tmp_path, {**WISH, "file": "layer_12/width_16k"})
    assert file[1] == ["params.npz"]
    assert hub.fetches("width_65k/params.npz") == 0
    (file,) = fetched(hub, tmp_path, {**WISH, "file": "layer_12"})
    assert file[1] == ["width_16k/params.npz", "width_65k/params.npz"]
    assert (Path(file[0]) / file[1][1]).read_bytes() == FILES["layer_12/width_65k/params.npz"]


def test_what_was_fetched_is_there_offline_and_nothing_is_asked(hub: Hub, tmp_path: Path) -> None:
    online = fetched(hub, tmp_path, WISH, {**WISH, "file": "layer_12/width_16k"})
    hub.asked.clear()
    unseen = [
        {**WISH, "file": "layer_12/width_65k"},
        {**WISH, "repo": "some/other"},
        {**WISH, "revision": "v1"},
    ]
    offline = fetched(
        hub, tmp_path, WISH, {**WISH, "file": "layer_12/width_16k"}, *unseen, HF_HUB_OFFLINE="1"
    )
    assert offline[:2] == online
    assert all(
        "is not in the cache, and HF_HUB_OFFLINE is set; fetch it once without it" in request
        for request in offline[2:]
    )
    assert hub.asked == []


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.fail(
        "/cdn/datasets/some/set/effects_2b.pt", Fault(cut_after=500_000), Fault(cut_after=100_000)
    )
    (file,) = fetched(hub, tmp_path, WISH)
    assert Path(file[0], "effects_2b.pt").read_bytes() == FILES["effects_2b.pt"]
    ranges = [request.range for request in hub.asked if "/cdn/" in request.path]
    assert len(ranges) == 3
    assert ranges[0] is None
    first, second = (int(str(request).removeprefix("bytes=").rstrip("-")) for request in ranges[1:])
    assert 0 < first <= 500_000 <= second <= 600_000  # what had arrived was not asked for again
    assert second > first


def test_a_busy_or_ill_hub_is_asked_again_when_it_says(hub: Hub, tmp_path: Path) -> None:
    fault = Fault(429, (("Retry-After", "1"),))
    hub.fail("/api/datasets/some/set", Fault(503), fault, Fault(500))
    hub.fail("/cdn/datasets/some/set/effects_2b.pt", Fault(502))
    start = time.monotonic()
    (file,) = fetched(hub, tmp_path, WISH)
    assert Path(file[0], "effects_2b.pt").read_bytes() == FILES["effects_2b.pt"]
    assert time.monotonic() - start > 1
    assert sum(request.path.startswith("/api/") for request in hub.asked) == 4


def test_what_cannot_be_fetched_is_one_sentence_with_what_to_do(hub: Hub, tmp_path: Path) -> None:
    digest = sha256(FILES["effects_2b.pt"])
    hub.add("some/busy", {"a.pt": b"a"})
    hub.add("some/broken", {"a.pt": b"a"})
    hub.fail("some/busy", *[Fault(429)] * 20)
    hub.fail("some/broken", *[Fault(500)] * 20)
    wishes: list[tuple[dict[str, Any], str]] = [
        (
            {"repo": "some/set"},
            f"some/set is no model repository on {hub.url}, or a private one; correct effects.published.repo or "
            "effects.published.repo_type, or set HF_TOKEN",
        ),
        ({**WISH, "revision": "v9"}, "some/set has no revision 'v9'; correct effects.published.revision"),
        (
            {**WISH, "file": "effects_9b.pt"},
            "some/set@main has no file or folder 'effects_9b.pt', but README.md, effects_2b.pt, "
            "layer_12/width_16k/params.npz, layer_12/width_65k/params.npz; correct effects.published.file",
        ),
        (
            {"repo": "some/gated", "file": "effects_2b.pt"},
            f"some/gated is gated; accept its terms on {hub.url}/some/gated and set HF_TOKEN",
        ),
        (
            {**WISH, "sha256": "0" * 64},
            f"effects_2b.pt of some/set@main has SHA-256 {digest}, and effects.published.sha256 says {'0' * 64}; name "
            "the revision that you mean, or correct the checksum",
        ),
        ({**WISH, "file": "layer_12", "sha256": digest}, None),
        ({"repo": "some/busy"}, f"{hub.url} asks to slow down (some/busy@main, 429); start again in some minutes, or "
            "set HF_TOKEN"),
        ({"repo": "some/broken"}, f"{hub.url} answered 500 to 5 attempts (some/broken@main); start again later"),
    ]  # fmt: skip
    said = fetched(hub, tmp_path, *(wish for wish, _ in wishes))
    for sentence, (_, expected) in zip(said, wishes, strict=True):
        key = (
            "effects.published.sha256: is one for 2 files"
            if expected is None
            else f"effects.published: {expected}"
        )
        assert sentence.startswith(key)
        assert "\n" not in sentence
        assert "Signature" not in sentence
    (refused,) = fetched(hub, tmp_path / "home", WISH, HF_TOKEN="hf_another")
    assert refused == (
        f"effects.published: {hub.url} refuses some/set@main to this token (401); set HF_TOKEN to one that may do "
        "this, or unset it; it says: Invalid credentials in Authorization header"
    )


def test_a_hub_out_of_reach_is_told(tmp_path: Path) -> None:
    (said,) = fetched("http://127.0.0.1:9", tmp_path, WISH)
    assert said.startswith(
        "effects.published: some/set@main cannot be fetched, since http://127.0.0.1:9 is out of reach"
    )
    assert said.endswith("or set HF_HUB_OFFLINE=1 to take it from the cache")


def test_bytes_that_are_not_those_of_the_checksum_are_fetched_again_or_refused(
    hub: Hub, tmp_path: Path
) -> None:
    (file,) = fetched(hub, tmp_path, WISH)
    blob = Path(file[0], "effects_2b.pt").resolve()
    damaged = bytearray(blob.read_bytes())
    damaged[1000] ^= 1
    blob.write_bytes(damaged)
    (file,) = fetched(hub, tmp_path, WISH)
    assert Path(file[0], "effects_2b.pt").read_bytes() == FILES["effects_2b.pt"]


def test_small_files_are_held_to_the_name_that_git_gives_them(hub: Hub, tmp_path: Path) -> None:
    content = FILES["README.md"]
    command = ["git", "hash-object", "--stdin"]
    by_git = (
        subprocess.run(command, input=content, capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )
    assert git_blob(content) == by_git
    (file,) = fetched(hub, tmp_path, {**WISH, "file": "README.md"})
    blob = Path(file[0], "README.md").resolve()
    assert blob.name == git_blob(content)
    blob.write_bytes(content.upper())
    (file,) = fetched(hub, tmp_path, {**WISH, "file": "README.md"})
    assert Path(file[0], "README.md").read_bytes() == content


def test_a_hub_whose_bytes_are_others_than_it_says_is_not_believed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_bytes(self: Any, path: str) -> bytes:
        return FILES["effects_2b.pt"][:-1] + b"?"

    monkeypatch.setattr("hub_server.Handler.of_cdn", other_bytes)
    (said,) = fetched(hub, tmp_path, WISH)
    assert said == (
        "effects.published: effects_2b.pt of some/set@main arrived, and not with the checksum that the hub names; "
        "start again, or name another revision"
    )


def test_what_does_not_fit_is_told_before_it_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: Any
) -> None:
    size = 10**15
    monkeypatch.setattr(
        "hub_server.described", lambda name, content: {"rfilename": name, "size": size, "lfs": None}
    )
    (said,) = fetched(hub, tmp_path, WISH)
    assert "some/set@main takes 1,000,000.0 GB, and the disk of" in said
    assert hub.fetches("/effects_2b.pt") == 0


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "does not fit on the disk of"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "does not fit on the disk of"),
        (PermissionError(errno.EACCES, "Permission denied"), "may not be written; set HF_HOME"),
        (
            OSError("Consistency check failed: file should be of size 9 but has size 4"),
            "did not arrive whole",
        ),
    ],
)
def test_what_the_disk_says_is_one_sentence(error: OSError, sentence: str) -> None:
    with (
        pytest.raises(SaeflowError, match=f"effects.published: some/set@v1 .*{sentence}"),
        told_in_one_sentence("effects.published", "some/set", "dataset", "v1"),
    ):
        raise error


def test_a_defect_of_ours_is_no_sentence() -> None:
    with pytest.raises(KeyError), told_in_one_sentence("effects.published", "some/set", "dataset"):
        raise KeyError("a defect")


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        ("X-Repo-Commit", "does not answer for some/set@main as a hub does"),
        ("ETag", "does not answer for some/set@main as a hub does"),
        ("the list of files", "does not say which files some/set@main has; check HF_ENDPOINT"),
        ("everything", "does not answer for some/set@main as a hub does"),
    ],
)
def test_a_mirror_or_a_login_page_in_the_hub_s_place_is_told(
    left_out: str, sentence: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, info = Handler.answer, Handler.info

    def lacking(
        self: Any, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        names = (left_out, f"X-Linked-{left_out.title()}")
        answer(
            self,
            status,
            body,
            {name: value for name, value in (headers or {}).items() if name not in names},
        )

    def described(self: Any, kind: str, repo: str, revision: str) -> None:
        if left_out == "everything":
            return self.answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})
        if left_out == "the list of files":
            return self.json({"id": repo, "sha": self.hub.repositories[f"{kind}/{repo}"].commit})
        return info(self, kind, repo, revision)

    monkeypatch.setattr(Handler, "answer", lacking)
    monkeypatch.setattr(Handler, "info", described)
    (said,) = fetched(hub, tmp_path, {**WISH, "file": "README.md"})
    assert said.startswith(f"effects.published: {hub.url} {sentence}")
    assert "HF_ENDPOINT" in said
    assert "\n" not in said


def test_the_hub_s_own_reason_is_passed_on_in_one_line(hub: Hub, tmp_path: Path) -> None:
    reason = "Access to this resource is disabled: the owner\x1b[2J has exceeded the storage quota"
    hub.fail("/api/datasets/some/set", Fault(403, (("X-Error-Message", reason),)))
    (said,) = fetched(hub, tmp_path, WISH)
    assert said.endswith(f"; it says: {reason}")


def test_a_proxy_whose_scheme_is_unknown_is_told(hub: Hub, tmp_path: Path) -> None:
    for proxy in ("socks://127.0.0.1:9/", "ftp://127.0.0.1:9/"):
        (said,) = fetched(hub, tmp_path, WISH, ALL_PROXY=proxy, NO_PROXY="")
        assert "since a proxy that the environment names is not understood" in said
        assert "\n" not in said


def test_a_name_that_leads_out_of_the_repository_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.add("some/hostile", {"../../../escaped.pt": b"a"})
    (said,) = fetched(hub, tmp_path, {"repo": "some/hostile"})
    assert "lies outside of it" in said
    assert not list(tmp_path.rglob("escaped.pt"))


def test_storage_that_is_out_of_reach_is_told_with_the_way_around_it() -> None:
    error = RuntimeError(
        "Data processing error: CAS service error : ReqwestMiddleware Error: Request failed"
    )
    with (
        pytest.raises(SaeflowError, match="set HF_HUB_DISABLE_XET=1 to fetch from the hub itself"),
        told_in_one_sentence("effects.published", "some/set", "dataset", "v1"),
    ):
        raise error
