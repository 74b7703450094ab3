"""Runs the real Snakefile in a fresh working directory, as a user would."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from checkout import ROOT
from studies import CONFIGS, changed

from saeflow.figures.figure import figures_of
from saeflow.kinds import read_any_study


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
        file.write_text(yaml.safe_dump(changed(self.overrides, config or {})))
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


def figures():
    """The figures of the tiny study, by name."""
    return figures_of(read_any_study(ROOT / "config.yaml", CONFIGS / "tiny.yaml"))


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


def digests(study):
    """SHA-256 of every result but logs, timings and what the last config declares; what killed jobs left half written is removed
    by those after."""
    return {
        str(file.relative_to(study.results)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(study.results.rglob("*"))
        if file.is_file()
        and not {"logs", "benchmarks", "checkpoints"} & set(file.relative_to(study.results).parts)
        and file.name not in {".snakemake_timestamp", ".settings.json"}
    }


def saeflow(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "saeflow.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment(), "NO_COLOR": "1", "COLUMNS": "120"},
    )
