"""Every process has its own devices: leased by lock, given up by the kernel, never shared."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

from saeflow import devices
from saeflow.errors import SaeflowError

# Leases, says which devices it sees and when, works for a while, says when it ends.
WORKER = """
import sys, time
from saeflow.devices import lease
import os
lease(int(sys.argv[1]))
assert "torch" not in sys.modules
print("got", os.environ["CUDA_VISIBLE_DEVICES"], time.monotonic(), flush=True)
time.sleep(float(sys.argv[2]))
print("end", time.monotonic(), flush=True)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no lock files, no devices and no SLURM."""
    for name in (
        "CUDA_VISIBLE_DEVICES",
        "SLURM_JOB_ID",
        "SAEFLOW_DEVICES",
        "SAEFLOW_DEVICE_GRANTED",
    ):
        monkeypatch.setenv(name, "")  # first, so that it is taken away again at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def start() -> Iterator[object]:
    """Starts workers, and ends those that a failed test left behind."""
    workers: list[subprocess.Popen[str]] = []

    def started(count: int, seconds: float, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(count), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        )
        workers.append(process)
        return process

    yield started
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.communicate()


def seen(process: subprocess.Popen[str]) -> tuple[list[str], float, float]:
    """What a worker saw: its devices, and from when to when."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    got, end = (line.split() for line in out.splitlines())
    return got[1].split(","), float(got[2]), float(end[1])


def test_no_two_processes_are_ever_on_one_device(start) -> None:  # type: ignore[no-untyped-def]
    workers = [start(count, 0.4, SAEFLOW_DEVICES="0,1,2") for count in (1, 1, 2, 1, 3, 1, 2, 1)]
    devices = [seen(worker) for worker in workers]
    assert [len(names) for names, _, _ in devices] == [1, 1, 2, 1, 3, 1, 2, 1]
    for number, (names, begin, end) in enumerate(devices):
        assert set(names) <= {"0", "1", "2"}
        for others, other_begin, other_end in devices[:number]:
            if begin < other_end and other_begin < end:
                assert not set(names) & set(others), "two at a time on one device"


def test_a_killed_holder_s_device_is_free_at_once(start) -> None:  # type: ignore[no-untyped-def]
    holder = start(1, 60, SAEFLOW_DEVICES="7")
    assert holder.stdout.readline().startswith("got 7")
    waiting = start(1, 0, SAEFLOW_DEVICES="7")
    assert "waiting for a free device among 7" in waiting.stderr.readline()
    assert waiting.poll() is None
    killed = time.monotonic()
    os.kill(holder.pid, signal.SIGKILL)
    names, begin, _ = seen(waiting)
    assert names == ["7"]
    assert 0 < begin - killed < 5


def test_devices_of_two_slurm_jobs_have_the_same_numbers_and_are_others(start) -> None:  # type: ignore[no-untyped-def]
    holder = start(1, 60, SLURM_JOB_ID="11", CUDA_VISIBLE_DEVICES="0")
    assert holder.stdout.readline().startswith("got 0 ")
    assert seen(start(1, 0, SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES="0"))[0] == ["0"]
    assert holder.poll() is None


def test_steps_of_one_slurm_job_share_out_what_it_was_given(start) -> None:  # type: ignore[no-untyped-def]
    holder = start(1, 60, SLURM_JOB_ID="11", CUDA_VISIBLE_DEVICES="2,5")
    assert holder.stdout.readline().startswith("got 2 ")
    assert seen(start(1, 0, SLURM_JOB_ID="11", CUDA_VISIBLE_DEVICES="2,5"))[0] == ["5"]
    assert holder.poll() is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "3,1"}, ["3", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932,MIG-41/1/0"}, ["GPU-8932", "MIG-41/1/0"]),
        ({"SAEFLOW_DEVICES": "0, 1"}, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "SAEFLOW_DEVICES": "0,1"}, ["1"]),
        ({"SLURM_JOB_ID": "5", "SAEFLOW_DEVICES": "0,1"}, []),
    ],
)
def test_what_the_environment_says_of_devices_is_respected(
    environment: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert devices.present() == expected


def test_device_files_are_counted_as_cuda_counts_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["nvidia3", "nvidia5", "nvidiactl", "nvidia-uvm", "nvidia-caps"]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: (self / name for name in files))
    assert devices.present() == ["0", "1"]


def test_without_devices_nothing_is_leased_and_nothing_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    assert not devices.granted()
    assert devices.lease(2) == []
    assert devices.granted()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_process_started_by_a_holder_takes_no_further_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAEFLOW_DEVICES", "0,1")
    assert devices.lease() == ["0"]
    assert devices.lease() == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    os.close(devices._held.pop())


def test_more_devices_than_there_are_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEFLOW_DEVICES", "0,1")
    with pytest.raises(devices.SaeflowError, match=r"3 were asked for and there are 2 \(0, 1\)"):
        devices.lease(3)


def test_every_rule_that_needs_a_device_calls_a_command_that_leases_one() -> None:
    import typer.main

    from saeflow.cli.main import app

    top, leasing = typer.main.get_command(app), 0
    for file in sorted((ROOT / "rules").glob("*.smk")):
        rules = re.split(r"^ *rule\b[^\n]*:\n", file.read_text(), flags=re.M)[1:]
        for text in rules:
            called = re.search(
                r"saeflow ([\w-]+) ([\w-]+)", text if "saeflow " in text else file.read_text()
            )
            assert called, f"{file.name}: {text[:40]}"
            command = top.commands[called[1]]  # type: ignore[attr-defined]
            callback = getattr(command, "commands", {}).get(called[2], command).callback
            leases = "use_device" in inspect.getsource(inspect.unwrap(callback))
            asked = bool(re.search(r"gpu=(1|0 if \w+ else 1)", text))
            assert leases == asked, f"{file.name}: saeflow {called[1]} {called[2]}"
            leasing += leases
    assert leasing, "no rule needs a device"


def test_a_link_in_place_of_the_lease_folder_is_refused_and_nothing_behind_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, temporary = tmp_path / "victim", tmp_path / "planted"
    victim.mkdir(mode=0o700)
    temporary.mkdir()
    (temporary / "saeflow-devices").symlink_to(victim)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("SAEFLOW_DEVICES", "0")
    with pytest.raises(SaeflowError, match="is a link or no folder"):
        devices.lease(1)
    assert victim.stat().st_mode & 0o777 == 0o700
    assert not list(victim.iterdir())
