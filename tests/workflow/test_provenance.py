"""Where results come from is written in them, what stages took beside them, and what differs can be
asked."""

import hashlib
import importlib.metadata
import json
import shutil
import subprocess

import h5py
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from checkout import ROOT
from safetensors import safe_open
from snakemake_runs import saeflow
from studies import changed

from saeflow.analyses import Study
from saeflow.analyses.steering.io import SteeringVector, load_vector, save_vector
from saeflow.artifacts import read_json, write_sealed_json
from saeflow.config.digests import settings_digests
from saeflow.provenance import differing_key, settings_of


def test_the_study_s_record_holds_what_it_takes_to_run_it_again(finished):
    record = json.loads((finished.results / "provenance.json").read_text())
    study = Study.model_validate(yaml.safe_load((finished.results / "config.yaml").read_text()))
    assert (
        record["config"]
        == hashlib.sha256(study.model_dump_json(exclude={"calls"}).encode()).hexdigest()
    )
    assert record["seed"] == 0
    for package in ("torch", "snakemake", "polars", "tokenizers", "safetensors"):
        assert record["distributions"][package] == importlib.metadata.version(package)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode == 0:
        assert record["commit"].removesuffix("+dirty") == head.stdout.strip()
    assert {"machine", "python", "processor", "cores", "devices", "hub"} <= record.keys()


def origin(file):
    """The provenance in a file's own metadata."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="numpy") as opened:
            return json.loads(opened.metadata()["provenance"])
    if file.suffix == ".h5":
        with h5py.File(file) as opened:
            return json.loads(opened.attrs["provenance"])
    if file.suffix == ".json":
        return json.loads(file.read_text())["provenance"]
    metadata = pq.read_metadata(file).metadata
    if b"saeflow" in metadata:
        return json.loads(metadata[b"saeflow"])["provenance"]
    return json.loads(metadata[b"provenance"])


def test_every_table_and_tensor_tells_where_it_comes_from(finished):
    made = [
        file
        for kind in ("parquet", "safetensors", "h5")
        for file in finished.results.rglob(f"*.{kind}")
    ]
    made = [file for file in made if not {"benchmarks", "checkpoints"} & set(file.parts)]
    made += [
        finished.results / "steering/love/latents.json",
        finished.results / "saes/main/metrics.json",
    ]
    made += [finished.results / "activations/tiny-lm/blocks.0.hook_resid_post/manifest.json"]
    assert len(made) > 40
    for file in made:
        read_origin = origin(file)
        assert read_origin["packages"]["torch"] == importlib.metadata.version("torch"), file
        assert read_origin["device"] == "cpu"
    block = origin(finished.results / "effects/main/shards/block-0000.safetensors")
    command = json.loads(
        (finished.results / "benchmarks/measure_effects/main.0000.jsonl")
        .read_text()
        .splitlines()[-1]
    )
    assert command["s"] > 0
    assert block["options"] == {"dtype": "float32", "seed": 0}
    assert " Measurement.samples=" in block["settings"]


def test_every_file_tells_the_settings_that_the_config_has(finished):
    """What the jobs compare is no empty promise: of each stage, some file tells its section."""
    digests = settings_digests(
        Study.model_validate(yaml.safe_load((finished.results / "config.yaml").read_text()))
    )
    sections = set()
    for file in finished.results.rglob("*"):
        if file.is_file() and not {"logs", "benchmarks", "report"} & set(file.parts):
            sections |= {key.section for key in settings_of(file)}
            assert differing_key(file, digests) is None, file
    assert sections >= {
        *("Activations", "Approximator", "Completions", "Corpus", "Judge", "Measurement"),
        *("ModelTraining", "SAETraining", "SteeringVectors", "Summary", "Targets"),
    }


@pytest.mark.slow
def test_a_file_of_a_killed_run_is_noticed_by_its_reader_and_made_anew_once_removed(copied):
    """Snakemake itself finds the file in order, as its own record is that of the later job."""
    file = copied.results / "steering/love/caa/completions.parquet"
    early = file.read_bytes()
    longer = changed(copied.overrides, {"steering.completions.new_tokens": 10})
    scores = "results/tiny/steering/love/caa/scores.parquet"
    assert copied.run(scores, config=longer) == {"complete_prompts": 1, "judge_completions": 1}
    late = file.read_bytes()
    file.write_bytes(early)
    assert copied.run(scores, config=longer, args=("-n",)) == {"judge_completions": 1}
    done = copied.attempt(scores, config=longer)
    assert done.returncode != 0
    log = (copied.results / "logs/judge_completions/love.log").read_text()
    assert "completions.parquet: was made with another steering.completions.new_tokens than" in log
    assert file.read_bytes() == early
    file.unlink()
    assert copied.run(scores, config=longer) == {"complete_prompts": 1, "judge_completions": 1}
    assert file.read_bytes() == late


def test_the_stages_table_adds_up_what_snakemake_measured(finished):
    table = pl.read_parquet(finished.results / "benchmarks/stages.parquet")
    jobs = {row["rule"]: row["jobs"] for row in table.to_dicts()}
    assert jobs == {rule: count for rule, count in finished.jobs.items() if rule != "all"}
    lines = [
        json.loads(file.read_text().splitlines()[-1])
        for file in (finished.results / "benchmarks/complete_prompts").glob("*.jsonl")
    ]
    row = table.row(by_predicate=pl.col("rule") == "complete_prompts", named=True)
    assert row["seconds"] == pytest.approx(sum(line["s"] for line in lines))
    assert row["longest_seconds"] == pytest.approx(max(line["s"] for line in lines))
    assert row["peak_mb"] == pytest.approx(max(line["max_rss"] for line in lines))
    assert (finished.results / "benchmarks/stages.csv").is_file()


def test_equal_studies_do_not_differ(finished, copied):
    done = saeflow("diff", finished.results, copied.results)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("no difference in config, versions and results\n")


def test_what_differs_is_named_with_its_size(finished, copied):
    results = copied.results
    config = yaml.safe_load((results / "config.yaml").read_text())
    config["steering"]["completions"]["samples"], config["figures"]["dpi"] = 16, 90
    (results / "config.yaml").write_text(yaml.safe_dump(config))
    record = read_json(results / "provenance.json")
    record["packages"]["torch"] = "1.0"
    write_sealed_json(results / "provenance.json", record)
    vector = load_vector(results / "steering/love/caa/vector.safetensors")
    moved = vector.vector.clone()
    moved[3] += 0.25
    save_vector(
        results / "steering/love/caa/vector.safetensors", SteeringVector(moved, vector.metadata)
    )
    scores = pl.read_parquet(results / "steering/love/caa/scores.parquet")
    altered = scores.with_columns(
        pl.when(pl.int_range(pl.len()) < 5).then(0.125).otherwise(pl.col("score")).alias("score")
    )
    altered.write_parquet(results / "steering/love/caa/scores.parquet")
    with h5py.File(results / "effects/main/effects.h5", "r+") as file:
        file["effects"][2, 7] += 1.5
    (results / "steering/london/latents.json").unlink()
    (results / "steering/extra.csv").write_text("a\n1\n")
    shutil.rmtree(results / "logs")

    done = saeflow("diff", finished.results, results)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    expected = (scores["score"] - altered["score"]).abs().max()
    differing = (scores["score"] != altered["score"]).sum()
    assert set(lines) == {
        "config steering.completions.samples: 8 → 16",
        "config figures.dpi: 120 → 90",
        f"provenance packages.torch: {importlib.metadata.version('torch')} → 1.0",
        "steering/love/caa/vector.safetensors: tensor vector: 1 of 32 numbers differ, by at most "
        f"0.25 (the largest is {np.abs(vector.vector.numpy()).max():.3g})",
        f"steering/love/caa/scores.parquet: column score: {differing} of {len(scores)} values "
        f"differ, by at most {expected:.3g}",
        next(
            line
            for line in lines
            if "tensor effects: 1 of 2304 numbers differ, by at most 1.5 " in line
        ),
        f"steering/london/latents.json: only in {finished.results}",
        f"steering/extra.csv: only in {results}",
    }


def test_a_folder_that_is_no_study_is_one_sentence(finished, tmp_path):
    done = saeflow("diff", finished.results, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "holds no config.yaml; name the folder of a study, as results/tales"
    )
