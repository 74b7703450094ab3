"""A sweep in the workflow: one job trains all its SAEs, and each is what it is alone."""

import json

import pytest
import torch

from saeflow.saes.io import load_sae

TRAIN = {"d_sae": 48, "k": 4, "tokens": 4_096, "batch_size": 512}
SWEPT = {"saes": {"main": {"train": TRAIN, "sweep": {"k": [2, 4]}}}}
FILES = ["cfg.json", "sae_weights.safetensors", "training.parquet"]


@pytest.mark.slow
def test_one_job_trains_a_sweep_and_each_member_is_measured(copied):
    members = ["main-k-2", "main-k-4"]
    wanted = [f"results/tiny/saes/{name}/metrics.json" for name in members]
    jobs = copied.run(*wanted, config=SWEPT)
    assert jobs["train_saes_main"] == 1
    assert "train_sae" not in jobs
    assert jobs["evaluate_sae"] == 2
    for name, k in zip(members, (2, 4), strict=True):
        assert all((copied.results / "saes" / name / file).is_file() for file in FILES)
        metrics = json.loads((copied.results / "saes" / name / "metrics.json").read_text())
        assert metrics["l0"] <= k
        assert {
            "recovered_mean",
            "explained_variance_se",
            "planted_f1",
            "decoder_cosines",
        } <= metrics.keys()
        assert metrics["predicted"] == metrics["rows"] == metrics["tokens"] - metrics["blocks"]
    assert not (copied.results / "checkpoints/saes/main.pt").exists()
    assert copied.run(*wanted, config=SWEPT) == {}

    alone = {"saes": {"main": {"train": TRAIN}}}
    assert copied.run("results/tiny/saes/main/cfg.json", config=alone)["train_sae"] == 1
    swept, single = (load_sae(copied.results / "saes" / name) for name in ("main-k-4", "main"))
    assert torch.equal(swept.W_dec, single.W_dec)
