"""Studies whose expensive stages are published: what they fetch, what is left to run, and what is
never asked twice."""

from __future__ import annotations

import json

import hub_server
import judge_server
import polars as pl
import pytest
import torch
from checkout import ROOT
from gemma_release import D_SAE, MODEL, NARROW, RELEASE, SCOPE, TEXT, publish
from snakemake_runs import Workflow
from studies import study_config

from saeflow.analyses.effects.io import read_approximation
from saeflow.analyses.steering.io import load_vector
from saeflow.artifacts import sha256
from saeflow.figures.figure import figures_of
from saeflow.kinds import read_any_study

pytestmark = pytest.mark.slow
STUDY = ROOT / "workflow/studies/gemma-2-2b.yaml"
SAE = "gemma-2-2b-res-16k"
METHODS = ["caa", "sae", "sae_ts", "pinverse", "rotation"]
SMALL = study_config("small-gemma")
GOALS = SMALL["steering"]["goals"]["names"]
MAP = f"results/gemma-2-2b/effects/{SAE}/approximator.safetensors"
CELLS = len(GOALS) * len(METHODS)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with hub_server.serving() as hub:
        hub.made = publish(hub, tmp_path_factory.mktemp("release"))
        yield hub


@pytest.fixture(scope="module")
def gemma(hub, tmp_path_factory):
    """The study, run to its tables and figures by its judge; tests must leave it as it is."""
    directory = tmp_path_factory.mktemp("gemma")
    study = Workflow(directory, SMALL, base=STUDY)
    with judge_server.serving() as url:
        study.overrides = {**SMALL, "calls": {"base_url": url, "backoff": 0.01}}
        study.env = {
            **hub_server.environment(hub, directory / "home", HF_TOKEN=hub_server.TOKEN),
            "OPENAI_API_KEY": judge_server.KEY,
        }
        study.jobs = study.run("evaluate", "plots", env=study.env)
        study.asked = list(hub.asked)
        yield study


def test_what_is_published_is_fetched_by_one_job_each_and_the_rest_is_run(gemma):
    drawn = {file.stem for file in (gemma.results / "figures").glob("*.png")}
    assert drawn == set(figures_of(read_any_study(STUDY, gemma.directory / "study.yaml")))
    once = [
        "fetch_text",
        "fetch_model",
        "fetch_sae",
        "fetch_effects",
        "fetch_approximator",
        "assess_approximator",
    ]
    once += [
        "cache_activations",
        "gather_activations",
        "measure_baseline",
        "choose_latents",
        "build_vectors",
    ]
    once += ["evaluate_sae", "summarise_saes", "measure_side_effects", "measure_divergence"]
    once += ["complete_prompts", "judge_completions"]
    once += ["summarise_scores", "evaluate", "plots"]
    several = {
        "write_corpus": 2,
        "draw_figure": len(drawn),
    }
    assert gemma.jobs == {**dict.fromkeys(once, 1), **several}


def test_every_file_is_sent_once_whatever_the_number_of_jobs(hub, gemma):
    sent = [
        request.path
        for request in gemma.asked
        if request.method == "GET" and not request.path.startswith("/api/")
    ]
    assert len(sent) == len(set(sent))
    assert {path.rpartition("/")[2] for path in sent if "/cdn/" in path} == {
        *("model.safetensors", "params.npz", "effects_2b.pt", "adapter_2b_layer_12.pt"),
        "train-00000-of-00001.parquet",
    }
    assert sum(request.path.startswith("/api/") for request in gemma.asked) == 5


def test_the_record_beside_every_artifact_names_the_commit_and_the_checksum(hub, gemma):
    records = {}
    for file in gemma.directory.glob("resources/published/**/published.json"):
        record = json.loads(file.read_text())
        records[record["repo"], record["file"]] = record
    assert set(records) == {
        *(
            (TEXT, None),
            (MODEL, None),
            (SCOPE, NARROW),
            (RELEASE, "effects_2b.pt"),
            (RELEASE, "adapter_2b_layer_12.pt"),
        )
    }
    for (repo, file), record in records.items():
        repository = hub.repositories[f"{record['repo_type']}s/{repo}"]
        assert record["commit"] == repository.commit
        base = f"{file.rpartition('/')[0]}/" if file and "/" in file else ""
        served = {
            name: hub_server.sha256(repository.files[base + name]) for name in record["files"]
        }
        assert {name: entry["sha256"] for name, entry in record["files"].items()} == served
    texts = [
        file for file in gemma.directory.rglob("*") if file.is_file() and "home" not in file.parts
    ]
    assert not [file for file in texts if hub_server.TOKEN.encode() in file.read_bytes()]


def test_vectors_are_built_from_the_published_map_by_the_papers_formula(hub, gemma):
    made = hub.made
    (file,) = gemma.directory.glob("resources/published/*/effects/*/approximator.safetensors")
    approximation, metadata = read_approximation(file)
    assert torch.equal(approximation.M, made["M"])
    assert metadata["published"]["repo"] == RELEASE
    target = (made["M"][:, 8392] + made["M"][:, 15769]).double()
    against = made["M"].double() @ made["b"].double()
    expected = target / target.norm() - against / against.norm()
    built = load_vector(gemma.results / "steering/french/sae_ts/vector.safetensors").vector
    torch.testing.assert_close(built.double(), expected / expected.norm(), rtol=0, atol=1e-6)
    weights = json.loads((gemma.results / "steering/french/latents.json").read_text())["latents"]
    assert weights == {"8392": 0.5, "15769": 0.5}


def test_the_published_map_is_held_to_effects_that_it_was_not_fitted_to(hub, gemma):
    metrics = json.loads((gemma.results / f"effects/{SAE}/metrics.json").read_text())
    assert metrics["rows"] == {"test": 100}
    effects = hub.made["effects"][-100:]
    noise = 100 * D_SAE * 0.2**2 / (effects - effects.mean(0)).square().sum()
    assert metrics["r2"] == pytest.approx(1 - float(noise), abs=1e-3)


def test_the_papers_table_comes_out(gemma):
    best = pl.read_parquet(gemma.results / "steering/best.parquet")
    assert set(best["goal"]) == {*GOALS, "average"}
    assert set(best["method"]) == set(METHODS)
    summary = pl.read_parquet(gemma.results / "steering/summary.parquet").filter(split="all")
    assert summary.height == CELLS * 3
    assert summary["missing"].sum() == 0


def test_a_second_run_runs_nothing_and_asks_nobody(hub, gemma):
    hub.asked.clear()
    assert gemma.run("evaluate", "plots", env=gemma.env) == {}
    offline = {**gemma.env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert gemma.run("evaluate", "plots", env=offline) == {}
    assert hub.asked == []


def test_to_compute_is_to_measure_and_to_fit(gemma):
    dry = ("--cores", "2", "--dry-run")
    computed = {
        "saes": {
            "wide": {"published": {"repo": SCOPE, "file": "wide/params.npz"}, "d_sae": 65_536}
        },
        "effects.source": "compute",
        "effects.vectors": {"sae": "wide", "range": [0, 1000]},
        "effects.approximator.source": "compute",
    }
    jobs = gemma.run(MAP, env=gemma.env, config=computed, args=dry)
    assert jobs == {
        "fetch_sae": 1,
        "fit_approximator": 1,
        "measure_effects": 8,
        "merge_effects": 1,
    }
    # Fitted to the published effects, which are there.
    jobs = gemma.run(
        MAP,
        env=gemma.env,
        config={"effects.approximator.source": "compute"},
        args=dry,
    )
    assert jobs == {"fit_approximator": 1}
    # Another source is another artifact: it is fetched, and what depends on it is made again.
    published = {
        "repo": RELEASE,
        "repo_type": "dataset",
        "file": "adapter_2b_layer_12.pt",
        "revision": "v2",
    }
    jobs = gemma.run(
        "evaluate",
        env=gemma.env,
        config={"effects.approximator.published": published},
        args=dry,
    )
    assert jobs["fetch_approximator"] == 1
    assert jobs["build_vectors"] == 1
    assert not {"fetch_model", "fetch_sae", "fetch_effects", "measure_baseline"} & set(jobs)


def test_our_own_is_taken_where_it_is_and_nothing_overwrites_the_other(hub, gemma, tmp_path):
    own = gemma.results / f"effects/{SAE}/effects.h5"
    (published,) = gemma.directory.glob("resources/published/*/effects/*/effects.h5")
    before = sha256(published)
    dry = ("--cores", "2", "--dry-run")
    own.write_bytes(published.read_bytes())
    try:
        jobs = gemma.run("plots", env=gemma.env, args=dry)
        assert "fetch_effects" not in jobs
        assert jobs["assess_approximator"] == 1  # its effects are others now
        insisting = {"effects.source": "fetch"}
        assert gemma.run("plots", env=gemma.env, config=insisting, args=dry) == {}
    finally:
        own.unlink()
    assert sha256(published) == before
    assert gemma.run("evaluate", "plots", env=gemma.env, args=dry) == {}
