"""The cache in the workflow: several hooks from one job, and what is damaged is made again."""

import hashlib
import json

import pytest

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"]
FEW_STEPS = {"d_sae": 48, "k": 4, "tokens": 2_048, "batch_size": 512}
CONFIG = {
    "activations": {"blocks_per_shard": 256},
    "hooks": HOOKS[1:],
    "saes": {"main": {"train": FEW_STEPS}},
}


@pytest.mark.slow
def test_a_damaged_shard_is_found_told_and_made_again(copied):
    sae = "results/tiny/saes/main/cfg.json"
    jobs = copied.run("activations", sae, config=CONFIG)
    assert jobs["cache_activations"] == 2
    assert jobs["gather_activations"] == 2
    first, second = (copied.results / "activations/tiny-lm" / hook for hook in HOOKS)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (first, second)]
    assert [manifest["rows"] for manifest in manifests] == [512 * 31] * 2
    assert [shard["text"] for shard in manifests[0]["shards"]] == [
        shard["text"] for shard in manifests[1]["shards"]
    ]

    shard = first / "shard-00001.parquet"
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 4] ^= 255
    shard.write_bytes(damaged)
    for file in (copied.results / "saes/main").iterdir():
        file.unlink()
    failed = copied.attempt(sae, config=CONFIG)
    assert failed.returncode == 1
    log = (copied.results / "logs/train_sae/main.log").read_text().splitlines()
    assert [
        line.partition(": ")[2].partition(" (")[0] for line in log if line.startswith("saeflow: ")
    ] == [f"results/tiny/activations/tiny-lm/{HOOKS[0]}/shard-00001.parquet: is damaged"]
    assert (
        "shard-00001.parquet and manifest.json are removed, start again and what is missing is "
        "made again" in log[-1]
    )
    assert not shard.exists()

    jobs = copied.run(sae, config=CONFIG)
    assert jobs["cache_activations"] == jobs["gather_activations"] == jobs["train_sae"] == 1
    assert "train_model" not in jobs
    assert hashlib.sha256(shard.read_bytes()).digest() == hashlib.sha256(whole).digest()
    assert json.loads((first / "manifest.json").read_text()) == manifests[0]
    # The job wrote the other hook's shard again, too: to the same bytes, so nothing is made of it
    # anew.
    assert json.loads((second / "manifest.json").read_text()) == manifests[1]
    assert copied.run("activations", sae, config=CONFIG) == {}
