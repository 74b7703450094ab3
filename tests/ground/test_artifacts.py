"""Files are whole or absent, whatever befalls their writing."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saeflow import artifacts, jobs
from saeflow.artifacts import CHECKSUMS, atomic, read_json, sha256, write_json
from saeflow.errors import SaeflowError

FULL = "the disk is full; make space and start again, finished files are kept"
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")


def names(folder: Path) -> list[str]:
    """Everything in a folder, dot-files too."""
    return sorted(os.listdir(folder))


def write_folder(path: Path, content: str) -> None:
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text(content)
        (temporary / content).touch()


def write_half(path: Path, error: BaseException) -> None:
    with atomic(path) as temporary:
        temporary.write_text("half")
        raise error


def write_to_full_disk(path: Path, write: Callable[[Path], object]) -> None:
    with atomic(path) as temporary:
        temporary.symlink_to("/dev/full")
        write(temporary)


def test_a_file_appears_whole_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent, "a rename is atomic only within a folder"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), OSError("odd"), SaeflowError("told")]
)
def test_an_exception_leaves_nothing_and_goes_on(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        write_half(tmp_path / "file", error)
    assert caught.value is error
    assert names(tmp_path) == []


def test_an_exception_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="bad"):
        write_half(path, ValueError("bad"))
    assert (names(tmp_path), path.read_text()) == (["file"], "old")
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert (names(tmp_path), path.read_text()) == (["file"], "new")


def test_an_exception_in_a_folder_leaves_nothing_and_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()

    def write() -> None:
        with atomic(tmp_path / "folder") as temporary:
            (temporary / "deep").mkdir(parents=True)
            (temporary / "link").symlink_to(tmp_path / "elsewhere")
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        write()
    assert names(tmp_path) == ["elsewhere"]
    assert names(tmp_path / "elsewhere") == ["precious"]


def test_a_folder_takes_the_place_of_an_older_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "sae"
    for content in ("first", "second", "third"):
        write_folder(path, content)
        assert names(tmp_path) == ["sae"]
        assert names(path) == sorted([CHECKSUMS, content, "weights"])
        assert (path / "weights").read_text() == content


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    write_folder(tmp_path / "sae", "first")
    assert names(tmp_path / "sae") == [CHECKSUMS, "first", "weights"]


def test_a_folder_that_cannot_be_moved_into_place_keeps_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "sae", os.replace
    write_folder(path, "first")

    def fails_once_the_old_is_aside(source: Path, target: Path) -> None:
        if source.suffix == ".part" and not path.exists():
            raise OSError(errno.EIO, "broken disk")
        replace(source, target)

    monkeypatch.setattr(artifacts.os, "replace", fails_once_the_old_is_aside)
    with pytest.raises(OSError, match="broken disk"):
        write_folder(path, "second")
    assert names(tmp_path) == ["sae"]
    assert names(path) == [CHECKSUMS, "first", "weights"]


WAIT_HALF_WRITTEN = """
import sys, time
from pathlib import Path
from saeflow.artifacts import atomic
with atomic(Path(sys.argv[1])) as temporary:
    if sys.argv[2] == "folder":
        temporary.mkdir()
        temporary /= "weights"
    temporary.write_text("half")
    print("half written", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path, kind: str
) -> None:
    def writer(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WAIT_HALF_WRITTEN, str(tmp_path / name), kind]
        started = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert started.stdout
        assert started.stdout.readline() == "half written\n"
        return started

    with writer("dead") as dead, writer("living") as living:
        dead.kill()
        dead.wait()
        assert len(names(tmp_path)) == 4, "both have a temporary file and a lock"
        artifacts._sweep.cache_clear()
        write_json(tmp_path / "other.json", 1)
        assert [name.split(".")[1] for name in names(tmp_path) if name.startswith(".")] == [
            "living",
            "living",
        ]
        living.communicate("")
    assert names(tmp_path) == ["living", "other.json"]


@needs_dev_full
def test_a_full_disk_is_one_sentence_and_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(SaeflowError) as caught:
        write_to_full_disk(path, lambda temporary: temporary.write_text("more than fits"))
    assert str(caught.value) == f"{path}: {FULL}"
    assert (names(tmp_path), path.read_text()) == (["file"], "old")


@needs_dev_full
def test_a_full_disk_under_polars_is_one_sentence(tmp_path: Path) -> None:
    import polars

    table = polars.DataFrame({"number": range(100_000)})
    with pytest.raises(SaeflowError, match="the disk is full"):
        write_to_full_disk(tmp_path / "table", table.write_parquet)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "free"),
    [
        # As raised on a full tmpfs by safetensors, polars, h5py, torch.save and numpy.save.
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), 0),
        (OSError("No space left on device (os error 28)"), 0),
        (OSError(errno.ENOSPC, "Can't synchronously write data"), 0),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), 0),
        (OSError("1000000 requested and 51168 written"), 0),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 10**9),
    ],
    ids=str,
)
def test_every_library_s_full_disk_is_one_sentence(
    error: Exception, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(SaeflowError, match="the disk is full"), atomic(tmp_path / "file"):
        raise error


def test_a_defect_is_not_blamed_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(KeyError), atomic(tmp_path / "file"):
        raise KeyError("key")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_one_sentence(code: int, tmp_path: Path) -> None:
    error = OSError(code, "no", str(tmp_path / ".file.part"))
    with pytest.raises(
        SaeflowError, match="may not be written; check the permissions of"
    ) as caught:
        write_half(tmp_path / "file", error)
    assert str(caught.value).startswith(f"{tmp_path / 'file'}: ")


def test_an_unreadable_input_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "no", "/elsewhere/input")


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a", tmp_path / "file" / "b" / "c"):
        with (
            pytest.raises(SaeflowError, match="a file stands where a folder must be"),
            atomic(path) as temporary,
        ):
            temporary.touch()
    with pytest.raises(SaeflowError, match="a file stands where a folder must be"):
        write_folder(tmp_path / "file", "first")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SaeflowError, match="a folder stands where the file must be"):
        write_json(tmp_path / "folder", {})
    assert names(tmp_path) == ["file", "folder"]


def test_read_only_files_in_a_folder_are_kept(tmp_path: Path) -> None:
    with atomic(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("fixed")
        (temporary / "file").chmod(0o444)
    assert (tmp_path / "folder" / "file").read_text() == "fixed"


def test_concurrent_writers_of_a_file_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(writer: int) -> None:
        with atomic(path) as temporary:
            for _ in range(50):
                with open(temporary, "a") as file:
                    file.write(f"{writer}\n")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(32)))
    lines = path.read_text().splitlines()
    assert (len(lines), len(set(lines))) == (50, 1)
    assert names(tmp_path) == ["file"]


def test_concurrent_writers_of_a_folder_leave_one_whole_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda writer: write_folder(tmp_path / "sae", f"writer-{writer}"), range(64)))
    assert names(tmp_path) == ["sae"]
    assert names(tmp_path / "sae") == sorted(
        [CHECKSUMS, "weights", (tmp_path / "sae" / "weights").read_text()]
    )


def test_a_killed_process_leaves_the_older_file_and_dot_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    program = f"""
import os
from pathlib import Path
from saeflow.artifacts import atomic
with atomic(Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert path.read_text() == "old"
    assert [name[0] for name in names(tmp_path)] == [".", ".", "f"], (
        "the half-written file and its lock"
    )


def test_sha256_of_known_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"")
    assert sha256(path) == hashlib.sha256().hexdigest()


def test_json_is_the_same_bytes_for_the_same_value(tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", {"b": 1, "a": [1.5, "é", None]})
    write_json(tmp_path / "two.json", {"a": [1.5, "é", None], "b": 1})
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert read_json(tmp_path / "one.json") == {"a": [1.5, "é", None], "b": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "three.json", {"loss": math.nan})
    assert names(tmp_path) == ["one.json", "two.json"]


def test_json_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match=r"absent\.json: no such file"):
        read_json(tmp_path / "absent.json")
    for content in (b'{"a": 1', b"", b"\xff\xfe"):
        (tmp_path / "torn.json").write_bytes(content)
        with pytest.raises(
            SaeflowError, match=r"is not JSON .*; if the workflow made torn.json, remove it"
        ):
            read_json(tmp_path / "torn.json")


@pytest.fixture
def job() -> Iterator[None]:
    """This process, as a command that has just begun."""
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    with jobs.job():
        time.sleep(0.02)
        yield


def written_by_another(path: Path, value: str) -> None:
    """Another process, which has the file written atomically."""
    line = "import sys; from saeflow.artifacts import write_json; from pathlib import Path\n"
    line += "write_json(Path(sys.argv[1]), sys.argv[2])"
    subprocess.run([sys.executable, "-c", line, str(path), value], check=True)


@pytest.mark.usefixtures("job")
def test_a_job_that_outlives_its_workflow_keeps_what_a_later_job_wrote(tmp_path: Path) -> None:
    written_by_another(tmp_path / "scores.json", "later")
    with pytest.raises(
        SaeflowError, match=r"scores\.json: another job has written it since this one began"
    ):
        write_json(tmp_path / "scores.json", "old")
    assert read_json(tmp_path / "scores.json") == "later"
    assert names(tmp_path) == ["scores.json"]


@pytest.mark.usefixtures("job")
def test_a_later_job_does_not_pass_an_old_one_s_file_for_its_own(tmp_path: Path) -> None:
    """The other order: the old job ends first; the later one fails, and is then started again."""
    write_json(tmp_path / "part.json", 1)
    write_json(tmp_path / "part.json", 2)
    assert read_json(tmp_path / "part.json") == 2, "its own files a job writes as often as it likes"
    written_by_another(tmp_path / "part.json", "old")
    with pytest.raises(SaeflowError, match="perhaps with other settings"):
        write_json(tmp_path / "part.json", 3)


def test_what_was_there_before_a_job_began_and_what_is_equal_are_replaced(
    tmp_path: Path, request: Any
) -> None:
    write_json(tmp_path / "before.json", "earlier")
    request.getfixturevalue("job")
    write_json(tmp_path / "before.json", "now")
    assert read_json(tmp_path / "before.json") == "now"
    written_by_another(tmp_path / "equal.json", "same")
    write_json(tmp_path / "equal.json", "same")


def test_a_process_has_begun_when_it_was_started_and_not_when_it_has_imported(
    tmp_path: Path,
) -> None:
    line = "import time; at = time.time(); time.sleep(0.2); import saeflow.jobs; "
    line += "print(at, saeflow.jobs.process_start())"
    before = time.time()
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    at, start = map(float, done.stdout.split())
    assert before - 0.05 <= start <= at + 0.05


@pytest.mark.usefixtures("job")
def test_an_empty_folder_is_nobody_s(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_folder(tmp_path / "model", "first")
    assert (tmp_path / "model/weights").read_text() == "first"


@pytest.mark.usefixtures("job")
def test_a_folder_that_a_later_job_wrote_is_kept_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "first")
    write_folder(tmp_path / "model", "second")
    jobs._own.clear()  # as if another process had written it
    with pytest.raises(SaeflowError, match="model: another job has written it"):
        write_folder(tmp_path / "model", "third")
    assert (tmp_path / "model/weights").read_text() == "second"
