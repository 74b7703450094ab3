"""The workflow as a module of another one, as the workflow catalogue deploys it, and in places of
odd names."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from checkout import ROOT
from snakemake_runs import environment, planned_jobs
from studies import GOALS, TINY

FOLDER = f'"{ROOT}/Snakefile"'


@pytest.fixture
def deployed(tmp_path):
    """A function that runs a workflow whose module is read from a Snakefile."""

    def run(snakefile, *args):
        (tmp_path / "workflow").mkdir(exist_ok=True)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(TINY))
        (tmp_path / "workflow/Snakefile").write_text(
            'configfile: "config.yaml"\n\n\nmodule saeflow:\n'
            f"    snakefile:\n        {snakefile}\n    config:\n        config\n\n\n"
            "use rule * from saeflow as saeflow_*\n"
        )
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, args)]
        cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**environment(), **cache}
        )

    return run


def test_as_a_module_of_a_folder_the_workflow_plans_all_and_its_jobs_find_the_package(
    deployed, tmp_path
):
    plan = deployed(FOLDER, "--dry-run")
    assert plan.returncode == 0, plan.stdout[-2000:] + plan.stderr[-2000:]
    assert planned_jobs(plan)["saeflow_judge_completions"] == 2
    done = deployed(FOLDER, "results/tiny/config.yaml")
    assert done.returncode == 0, done.stderr[-2000:]
    assert yaml.safe_load((tmp_path / "results/tiny/config.yaml").read_text())["study"] == "tiny"


def test_as_a_module_of_a_git_repository_the_workflow_plans_all(deployed, tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("Snakefile", "rules", "workflow", "envs"):
        subprocess.run(["cp", "-r", ROOT / name, repository / name], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for step in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"], ["tag", "v1"]):
        subprocess.run(["git", *step], cwd=repository, check=True)
    plan = deployed(f'gitfile("{repository}", path="Snakefile", tag="v1")', "--dry-run")
    assert plan.returncode == 0, plan.stdout[-2000:] + plan.stderr[-2000:]
    assert planned_jobs(plan)["saeflow_judge_completions"] == 2


def test_goals_are_sought_where_snakemake_works_and_then_in_the_checkout(workflow):
    shipped = workflow.attempt("evaluate", args=("--cores", "2", "--dry-run", "--printshellcmds"))
    assert f"{ROOT}/workflow/goals/tales/london.yaml" in shipped.stdout
    own = workflow.directory / "workflow/goals/tales"
    own.mkdir(parents=True)
    for name in GOALS:
        (own / f"{name}.yaml").write_text((ROOT / f"workflow/goals/tales/{name}.yaml").read_text())
    mine = workflow.attempt("evaluate", args=("--cores", "2", "--dry-run", "--printshellcmds"))
    assert str(ROOT / "workflow/goals") not in mine.stdout
    assert "--goal workflow/goals/tales/london.yaml" in mine.stdout


def test_a_checkout_below_a_folder_of_an_odd_name_runs_its_own_code(tmp_path, workflow):
    checkout = tmp_path / "My 'Drive' $(touch PWNED) [x]" / "saeflow"
    checkout.mkdir(parents=True)
    for name in ("Snakefile", "rules", "workflow", "envs", "src", "profiles", "config.yaml"):
        subprocess.run(["cp", "-r", ROOT / name, checkout / name], check=True)
    main = checkout / "src/saeflow/cli/main.py"
    main.write_text(
        main.read_text().replace(
            "def run() -> None:", 'print("own code")\n\n\ndef run() -> None:', 1
        )
    )
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text('print("site of the user")\n')
    workflow.root = checkout
    workflow.run("results/tiny/config.yaml", env={"PYTHONPATH": str(site)})
    log = (workflow.results / "logs/record_study.log").read_text()
    assert "own code" in log
    assert "site of the user" in log
    assert not list(tmp_path.rglob("PWNED"))
