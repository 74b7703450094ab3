"""SAEs, transcoders and crosscoders of one study: each is cached, trained and measured at what it
reads and writes."""

import json

import polars as pl
import pytest
import torch

from saeflow.saes.io import load_crosscoder, load_sae

pytestmark = pytest.mark.slow
READ, WRITTEN, LATE = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"
STEERED = "blocks.0.hook_resid_post"
TRAIN = {"d_sae": 48, "k": 4, "tokens": 32_768, "batch_size": 512}
BATCH = {**TRAIN, "architecture": "batchtopk"}
SAES = {
    "main": {"train": TRAIN},
    "late": {"train": TRAIN, "hook": WRITTEN},
    "mlp": {"train": TRAIN, "hook": READ, "target": WRITTEN},
    "layers": {"train": {**TRAIN, "architecture": "standard"}, "hooks": [STEERED, LATE]},
    "same": {"train": BATCH, "sweep": {"k": [2, 4]}, "models": ["tiny-lm", "twin"]},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study with all of them, and a second model that is trained just as the first is."""
    from snakemake_runs import Workflow
    from studies import TINY

    study = Workflow(tmp_path_factory.mktemp("kinds"), TINY)
    twin = {
        "name": "twin",
        "train": {**TINY["model"]["train"], "learning_rate": 6.0e-3},
    }  # as in config.yaml
    config = {"saes": SAES, "models": [twin], "activations": {"blocks_per_shard": 512}}
    study.jobs = study.run("saes", "results/tiny/figures/crosscoder_sources.png", config=config)
    return study


def metrics(study, name):
    return json.loads((study.results / "saes" / name / "metrics.json").read_text())


def test_every_cache_is_made_once_and_every_group_is_one_job(trained):
    jobs = trained.jobs
    assert (jobs["cache_activations"], jobs["gather_activations"], jobs["train_model"]) == (1, 5, 2)
    assert jobs["cache_activations_twin"] == 1
    assert (jobs["train_sae"], jobs["train_saes_same"]) == (4, 1)
    assert (jobs["evaluate_sae"], jobs["evaluate_crosscoder"]) == (3, 3)
    summary = pl.read_parquet(trained.results / "saes/summary.parquet").sort("sae")
    assert summary["sae"].to_list() == ["late", "layers", "main", "mlp", "same-k-2", "same-k-4"]
    assert summary["kind"].to_list() == [
        "sae",
        "crosscoder",
        "sae",
        "transcoder",
        "crosscoder",
        "crosscoder",
    ]
    assert summary["explained_variance_se"].min() > 0


def test_every_sae_is_trained_and_measured_at_its_own_hook(trained):
    for name, hook in (("main", STEERED), ("late", WRITTEN)):
        sae = load_sae(trained.results / "saes" / name)
        assert (sae.metadata["hook_name"], sae.is_transcoder) == (hook, False)
        assert metrics(trained, name)["explained_variance"] > 0.3


def test_a_transcoder_computes_its_target(trained):
    sae, its_metrics = load_sae(trained.results / "saes/mlp"), metrics(trained, "mlp")
    assert (sae.metadata["hook_name"], sae.metadata["hook_name_out"], sae.is_transcoder) == (
        READ,
        WRITTEN,
        True,
    )
    assert its_metrics["explained_variance"] > 0.4
    assert its_metrics["loss_clean"] < its_metrics["loss_sae"] < its_metrics["loss_zero"]
    assert its_metrics["loss_zero"] == pytest.approx(
        metrics(trained, "late")["loss_zero"], rel=1e-5
    )  # of the same activation
    assert pl.read_parquet(trained.results / "saes/mlp/recovery.parquet")["cosine"].max() > 0.3


def test_crosscoders_read_layers_or_models_and_tell_whose_their_latents_are(trained):
    its_metrics, same = metrics(trained, "layers"), metrics(trained, "same-k-2")
    assert [(source["model"], source["hook"]) for source in its_metrics["sources"]] == [
        ("tiny-lm", STEERED),
        ("tiny-lm", LATE),
    ]
    assert [(source["model"], source["hook"]) for source in same["sources"]] == [
        ("tiny-lm", STEERED),
        ("twin", STEERED),
    ]
    for metric in (its_metrics, same):
        shares = [source["explained_variance"] for source in metric["sources"]]
        assert metric["explained_variance"] == pytest.approx(sum(shares) / 2)
        assert metric["explained_variance_se"] > 0
        assert all(
            source["loss_clean"] < source["loss_sae"] < source["loss_zero"]
            for source in metric["sources"]
        )
    crosscoder = load_crosscoder(trained.results / "saes/layers")
    table = pl.read_parquet(trained.results / "saes/layers/sources.parquet")
    assert len(table) == 2 * crosscoder.d_sae
    norms = torch.from_numpy(table["relative_norm"].to_numpy().copy()).view(-1, 2)
    torch.testing.assert_close(norms.float(), crosscoder.relative_norms())
    assert (trained.results / "figures/crosscoder_sources.svg").is_file()


def test_models_that_are_the_same_have_no_latents_of_their_own(trained):
    table = pl.read_parquet(trained.results / "saes/same-k-4/sources.parquet").filter(
        pl.col("density") > 0
    )
    assert table["relative_norm"].is_between(0.35, 0.65).all()
    first, second = metrics(trained, "same-k-4")["sources"]
    assert first["loss_clean"] == second["loss_clean"]
