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

from saeflow.analyses import Study
from saeflow.analyses.steering.io import SteeringVector, load_vector, save_vector
from saeflow.artifacts import read_json, write_sealed_json


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
    made = [file for file in made if "benchmarks" not in file.parts]
    made += [
        finished.results / "steering/love/latents.json",
        finished.results / "saes/main/metrics.json",
    ]
    made += [finished.results / "activations/tiny-lm/blocks.0.hook_resid_post/manifest.json"]
    assert len(made) > 40
    for file in made:
        found = origin(file)
        assert found["packages"]["torch"] == importlib.metadata.version("torch"), file
        assert found["device"] == "cpu"
    block = origin(finished.results / "effects/main/shards/block-0000.safetensors")
    command = json.loads(
        (finished.results / "benchmarks/measure_effects/main.0000.jsonl")
        .read_text()
        .splitlines()[-1]
    )
    assert command["s"] > 0
    assert block["told"]["seed"] == "0"
    assert block["told"]["dtype"] == "float32"
    assert len(block["told"]["settings"]) == 16


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
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_what_differs_is_named_with_its_size(finished, copied):
    results = copied.results
    config = yaml.safe_load((results / "config.yaml").read_text())
    config["steering"]["samples"], config["figures"]["dpi"] = 16, 90
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
    changed = scores.with_columns(
        pl.when(pl.int_range(pl.len()) < 5).then(0.125).otherwise(pl.col("score")).alias("score")
    )
    changed.write_parquet(results / "steering/love/caa/scores.parquet")
    with h5py.File(results / "effects/main/effects.h5", "r+") as file:
        file["effects"][2, 7] += 1.5
    (results / "steering/london/latents.json").unlink()
    (results / "steering/extra.csv").write_text("a\n1\n")
    shutil.rmtree(results / "logs")

    done = saeflow("diff", finished.results, results)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    expected = (scores["score"] - changed["score"]).abs().max()
    differing = (scores["score"] != changed["score"]).sum()
    assert set(lines) == {
        "config steering.samples: 8 → 16",
        "config figures.dpi: 120 → 90",
        f"provenance packages.torch: {importlib.metadata.version('torch')} → 1.0",
        "steering/love/caa/vector.safetensors: tensor vector: 1 of 32 numbers differ, by at most "
        "0.25 "
        f"(the largest is {np.abs(vector.vector.numpy()).max():.3g})",
        f"steering/love/caa/scores.parquet: column score: {differing} of {len(scores)} values "
        "differ, "
        f"by at most {expected:.3g}",
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
