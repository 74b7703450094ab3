"""The work of a study, told before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from checkout import ROOT
from family_models import family_model
from studies import changed
from tiny_models import FAMILY_NAMES, tiny_model, tiny_tokens
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from saeflow.analyses.reading import read_study
from saeflow.analyses.steering.cost import judge_calls
from saeflow.config.locations import fetches
from saeflow.corpora.tales import tokenizer
from saeflow.kinds import check_any_study, plan_of, read_any_study
from saeflow.planning.calibration import products_per_second
from saeflow.planning.shape import TALES_VOCABULARY, ModelShape, model_shape, shape_of
from saeflow.planning.stages import hours, plan_study, total

TALES = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_work_of_a_token_is_what_torch_counts(family: str) -> None:
    model = tiny_model(family)
    shape = shape_of(model.config.to_dict())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tiny_tokens(2, 12), use_cache=False)
    counts = counter.get_flop_counts()["Global"]
    weights = sum(
        flop
        for kind, flop in counts.items()
        if "attention" not in str(kind) and "bmm" not in str(kind)
    )
    assert weights == 24 * shape.flop()


DENSE = (
    *("apertus", "arcee", "bloom", "codegen", "cohere", "falcon", "gpt_bigcode", "gpt_neo"),
    *("gptj", "granite", "mpt", "nanochat", "nemotron", "olmo2", "opt", "phi", "phi3", "stablelm"),
    *("starcoder2", "xglm"),
)


@pytest.mark.parametrize("family", DENSE)
def test_the_work_of_a_token_of_any_dense_family_is_the_weights_of_its_products(
    family: str,
) -> None:
    model = family_model(family)
    products = [
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    assert 2 * sum(products) == shape_of(model.config.to_dict()).flop()


def test_parts_of_a_pass_add_up_to_the_whole() -> None:
    shape = ModelShape(8, 5, 100, ((8, 24), (8, 8), (8, 32), (32, 8)))
    assert shape.flop(last=1, logits=False) + shape.flop(first=2) == shape.flop()


def test_the_shape_of_a_model_to_train_is_that_of_the_config() -> None:
    shape = model_shape(check_any_study(TALES))
    assert shape is not None
    assert (shape.d_model, shape.n_layers) == (64, 4)
    assert len(tokenizer()) == TALES_VOCABULARY == shape.d_vocab


def test_work_and_time_grow_with_what_is_asked() -> None:
    def effects(**changes: object) -> tuple[int, float]:
        study = check_any_study(
            changed(TALES, {f"effects.measurement.{key}": value for key, value in changes.items()})
        )
        stages = plan_study(study, model_shape(study))
        (stage,) = (stage for stage in stages if stage.stage == "effects")
        assert total(stages).flop == sum(stage.flop for stage in stages)
        return stage.flop, hours(stage, 1e9, 0.5, 2)

    few, many = effects(samples=8), effects(samples=16)
    assert few[0] < many[0] < 2 * few[0]
    assert many[1] > few[1]


def test_a_model_that_is_not_here_yet_has_no_work() -> None:
    model = {"name": "far", "published": {"repo": "nobody/nothing-of-this-name"}}
    corpus = {"kind": "text", "path": "stories.txt"}
    changes = {
        "model": model,
        "corpus": corpus,
        "steering.judge": {"kind": "lexical"},
        "steering.vectors.methods": ["caa", "sae"],
    }
    study = check_any_study(changed(TALES, changes))
    assert model_shape(study) is None
    assert total(plan_study(study, None)).flop == 0


def test_calls_of_a_judge_are_counted() -> None:
    def calls(**changes: object) -> int:
        changes = {f"steering.{key}": value for key, value in changes.items()}
        study = check_any_study(changed(TALES, changes))
        return judge_calls(study, study.steering)

    judge = {"kind": "openai", "model": "gpt-4o-mini"}
    assert calls() == 0
    assert calls(judge=judge) == 9 * 8 * 8 * 64 * 2
    more = judge | {"repeats": 2, "protocols": ["product", "three_way"]}
    assert calls(judge=more, pairs=4) == (9 * 8 * 8 * 64 * 5 + 9 * 28 * 4 * 2 * 2) * 2
    # caa at three layers, sae_ts at the study's own, and the model without a vector
    search = {"layers": [0, 3], "methods": ["caa", "sae_ts"], "scales": [0.5, 1.0], "samples": 16}
    searched = 9 * (1 + (3 + 1) * 2) * 16 * 2
    assert calls(judge=judge, search=search) == 9 * 8 * 8 * 64 * 2 + searched


def test_completions_of_a_search_are_counted_as_steering() -> None:
    search = {"layers": [0, 3], "scales": [0.5, 1.0], "samples": 16, "tokens": 512}
    without, searched = (
        {stage.stage: stage for stage in plan_study(check_any_study(config), None)}
        for config in (TALES, changed(TALES, {"steering.search": search}))
    )
    texts = 9 * (1 + 2 * 3 * 2) * 16
    tokens = texts * check_any_study(TALES).steering.completions.new_tokens + 9 * 512
    assert searched["steering"].jobs == without["steering"].jobs + 9
    assert searched["steering"].tokens == without["steering"].tokens + tokens
    assert searched["judging"].jobs == without["judging"].jobs + 1


def test_the_rate_of_products_is_measured() -> None:
    rate = products_per_second(ModelShape(32, 2, 100, ((32, 96), (32, 32))), 64, "float32", "cpu")
    assert 1e7 < rate < 1e15


STUDIES = sorted((ROOT / "workflow" / "studies").glob("*.yaml"))
ONE_OF_SEVERAL = re.compile(r"(?<![\w.,])1 [A-Za-z]\w*s\b")


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the studies take from the environment."""
    for name, value in (
        ("MODEL", str(ROOT / "nowhere")),
        ("CORPUS", "nowhere.jsonl"),
        ("PGN", "nowhere.pgn"),
    ):
        monkeypatch.setenv(f"SAEFLOW_{name}", value)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.name)
def test_every_study_of_any_kind_can_be_planned(file: Path, tmp_path: Path) -> None:
    study = read_any_study(file)
    planned = plan_of(study, tmp_path)
    assert total(planned.stages).jobs > 10
    stages = {stage.stage for stage in planned.stages}
    assert {"model", "saes", "figures", *(analysis.key for analysis, _ in study.asked)} <= stages
    told = [*(stage.work for stage in planned.stages), *planned.remarks]
    assert [line for line in told if ONE_OF_SEVERAL.search(line)] == []


def test_a_plan_counts_one_thing_as_one() -> None:
    stages = {stage.stage: stage.work for stage in plan_study(check_any_study(TALES), None)}
    assert stages["examples"] == "latents of 1 SAE"


def test_what_is_fetched_is_no_work_and_is_named(tmp_path: Path) -> None:
    file, shape = (
        ROOT / "workflow/studies/gemma-2-2b.yaml",
        ModelShape(2304, 26, 256_000, ((2304, 2304),)),
    )
    study = read_study(file)
    fetched = fetches(study, tmp_path)
    assert set(fetched) == {
        "corpus.dataset",
        "model",
        "effects",
        "effects.approximator",
        *(f"saes.{name}" for name in study.saes),
    }
    plans = {stage.stage: stage for stage in plan_study(study, shape, fetched)}
    assert plans["effects"].work == "fetched: schalnev/sae-ts-effects@main effects_2b.pt"
    assert (
        plans["approximator"].work == "fetched: schalnev/sae-ts-effects@main adapter_2b_layer_12.pt"
    )
    assert plans["approximator"].flop == 0
    assert plans["effects"].jobs == 2
    # The baseline is measured here in either case; what is saved are 50,000 vectors.
    baseline = 14 * 640 * 28
    assert plans["effects"].tokens == baseline
    insist = {"effects": {"source": "compute", "vectors": {"kind": "random", "range": [0, 50_000]}}}
    (tmp_path / "insist.yaml").write_text(yaml.safe_dump(insist))
    insisting = read_study(file, tmp_path / "insist.yaml")
    computed = {
        stage.stage: stage for stage in plan_study(insisting, shape, fetches(insisting, tmp_path))
    }
    assert computed["effects"].jobs == -(-50_000 // 128) + 2
    assert computed["effects"].tokens > baseline + 50_000 * 14 * 64 * 28

    # Our own, once it is there, is taken before the published one.
    own = tmp_path / f"results/gemma-2-2b/effects/{study.target_sae}/effects.h5"
    own.parent.mkdir(parents=True)
    own.touch()
    assert set(fetched) - set(fetches(study, tmp_path)) == {"effects"}
