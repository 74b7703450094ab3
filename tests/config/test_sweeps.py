"""Sweeps: one entry of the config, several SAEs, one job."""

from __future__ import annotations

from typing import Any

import pytest
from checkout import ROOT

from saeflow.analyses.reading import read_study
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study


def study_with(**saes: Any) -> Any:
    values = read_study(ROOT / "config.yaml").model_dump()
    return check_any_study(values | {"saes": saes})


def test_a_sweep_is_its_members_trained_by_one_job():
    study = study_with(
        main={"train": {"d_sae": 256}, "sweep": {"k": [4, 8], "seed": [0, 1]}},
        other={
            "train": {"architecture": "standard"},
            "sweep": {"sparsity_coefficient": [0.01, 0.02]},
        },
        alone={"train": {"k": 16}},
    )
    members = ["main-k-4-seed-0", "main-k-4-seed-1", "main-k-8-seed-0", "main-k-8-seed-1"]
    costs = ["other-sparsity_coefficient-0.01", "other-sparsity_coefficient-0.02"]
    assert list(study.saes) == [*members, *costs, "alone"]
    assert study.trainings == {"main": members, "other": costs, "alone": ["alone"]}
    training = study.saes["main-k-8-seed-1"].train
    assert (training.d_sae, training.k, training.seed, training.architecture) == (256, 8, 1, "topk")
    assert study.target_sae == members[0]


def test_a_study_with_a_sweep_survives_being_written_and_read():
    study = study_with(main={"sweep": {"k": [4, 8]}})
    assert check_any_study(study.model_dump()) == study


@pytest.mark.parametrize("order", [1, -1])
def test_a_member_of_a_sweep_takes_no_other_saes_place(order):
    saes = {"main-k-4": {"train": {"k": 5}}, "main": {"train": {}, "sweep": {"k": [4, 6]}}}
    with pytest.raises(
        SaeflowError, match=r"saes\.main\S*: .*(main-k-4|a member of a sweep has this name)"
    ):
        study_with(**dict(list(saes.items())[::order]))


def test_no_two_members_of_a_sweep_are_one():
    with pytest.raises(
        SaeflowError,
        match=r"saes\.main\.sweep: its member 'main-learning_rate-0\.001' has the name",
    ):
        study_with(main={"train": {}, "sweep": {"learning_rate": [1e-3, 0.001]}})


def test_saes_may_be_put_into_one_group_by_hand():
    both = {
        "a": {"train": {"k": 4}, "group": "two"},
        "b": {"train": {"architecture": "batchtopk"}, "group": "two"},
    }
    assert study_with(**both).trainings == {"two": ["a", "b"]}


@pytest.mark.parametrize(
    ("sae", "key", "reason"),
    [
        ({"sweep": {"k": []}, "train": {}}, "saes.main.sweep.k", "at least 1"),
        ({"sweep": {}, "train": {}}, "saes.main.sweep", "at least 1"),
        ({"sweep": {"k": 4}, "train": {}}, "saes.main.sweep.k", "list"),
        ({"sweep": {"kk": [4]}, "train": {}}, "saes.main-kk-4.train.kk", "did you mean 'k'?"),
        (
            {"sweep": {"k": [4, 999]}, "train": {}},
            "saes.main-k-999.train.k",
            "must be smaller than d_sae 512",
        ),
        (
            {"sweep": {"tokens": [9000, 9001]}, "train": {}},
            "saes.main-tokens-9001.train.tokens",
            "same batches",
        ),
        ({"path": "somewhere", "group": "main"}, "saes.main.group", "trained here"),
        ({"train": {"target_l0": 5.0}}, "saes.main.train.target_l0", "is of 'jumprelu' only"),
        (
            {"train": {"tokens": 3000, "accumulate": 2}},
            "saes.main.train.tokens",
            "batch_size 2048 × accumulate 2",
        ),
    ],
)
def test_what_cannot_be_swept_is_told_by_its_key(sae, key, reason):
    with pytest.raises(SaeflowError) as raised:
        study_with(main=sae)
    line = next(line for line in str(raised.value).splitlines() if f" {key}:" in f" {line}")
    assert reason in line


def test_controls_follow_their_sae_and_one_job_trains_all_with_its_own_draws():
    study = study_with(
        main={"train": {"k": 4, "seed": 2}, "controls": ["frozen_decoder", "frozen_encoder"]},
        swept={"train": {}, "sweep": {"k": [4, 8]}, "controls": ["soft_frozen_decoder"]},
    )
    mains = ["main", "main-frozen_decoder", "main-frozen_encoder"]
    swept = [f"swept-k-{k}{control}" for k in (4, 8) for control in ("", "-soft_frozen_decoder")]
    assert list(study.saes) == [*mains, *swept]
    # The name of a job's group names its draws, so that an SAE is what it is without controls.
    assert study.trainings == {"main": mains, "swept": swept}
    main, control = (study.saes[name].train for name in mains[:2])
    assert (main.control, control.control) == (None, "frozen_decoder")
    assert control == main.model_copy(update={"control": "frozen_decoder"})
    assert check_any_study(study.model_dump()) == study


@pytest.mark.parametrize(
    ("saes", "reason"),
    [
        (
            {"main": {"train": {}, "controls": ["frozen_bias"]}},
            r"saes\.main\.controls\.0: .*frozen_decoder",
        ),
        (
            {"main": {"path": "elsewhere", "controls": ["frozen_decoder"]}},
            r"saes\.main\.controls: are trained as the SAE is, and this one comes from elsewhere",
        ),
        (
            {
                "main": {"train": {}, "controls": ["frozen_decoder"]},
                "main-frozen_decoder": {"train": {"k": 5}},
            },
            r"saes\.main\.controls: its control 'main-frozen_decoder' has the name of another SAE",
        ),
        (
            {"main": {"train": {"control": "frozen_encoder", "init_from": "elsewhere"}}},
            r"saes\.main\.train\.init_from: has its own weights to begin with",
        ),
    ],
)
def test_controls_that_cannot_be_are_told_by_their_key(saes, reason):
    with pytest.raises(SaeflowError, match=reason):
        study_with(**saes)
