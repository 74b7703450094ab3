"""What the studies for real models would run, without a hub."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT
from snakemake_runs import Workflow

from saeflow.kinds import plan_of, read_any_study
from saeflow.planning.stages import total

WIDE = "gemma-2-9b-res-131k"
FETCHED = {
    "fetch_text": 1,
    "fetch_model": 1,
    "fetch_sae": 1,
    "fetch_effects": 1,
    "fetch_approximator": 1,
    "assess_approximator": 1,
}
COMPUTED = {
    "fetch_text": 1,
    "fetch_model": 1,
    "fetch_sae": 1,
    "measure_effects": 192,
    "merge_effects": 1,
    "fit_approximator": 1,
}
STAGES = {
    "train_model",
    "train_sae",
    "measure_effects",
    "merge_effects",
    "fit_approximator",
    *FETCHED,
}


@pytest.mark.parametrize(
    ("study", "change", "expected"),
    [
        ("gemma-2-2b", {}, FETCHED),
        ("gemma-2-9b", {}, FETCHED),
        (
            "gemma-2-9b",
            {"effects": {"source": "compute", "vectors": {"sae": WIDE, "range": [0, 32_000]}}},
            {**FETCHED, "measure_effects": 250, "merge_effects": 1},
        ),
        ("gpt2-small", {}, COMPUTED),
    ],
)
def test_a_study_plans_the_expensive_stages_only_where_nobody_published_them(
    study, change, expected, tmp_path
):
    if "effects" in change:
        published = {
            "repo": "google/gemma-scope-9b-pt-res",
            "file": "layer_12/width_131k/average_l0_96/params.npz",
        }
        change = {**change, "saes": {WIDE: {"published": published, "d_sae": 131_072}}}
    workflow = Workflow(tmp_path, change, base=ROOT / f"workflow/studies/{study}.yaml")
    jobs = workflow.run("evaluate", "plots", args=("--cores", "2", "--dry-run"))
    planned = {rule: count for rule, count in jobs.items() if rule in STAGES}
    if "effects" in change:  # another SAE gives the vectors
        assert planned.pop("fetch_sae") == 2
        assert planned.pop("fetch_effects", 0) == 0
        expected = {
            name: count
            for name, count in expected.items()
            if name not in ("fetch_sae", "fetch_effects")
        }
    assert planned == expected
    assert jobs["summarise_scores"] == 1
    assert jobs["complete_prompts"] == (7 if study == "gpt2-small" else 9)


def test_a_study_of_chess_is_planned_with_the_jobs_that_it_runs(tmp_path):
    asked = {"engine": {}, "blunders": {}, "fine_tune": {}}
    workflow = Workflow(tmp_path, asked, base=ROOT / "workflow/studies/chess.yaml")
    jobs = workflow.run("all", args=("--cores", "2", "--dry-run"))
    study = read_any_study(ROOT / "workflow/studies/chess.yaml", over=asked)
    planned = total(plan_of(study, tmp_path).stages).jobs
    assert planned == sum(jobs.values()) - 2  # without the target and the record of the study


def test_the_page_on_slurm_names_every_rule_that_asks_for_a_device():
    heading = re.compile(
        r'^ *(?:rule (\w+):|rule:\n +name:\n +f"([^"{]+))(.*?)(?=^ *rule\b|\Z)', re.M | re.S
    )
    rules = [
        part
        for file in (ROOT / "rules").glob("*.smk")
        for part in heading.findall(file.read_text())
    ]
    asking = {name or prefix.rstrip("_") for name, prefix, text in rules if "gpu=1" in text}
    page = (ROOT / "docs/howto-slurm.md").read_text()
    assert asking - set(re.findall(r"`(\w+?)_?(?:<\w+>)?`", page)) == set()
    assert {"train_model", "train_saes", "intervene"} <= asking
