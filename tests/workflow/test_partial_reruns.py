"""What is run again when something changed: the jobs that Snakemake schedules are counted."""

import json
import os
import resource
import shutil
import subprocess
import time

import hub_server
import polars as pl
import pytest
import yaml
from checkout import ROOT
from judge_server import KEY, serving, stats
from snakemake_runs import Workflow, digests, figures, planned_jobs
from studies import COMPLETIONS, TINY
from studies import GOALS as GOAL_NAMES
from studies import METHODS as METHOD_NAMES

DRAWN = figures().values()
FIGURES = len(DRAWN)
# Those that show every goal; the others show models, SAEs, latents and effects.
GOAL_FIGURES = sum(figure.tables[0].startswith("steering/") for figure in DRAWN)
DRY = ("--cores", "2", "--dry-run")
GOALS, METHODS = len(GOAL_NAMES), len(METHOD_NAMES)
PARTS = ("completions", "divergence", "scores", "side_effects", "vectors")
SECONDS_FOR_A_THOUSAND_SHARDS = 15


def test_nothing_changed_nothing_runs(copied):
    assert copied.run() == {}


def test_deleted_figures_are_redrawn_and_nothing_else(copied):
    figures = copied.results / "figures"
    figures.rename(figures.with_name("elsewhere"))
    assert copied.run(args=DRY) == {"all": 1, "draw_figure": FIGURES, "write_report": 1}
    figures.with_name("elsewhere").rename(figures)
    for name in ("pareto", "lens_moments"):
        for file in figures.glob(f"{name}.*"):
            file.unlink()
    (
        copied.results / "models/tiny-lm/model.safetensors"
    ).unlink()  # figures are drawn from tables alone
    assert copied.run("plots") == {"draw_figure": 2, "plots": 1}


def test_a_plotting_option_redraws_figures_only(copied):
    jobs = copied.run(config={"figures": {"dpi": 90}}, args=DRY)
    assert jobs == {"all": 1, "draw_figure": FIGURES, "record_study": 1, "write_report": 1}


def test_a_goal_added_chooses_the_latents_of_all_goals_anew(copied):
    """Each is chosen against the texts of the others, and no two get the same."""
    three = {"steering.goals": {"names": ["london", "love", "anger"]}}
    assert copied.run(config=three, args=DRY) == {
        "all": 1,
        "build_vectors": 3,
        "choose_latents": 1,
        "complete_prompts": 3,
        "draw_figure": GOAL_FIGURES,
        "judge_completions": 3,
        "measure_divergence": 3,
        "measure_side_effects": 3,
        "record_study": 1,
        "summarise_scores": 1,
        "write_report": 1,
    }


@pytest.mark.slow
def test_a_method_added_computes_itself_alone_and_the_rest_is_as_if_all_were_computed(copied):
    """The job of a goal takes what it kept of the other methods, to the bit."""
    before = modified(copied)
    four = {"steering.vectors.methods": ["caa", "sae_ts", "random", "sae"]}
    assert copied.run("steering", config=four, args=DRY) == {
        "build_vectors": GOALS,
        "complete_prompts": GOALS,
        "judge_completions": GOALS,
        "measure_divergence": GOALS,
        "measure_side_effects": GOALS,
        "steering": 1,
        "summarise_scores": 1,
    }
    copied.run("steering", config=four)
    after = modified(copied)
    assert {name for name in after if name not in before} == {
        f"{goal}/{kind}/sae.parquet" for goal in GOAL_NAMES for kind in PARTS
    }
    assert {name: after[name] for name in before} == before
    said = (copied.results / "logs/complete_prompts/love.log").read_text()
    kept = [f"kept from an earlier run: {method}" for method in METHOD_NAMES]
    assert [line for line in said.splitlines() if line in kept] == kept
    reused = digests(copied)
    shutil.rmtree(copied.results / "checkpoints/steering/love")
    again = ("--cores", "2", "--forcerun", "build_vectors")
    assert copied.run("steering", config=four, args=again)["complete_prompts"] == GOALS
    assert set(modified(copied)) == set(after), "all of love is computed again"
    assert digests(copied) == reused


def test_a_damaged_part_is_computed_again(copied):
    part = copied.results / "checkpoints/steering/love/completions/caa.parquet"
    whole, others = part.read_bytes(), modified(copied)
    part.write_bytes(whole[: len(whole) // 2])
    (copied.results / "steering/love/caa/completions.parquet").unlink()
    before = digests(copied)
    file = "results/tiny/steering/love/caa/completions.parquet"
    assert copied.run(file) == {"complete_prompts": 1}
    assert part.read_bytes() == whole
    del others["love/completions/caa.parquet"]
    assert others.items() <= modified(copied).items()
    assert digests(copied).items() >= before.items()


def modified(study):
    """When each finished part was written, by its name."""
    folder = study.results / "checkpoints/steering"
    return {
        str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*.parquet")
    }


@pytest.fixture
def clone(copied, tmp_path_factory):
    """The finished study, run from a copy of the code that may be edited."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "Snakefile", root)
    for folder in ("rules", "workflow", "src", "profiles", "envs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    copied.root = root
    return copied


def test_a_fresh_checkout_of_the_same_commit_makes_nothing_anew(clone):
    assert clone.run(args=DRY) == {}


def test_an_edited_comment_in_the_effects_stage_reruns_nothing(clone):
    for edited in (
        "src/saeflow/analyses/effects/measure.py",
        "src/saeflow/analyses/effects/command.py",
        "rules/effects.smk",
    ):
        file = clone.root / edited
        file.write_text(f"{file.read_text()}\n# an afterthought\n")
    assert clone.run(args=DRY) == {}


def test_words_of_a_goal_are_read_by_its_judge_alone(clone):
    file = clone.root / "workflow/goals/tales/love.yaml"
    goal = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**goal, "words": ["heart"], "criterion": "It is of love."}))
    jobs = clone.run("steering", args=DRY)
    assert jobs == {"judge_completions": 1, "summarise_scores": 1, "steering": 1}
    file.write_text(yaml.safe_dump({**goal, "positive": [*goal["positive"], "He was in love."]}))
    jobs = clone.run("steering", args=DRY)
    assert jobs["choose_latents"] == 1
    assert jobs["build_vectors"] == GOALS


def test_a_bound_that_changes_no_result_reruns_nothing(copied):
    assert "measure_effects" not in copied.run(config={"calls": {"concurrency": 3}}, args=DRY)


@pytest.mark.slow
def test_another_judge_scores_anew_and_an_earlier_one_is_not_asked_again(copied, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as url:

        def judged_by(model):
            calls = {"base_url": url, "backoff": 0.01, "price": {"input": 1, "output": 1}}
            return {"steering.judge": {"kind": "openai", "model": model}, "calls": calls}

        scored = {"judge_completions": GOALS, "summarise_scores": 1, "evaluate": 1}
        assert copied.run("evaluate", config=judged_by("first")) == scored
        first = scores(copied)
        asked = stats(url)["answered"]
        completions = GOALS * METHODS * len(COMPLETIONS["scales"]) * COMPLETIONS["samples"]
        assert 0 < asked < 2 * completions, (
            "the unsteered texts of all methods are the same, and asked about once"
        )

        everything = copied.run(config=judged_by("second"), args=DRY)
        assert everything["judge_completions"] == GOALS
        assert set(everything) == {
            *(
                "all",
                "record_study",
                "judge_completions",
                "summarise_scores",
                "draw_figure",
                "write_report",
            )
        }
        assert copied.run("evaluate", config=judged_by("second")) == scored
        both = stats(url)["answered"]
        assert both > 1.5 * asked, (
            "another judge is asked about everything; two jobs at once may ask the same"
        )

        assert copied.run("evaluate", config=judged_by("first")) == scored
        assert stats(url)["answered"] == both, "what the first judge said is in the ledger"
    assert (
        scores(copied)
        .select("completion_id", "criterion", "score")
        .equals(first.select("completion_id", "criterion", "score"))
    )


def scores(study):
    return pl.concat(
        [
            pl.read_parquet(file)
            for file in sorted(study.results.glob("steering/*/*/scores.parquet"))
        ]
    )


def test_a_thousand_shards_are_planned_in_seconds(tmp_path):
    study = Workflow(tmp_path, TINY)
    few = {"d_sae": 1000, "k": 4, "tokens": 32_768, "batch_size": 512}
    config = {"saes": {"main": {"train": few}}, "effects.vectors.block_size": 1}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    # A process of its own, whose time is counted.
    done = subprocess.run(
        study.command(config=config, args=DRY), capture_output=True, text=True, cwd=ROOT
    )
    jobs = planned_jobs(done)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    assert jobs["measure_effects"] == 1000
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    # Of processor time, which a busy machine leaves as it is; it takes one core.
    assert used < SECONDS_FOR_A_THOUSAND_SHARDS, f"{used:.1f} s of CPU, {seconds:.1f} s"


def test_a_command_gets_ten_thousand_shards(tmp_path):
    """Linux takes no argument of 128 KiB or more, and a job's whole command would be one."""
    study = Workflow(tmp_path, TINY)
    few = {"d_sae": 10_000, "k": 4, "tokens": 32_768, "batch_size": 512}
    config = {"saes": {"main": {"train": few}}, "effects.vectors.block_size": 1}
    blocks = tmp_path / "results/tiny/effects/main/shards"
    blocks.mkdir(parents=True)
    for number in range(10_000):
        (blocks / f"block-{number:04d}.safetensors").touch()
    merging = tmp_path / "bin/saeflow"
    merging.parent.mkdir()
    merging.write_text("#!/bin/sh\necho $# > count\ntouch results/tiny/effects/main/effects.h5\n")
    merging.chmod(0o755)
    # `--no-hooks`: the command that sums up the benchmarks is none of this one's
    only = ("--cores", "1", "--allowed-rules", "merge_effects", "--no-hooks")
    env = {"PATH": f"{merging.parent}{os.pathsep}{os.environ['PATH']}"}
    assert study.run("results/tiny/effects/main/effects.h5", config=config, args=only, env=env) == {
        "merge_effects": 1
    }
    words_beside_the_blocks = len(
        ["effects", "merge", "--dtype", "float32", "--output", "effects.h5"]
    )
    assert int((tmp_path / "count").read_text()) == 10_000 + words_beside_the_blocks


@pytest.mark.slow
def test_gpu_jobs_run_two_at_a_time_on_devices_of_their_own(copied):
    """The effects' blocks again, and all else that computes on a device below them, with three
    pretended devices."""
    shutil.rmtree(copied.results / "effects/main/shards")
    args = ("--cores", "4", "--resources", "gpu=2", "--forcerun", "measure_effects")
    jobs = copied.run("effects", env={"SAEFLOW_DEVICES": "0,1,2"}, args=args)
    assert jobs["measure_effects"] == 2
    logs = sorted((copied.results / "logs/measure_effects").glob("*.log"))
    devices = [
        line for log in logs for line in log.read_text().splitlines() if line.startswith("device ")
    ]
    assert len(devices) == 2
    assert all(line.endswith(" of 0, 1, 2") and line.count(",") == 2 for line in devices)


def test_a_study_is_published_only_where_the_config_says_so(copied):
    """The target `publish`, twice: it lists what it would upload, then uploads it to a hub."""
    listed = copied.run("publish", config={"publish": {"repo": "me/tiny"}})
    assert listed == {"record_study": 1, "publish": 1, "publish_artifacts": 1}
    record = json.loads((copied.results / "publish/record.json").read_text())
    assert record["commit"] is None
    with hub_server.serving() as hub:
        env = hub_server.environment(hub, copied.directory / "home", HF_TOKEN=hub_server.TOKEN)
        copied.run("publish", config={"publish": {"repo": "me/tiny", "upload": True}}, env=env)
        repository = hub.repositories["models/me/tiny"]
    uploaded = json.loads((copied.results / "publish/record.json").read_text())
    assert uploaded["commit"] == repository.commit
    assert set(repository.files) == set(record["files"]) == set(uploaded["files"])
    assert {"README.md", "effects/main/effects.h5", "saes/main/sae_weights.safetensors"} <= set(
        repository.files
    )
    logs = list((copied.results / "logs").rglob("publish_artifacts*"))
    assert logs
    assert not any(hub_server.TOKEN in log.read_text() for log in logs)
