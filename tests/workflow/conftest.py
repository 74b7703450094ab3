"""The tiny study, not yet run and finished."""

import fcntl
import json
import os
import shutil

import pytest
from snakemake_runs import Workflow
from studies import TINY


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
