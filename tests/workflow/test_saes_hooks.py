"""SAEs that read elsewhere than where the study steers: cached, trained and measured at their own hook."""

import json

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"]
TRAIN = {"d_sae": 48, "k": 4, "tokens": 4_096, "batch_size": 512}
CONFIG = {"saes": {"main": {"train": TRAIN}, "late": {"train": TRAIN, "hook": HOOKS[1]}}}


def test_every_sae_is_trained_and_measured_at_its_own_hook(workflow):
    wanted = [f"results/tiny/saes/{name}/metrics.json" for name in CONFIG["saes"]]
    jobs = workflow.run(*wanted, config=CONFIG)
    assert (jobs["cache_activations"], jobs["gather_activations"], jobs["train_sae"]) == (2, 2, 2)
    explained = {}
    for name, hook in zip(CONFIG["saes"], HOOKS, strict=True):
        folder = workflow.results / "saes" / name
        assert json.loads((folder / "cfg.json").read_text())["metadata"]["hook_name"] == hook
        explained[name] = json.loads((folder / "metrics.json").read_text())["explained_variance"]
    assert all(share > 0.3 for share in explained.values()), explained
