"""What a profile says of how jobs are done: devices of one training, and how decode steps are run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from jobs import Job, jobs_of
from safetensors.torch import load_file
from studies import study_config

from saeflow import devices

STUDY = study_config("on-a-gpu")
RESULTS = Path("results/on-a-gpu")


def given(job: Job, option: str) -> str:
    """What an option of a job's command line was given."""
    return job.arguments[job.arguments.index(option) + 1]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process in the working directory that has asked for no device."""
    monkeypatch.setenv(devices._GRANTED, "")
    monkeypatch.delenv(devices._GRANTED)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("alone")
def test_a_profile_shares_the_latents_of_an_sae_over_processes_which_train_the_same(
    tmp_path: Path,
) -> None:
    shared = ["--set-resources", "train_sae:gpu=2", "train_sae:processes=2"]
    for job in jobs_of(STUDY, tmp_path, [f"{RESULTS}/saes/topk/cfg.json"], shared):
        job.run()
    assert (job.rule, given(job, "--processes")) == ("train_sae", "2")
    trained = RESULTS / "saes/topk"
    shutil.move(trained, "by-two")
    place = job.arguments.index("--processes") + 1
    job._replace(arguments=[*job.arguments[:place], "1", *job.arguments[place + 1 :]]).run()
    by_one, by_two = (
        load_file(folder / "sae_weights.safetensors") for folder in (trained, Path("by-two"))
    )
    for name, weights in by_one.items():
        torch.testing.assert_close(by_two[name], weights, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("alone")
def test_a_profile_says_how_decode_steps_are_run(tmp_path: Path) -> None:
    target = f"{RESULTS}/steering/food/sae_ts/completions.parquet"
    rules = ("measure_effects", "complete_prompts")
    recorded = ["--set-resources", *(f"{rule}:decode=recorded" for rule in rules)]
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
    plain = {job.rule: job for job in jobs_of(STUDY, before, [target])}
    changed = {job.rule: job for job in jobs_of(STUDY, after, [target], recorded)}
    for rule in rules:
        assert given(plain[rule], "--decode") == "eager"
        assert given(changed[rule], "--decode") == "recorded"
