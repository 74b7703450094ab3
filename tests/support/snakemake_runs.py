"""Runs the real Snakefile in a fresh working directory, as a user would."""

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from checkout import ROOT
from studies import CONFIGS, changed
from told_times import digest

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
        command, own = self.command(*targets, **options), env or {}
        variables = {**environment(), **own}
        if self.root == ROOT and "PYTHONPATH" not in own and "--profile" not in command:
            return forked(command, ROOT, variables)
        return subprocess.run(command, capture_output=True, text=True, cwd=self.root, env=variables)

    def run(self, *targets, env=None, **options):
        """Run Snakemake; return how many jobs each rule was given."""
        done = self.attempt(*targets, env=env, **options)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return planned_jobs(done)


# Most of the time of a small run is Snakemake's imports. A process makes them once, and forks
# itself for each run.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "saeflow.kinds"])


def forked(command, folder, variables):
    """`python -m snakemake …` of this checkout's workflow, run in a process that has imported it.

    Args:
        command: all its words.
        folder: where it is given.
        variables: its environment.
    """
    with tempfile.TemporaryDirectory() as place:
        said = [Path(place, stream) for stream in ("stdout", "stderr")]
        process = FORKS.Process(target=_snakemake, args=(command, folder, variables, said))
        process.start()
        try:
            process.join()
        finally:
            process.kill()
        out, err = (file.read_text() for file in said)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


def _snakemake(command, folder, variables, said):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for stream, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = command[2:]
    from snakemake.cli import main

    main()


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
        str(file.relative_to(study.results)): digest(file)
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
