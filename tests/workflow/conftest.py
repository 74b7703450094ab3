"""Runs the real Snakefile in a fresh working directory, as a user would."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

# Every stage of the default study, as small as it can be and still do its work.
TINY = {
    "study": "tiny",
    "corpus": {"context": 32, "tokens": {"model": 24_576, "sae": 16_384, "eval": 4_096}},
    "model": {
        "name": "tiny-lm",
        "train": {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_mlp": 64},
    },
    "hook": "blocks.0.hook_resid_post",
    "activations": {"blocks_per_shard": 256},
    "saes": {"main": {"train": {"d_sae": 48, "k": 4, "tokens": 32_768, "batch_size": 512}}},
    "effects": {
        "block_size": 24,
        "prompts": ["The"],
        "samples": 4,
        "baseline_samples": 16,
        "new_tokens": 8,
        "scale": {"tokens": 512, "steps": 4},
    },
    "goals": {"names": ["london", "love"]},
    "steering": {
        "methods": ["caa", "sae_ts", "random"],
        "scales": [0.0, 0.5, 1.0],
        "samples": 8,
        "new_tokens": 8,
    },
    "summary": {"bootstrap": 100},
}


class Workflow:
    """One working directory and the runs in it."""

    def __init__(self, directory, overrides, base=ROOT / "config.yaml"):
        self.directory = Path(directory)
        self.overrides = overrides
        self.base = base
        self.root = ROOT

    @property
    def results(self):
        return self.directory / "results" / self.overrides["study"]

    def command(self, *targets, config=None, args=("--cores", "2")):
        file = self.directory / "study.yaml"
        file.write_text(yaml.safe_dump({**self.overrides, **(config or {})}))
        command = [
            sys.executable,
            "-m",
            "snakemake",
            *targets,
            "--snakefile",
            self.root / "Snakefile",
        ]
        command += [
            "--directory",
            self.directory,
            "--configfile",
            *([self.base] if self.base else []),
            file,
            *args,
        ]
        return list(map(str, command))

    def start(self, *targets, **options):
        """Start a run in its own process group and come back at once."""
        return subprocess.Popen(
            self.command(*targets, **options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.root,
            env=environment(),
            start_new_session=True,
        )

    def attempt(self, *targets, env=None, **options):
        """Run Snakemake to its end, good or bad."""
        return subprocess.run(
            self.command(*targets, **options),
            capture_output=True,
            text=True,
            cwd=self.root,
            env={**environment(), **(env or {})},
        )

    def run(self, *targets, env=None, **options):
        """Run Snakemake; return how many jobs each rule was given."""
        done = self.attempt(*targets, env=env, **options)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return planned_jobs(done)


def environment():
    """The environment of a user who activated this interpreter's virtual environment."""
    # Tests of commands run in this very process, which may have leased devices; no job is to
    # believe it shares them.
    inherited = {
        name: value for name, value in os.environ.items() if name != "SAEFLOW_DEVICE_GRANTED"
    }
    return {**inherited, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def planned_jobs(done):
    log = done.stdout + done.stderr  # the plan: stdout of a dry run, stderr of a real one
    table = log.partition("Job stats:")[2].partition("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


@pytest.fixture
def workflow(tmp_path):
    """The tiny study in an empty working directory."""
    return Workflow(tmp_path, TINY)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The tiny study, run to its end once for all of pytest's processes; tests must leave it as it
    is."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    study, jobs = Workflow(shared / "finished", TINY), shared / "finished.json"
    with open(shared / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jobs.exists():
            study.directory.mkdir(exist_ok=True)
            jobs.write_text(json.dumps(study.run()))
    study.jobs = json.loads(jobs.read_text())
    return study


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished study, with what Snakemake remembers of it."""
    shutil.copytree(finished.directory, tmp_path, dirs_exist_ok=True, symlinks=True)
    return Workflow(tmp_path, TINY)
