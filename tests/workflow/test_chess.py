"""The study of chess, as small as it can be: every stage runs, and its files are as designed."""

import json

import polars as pl
import pytest
from conftest import Workflow

from saeflow.corpora.chess.positions import SCHEMA

TINY = {
    "kind": "chess",
    "study": "tiny-chess",
    "positions": {"self_play": {"games": 120, "last_ply": 60}},
    "accuracy": {"positions": 60},
    "activations": {"split": "model", "positions": 1024, "positions_per_shard": 512},
    "saes": {
        "resid": {
            "hook": "blocks.1.resid_post",
            "train": {"architecture": "jumprelu", "d_sae": 64, "tokens": 8192, "batch_size": 512},
        },
    },
    "concepts": {"families": ["piece", "offensive_threat"], "minimum": 5, "rotations": 3, "latents": 2},
    "skill": {"groups": ["offensive_threat"], "positions": 60, "controls": 1, "resamples": 100},
    "interventions": {
        "groups": ["offensive_threat"],
        "modes": ["add"],
        "strengths": [5.0],
        "latents": [1],
        "positions": 30,
        "minimum": 2,
        "controls": 1,
        "resamples": 100,
        "bins": [0],
    },
    "transitions": {"positions": 50},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Workflow(tmp_path_factory.mktemp("chess"), TINY, base=None)
    study.jobs = study.run("chess")
    return study


def test_every_stage_runs_and_its_files_are_as_designed(study):
    for path in [
        "config.yaml",
        "provenance.json",
        "models/maia2-mini/model.safetensors",
        "models/maia2-mini.accuracy.parquet",
        "activations/maia2-mini/blocks.1.resid_post/manifest.json",
        "saes/resid/sae_weights.safetensors",
        "chess/resid/associations.parquet",
        "chess/resid/skill.parquet",
        "chess/resid/interventions.parquet",
        "chess/transitions.parquet",
        "figures/chess_accuracy.svg",
        "figures/chess_board_auc.png",
    ]:
        assert (study.results / path).is_file(), path
    assert study.jobs["cache_board_activations"] == 2
    positions = pl.read_parquet(study.results / "chess/positions.parquet")
    assert dict(positions.schema) == SCHEMA
    assert positions["game"].n_unique() == 120


def test_the_sae_is_measured_by_what_it_does_to_moves(study):
    metrics = json.loads((study.results / "saes/resid/metrics.json").read_text())
    assert metrics["kl"] > 0
    assert 0 < metrics["agreement"] <= 1
    assert metrics["positions"] > 100


def test_nothing_changed_nothing_runs(study):
    assert study.run("chess") == {}
