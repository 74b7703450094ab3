"""A study on a real SLURM, through the profile that is shipped, and all that befalls jobs there."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from checkout import ROOT
from cluster import GPUS, Cluster, lacking
from snakemake_runs import Workflow, digests

from saeflow.analyses.steering.io import load_vector

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(lacking(False)), reason=str(lacking(False))),
]
needs_accounting = pytest.mark.skipif(bool(lacking(True)), reason=str(lacking(True)))
# What is made of all goals and methods, as the choice of latents is, or tells which they are.
OF_THE_CONFIG = (
    r"config|provenance|steering/[^/]+$|steering/love/(?!contrast)[^/]+$|steering/love/caa/vector"
)
# One goal and method of the study that was run here; its levels follow each other ten seconds
# apart.
SLURM = {"steering.goals.names": ["love"], "steering.vectors.methods": ["caa"]}
PROFILE = (
    *(
        "--profile",
        ROOT / "profiles/slurm",
        "--slurm-partition-config",
        ROOT / "profiles/slurm/partitions.yaml",
    ),
    *("--slurm-init-seconds-before-status-checks", "8", "--latency-wait", "5"),
)


class Watched:
    """A run through SLURM, and what is done to its jobs meanwhile."""

    def __init__(self, cluster: Cluster, workflow: Workflow, *targets: str) -> None:
        self.cluster = cluster
        self.log = workflow.directory / "snakemake.log"
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                workflow.command(*targets, config=SLURM, args=PROFILE),
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env={
                    **cluster.environment,
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                },
                start_new_session=True,
            )

    def jobs(self, rule: str, state: str) -> list[str]:
        """The numbers of a rule's jobs in a state."""
        lines = [
            line.split()
            for line in self.cluster.ask("squeue", "-h", "-t", "all", "-o", "%i %T %k").splitlines()
        ]
        return [
            line[0]
            for line in lines
            if line[1] == state and re.search(rf"(^|_){rule}(_|$)", line[2])
        ]

    def wait_for(self, rule: str, state: str = "RUNNING", seconds: float = 240) -> str:
        """The number of a rule's job, once there is one in that state."""
        end = time.monotonic() + seconds
        while not (matching := self.jobs(rule, state)):
            assert self.process.poll() is None, (
                f"ended before {rule} was {state}:\n{self.log.read_text()[-3000:]}"
            )
            assert time.monotonic() < end, f"no job of {rule} was {state} in {seconds:.0f} s"
            time.sleep(0.2)
        return matching[0]

    def finish(self) -> str:
        """What Snakemake said, once it has come to a good end."""
        code = self.process.wait(timeout=900)
        assert code == 0, self.log.read_text()[-5000:]
        return self.log.read_text()


@pytest.fixture
def place():
    """A folder for a cluster; a socket's path may have 107 letters, and those of tests are long."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def watched():
    """Starts runs, and interrupts those that a failed test left behind."""
    runs = []

    def start(*arguments):
        runs.append(Watched(*arguments))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()


def commands(job: str, words: str) -> list[int]:
    """Processes of a SLURM job whose command line holds these words."""
    commands_run = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            mine = f"SLURM_JOB_ID={job}".encode() in (folder / "environ").read_bytes().split(b"\0")
            if mine and words in line and "snakemake" not in line:
                commands_run.append(int(folder.name))
    return commands_run


@pytest.mark.timeout(1500)
def test_a_study_survives_what_befalls_jobs_and_ends_as_on_one_machine(
    finished, workflow, place, watched
):
    with Cluster(place) as cluster:
        run = watched(cluster, workflow, "evaluate")
        cancelled = run.wait_for("train_model")
        cluster.ask("scancel", cancelled)

        killed = run.wait_for("cache_activations")
        end = time.monotonic() + 60
        while not (pids := commands(killed, "activations cache")) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert pids

        run.wait_for("train_sae")
        node = cluster.ask("sinfo", "-h", "-o", "%n")
        cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        run.wait_for("measure_baseline", "PENDING")
        time.sleep(2)
        assert not run.jobs("measure_baseline", "RUNNING"), "a drained node takes no job"
        cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")

        preempted = run.wait_for("measure_effects")
        cluster.ask("scontrol", "requeue", preempted)
        log = run.finish()

    assert re.search(rf"'{cancelled}' failed, SLURM status is: 'CANCELLED'", log)
    assert re.search(rf"'{killed}' failed, SLURM status is: 'FAILED'", log)
    assert preempted not in re.findall(r"SLURM-job '(\d+)' failed", log), (
        "what is requeued has not failed"
    )
    for rule in (
        "train_model",
        "cache_activations",
        "train_sae",
        "measure_effects",
        "complete_prompts",
    ):
        for file in (workflow.results / "logs" / rule).iterdir():
            seen = [line for line in file.read_text().splitlines() if line.startswith("device ")]
            assert seen in [[f"device {number} of {number}"] for number in range(GPUS)], file
    for rule in ("fit_approximator", "build_vectors", "merge_effects"):
        assert all(
            "device" not in file.read_text()
            for file in (workflow.results / "logs" / rule).iterdir()
        )
    kept = list((workflow.directory / "results/slurm-logs").rglob("*.log"))
    assert len(kept) > 15, "what SLURM's jobs said lies beside the results"

    local, remote = digests(finished), digests(workflow)
    alike = [name for name in remote if not re.match(OF_THE_CONFIG, name)]
    assert len(alike) > 15
    assert {name: remote[name] for name in alike} == {name: local[name] for name in alike}
    here, there = (
        load_vector(study.results / "steering/love/caa/vector.safetensors")
        for study in (finished, workflow)
    )
    assert here.vector.equal(there.vector)
    for summary in ("summary", "best"):
        assert (workflow.results / f"steering/{summary}.parquet").is_file()


@needs_accounting
@pytest.mark.timeout(300)
@pytest.mark.parametrize("status", ["squeue", "sacct"])
def test_with_accounting_either_way_of_asking_works(status, workflow, place):
    wanted = "results/tiny/corpus/eval.safetensors"
    with Cluster(place, accounting=True) as cluster:
        env = {"SLURM_CONF": cluster.environment["SLURM_CONF"]}
        args = (
            *PROFILE,
            "--slurm-status-command",
            status,
            "--default-resources",
            "slurm_account=test",
            "mem_mb=700",
        )
        assert workflow.run(wanted, args=args, env=env) == {"write_corpus": 1}
        states = cluster.ask("sacct", "-n", "-X", "-o", "State,Partition").split()
    assert states == ["COMPLETED", "cpu"]
