"""Where the measured vectors come from decides what is measured again; one block can be measured by
hand."""

import json

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import save_file
from snakemake_runs import digests, saeflow
from studies import GOALS

from saeflow.analyses.effects.io import read_block
from saeflow.analyses.steering.io import load_vector
from saeflow.saes.io import load_sae


def with_file(path):
    return {"effects.vectors.kind": "file", "effects.vectors.path": str(path)}


@pytest.mark.slow
def test_a_file_of_vectors_is_an_input_and_a_wrong_one_costs_nothing_else(copied):
    path = copied.directory / "vectors.safetensors"
    rows = torch.nn.functional.normalize(
        torch.randn(30, 32, generator=torch.Generator().manual_seed(0)), dim=1
    )
    rows[25, 3] = float("nan")
    save_file({"vectors": rows}, path)
    before = digests(copied)
    failed = copied.attempt("effects", config=with_file(path))
    assert failed.returncode != 0
    assert f"{path}: vector 25 holds NaN or infinity" in failed.stdout + failed.stderr
    blocks = {f"effects/main/shards/block-000{number}.safetensors" for number in range(2)}
    kept = {name: digest for name, digest in before.items() if name not in blocks}
    assert kept.items() <= digests(copied).items()

    rows[25, 3] = 0.5
    save_file({"vectors": rows}, path)
    jobs = {"effects": 1, "measure_effects": 2, "merge_effects": 1, "fit_approximator": 1}
    assert copied.run("effects", config=with_file(path)) == jobs
    assert copied.run("effects", config=with_file(path), args=("--cores", "2", "-n")) == {}
    save_file({"vectors": rows.flip(0)}, path)
    assert copied.run("effects", config=with_file(path), args=("--cores", "2", "-n")) == jobs


def test_a_file_that_is_not_there_is_told_before_anything_runs(copied):
    done = copied.attempt(
        "effects", config=with_file(copied.directory / "absent"), args=("--cores", "2", "-n")
    )
    assert done.returncode != 0
    assert (
        "absent does not exist; correct the path or make the file first"
        in done.stdout + done.stderr
    )


def test_one_block_by_hand_is_the_workflow_s_to_the_bit(finished, tmp_path):
    results = finished.results
    study = yaml.safe_load((results / "config.yaml").read_text())
    done = saeflow(
        *(
            "effects",
            "measure",
            "--model",
            results / "models/tiny-lm",
            "--sae",
            results / "saes/main",
        ),
        *(
            "--corpus",
            results / "corpus/eval.safetensors",
            "--hook",
            study["hook"],
            "--seed",
            study["seed"],
        ),
        *("--manifest", results / "activations/tiny-lm" / study["hook"] / "manifest.json"),
        *(
            "--baseline",
            results / "effects/main/baseline.safetensors",
            "--settings",
            json.dumps(study["effects"]["measurement"]),
            "--vectors",
            json.dumps(study["effects"]["vectors"]),
        ),
        *(
            "--source",
            results / "saes/main/sae_weights.safetensors",
            "--block",
            1,
            "--output",
            tmp_path / "block",
        ),
    )
    assert done.returncode == 0, done.stderr
    (by_hand, _), (by_workflow, _) = (
        read_block(path)
        for path in (tmp_path / "block", results / "effects/main/shards/block-0001.safetensors")
    )
    assert torch.equal(by_hand.effects, by_workflow.effects)
    assert by_hand.vector_id.tolist() == list(range(24, 48))


def test_vectors_for_planted_latents_stand_beside_those_for_the_chosen_ones(copied):
    chosen = pl.read_parquet(copied.results / "steering/targets.parquet")
    assert chosen["latent"].n_unique() == len(GOALS) == len(chosen)
    methods = ["caa", "sae", "sae_planted", "pinverse", "pinverse_planted"]
    vector = "results/tiny/steering/love/{}/vector.safetensors"
    planted = {"steering.vectors.methods": methods}
    jobs = copied.run(*map(vector.format, methods), config=planted)
    assert jobs == {"build_vectors": 1}
    recovery = pl.read_parquet(copied.results / "saes/main/recovery.parquet")
    best = recovery.filter(label="topic", feature="love").row(0, named=True)
    assert best["detectors"][0] == best["latent_f1"]
    built = {method: load_vector(copied.directory / vector.format(method)) for method in methods}
    W_dec = load_sae(copied.results / "saes/main").W_dec
    for method, latent in (
        ("sae", chosen.filter(goal="love")["latent"].item()),
        ("sae_planted", best["latent_f1"]),
    ):
        assert built[method].metadata["targets"] == {str(latent): 1.0}
        torch.testing.assert_close(
            built[method].vector, torch.nn.functional.normalize(W_dec[latent], dim=0)
        )


@pytest.mark.slow
def test_steering_without_effects_builds_what_needs_none_and_shows_it(copied):
    methods = ["caa", "sae", "random"]
    config = {"effects": None, "steering.vectors.methods": methods}
    jobs = copied.run("steering", "results/tiny/report/index.html", config=config)
    assert jobs["build_vectors"] == len(GOALS)
    assert not [rule for rule in jobs if "effects" in rule or "approximator" in rule]
    best = pl.read_parquet(copied.results / "steering/best.parquet")
    assert set(best["method"]) == set(methods)
