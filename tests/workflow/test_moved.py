"""A finished study that was moved: what is run again, and how it is taken as it is."""

import os
import random
import shutil
import subprocess
import sys

import pytest
from snakemake_runs import Workflow
from studies import TINY

DRY = ("--cores", "2", "--dry-run")


def without_times(study):
    """As `cp -r`, git, zip and rsync without -t leave files: with new times, in any order."""
    places = [study.results, *study.results.rglob("*")]
    random.Random(0).shuffle(places)
    now = study.results.stat().st_mtime_ns
    for number, place in enumerate(places):
        os.utime(place, ns=(now + number * 10**6,) * 2, follow_symlinks=False)


def adopt(study, config):
    line = [
        sys.executable,
        "-m",
        "saeflow.cli.main",
        "adopt",
        str(study.results),
        str(study.base),
        str(config),
    ]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture
def moved(finished, tmp_path):
    """A copy of the finished study, without its times."""
    shutil.copytree(finished.directory, tmp_path, dirs_exist_ok=True, symlinks=True)
    study = Workflow(tmp_path, TINY)
    without_times(study)
    return study


def test_a_study_that_lost_its_times_makes_nothing_anew(moved):
    assert moved.run(args=DRY) == {}


def test_a_study_whose_results_lie_behind_a_link_makes_nothing_anew(moved, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "results"
    os.rename(moved.directory / "results", elsewhere)
    (moved.directory / "results").symlink_to(elsewhere)
    assert moved.run(args=DRY) == {}


def test_results_alone_are_adopted_once_files_and_config_are_compared(moved):
    shutil.rmtree(moved.directory / ".snakemake")
    assert moved.run(args=DRY) != {}
    config = moved.directory / "study.yaml"
    done = adopt(moved, config)
    assert done.returncode == 0, done.stderr
    assert moved.run(args=DRY) == {}


def test_what_is_damaged_or_was_made_by_another_config_is_not_adopted(moved):
    moved.command(config={"seed": 7})
    other = adopt(moved, moved.directory / "study.yaml")
    assert other.returncode == 1
    assert "config seed: 0 → 7" in other.stderr
    moved.command()
    vectors = moved.results / "steering/love/caa/vector.safetensors"
    whole = bytearray(vectors.read_bytes())
    whole[-1] ^= 1
    vectors.write_bytes(whole)
    times = {file: file.stat().st_mtime_ns for file in moved.results.rglob("*")}
    damaged = adopt(moved, moved.directory / "study.yaml")
    assert damaged.returncode == 1
    assert "vector.safetensors: is damaged" in damaged.stderr
    assert {file: file.stat().st_mtime_ns for file in moved.results.rglob("*")} == times
