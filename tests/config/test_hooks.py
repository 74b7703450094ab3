"""SAEs with hooks of their own: what is cached for them, and what cannot be."""

from __future__ import annotations

import re
from typing import Any

import pytest
from checkout import ROOT

from saeflow.analyses import decomposition, logit_lens
from saeflow.analyses.reading import read_study
from saeflow.config.hooks import HOOK, SITES, SYNONYMS
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study

BATCH: dict[str, Any] = {"train": {"architecture": "batchtopk"}}
STEERED, EARLY, LATE = (f"blocks.{layer}.hook_resid_post" for layer in (1, 0, 3))


def study_with(saes: dict[str, Any], **changes: Any) -> Any:
    values = read_study(ROOT / "config.yaml").model_dump()
    return check_any_study(values | {"saes": saes} | changes)


def test_every_hook_where_an_sae_is_trained_is_cached_once():
    saes = {
        "main": {"train": {}},
        "late": {"train": {}, "hook": LATE},
        "again": {"train": {"k": 4}, "hook": LATE},
    }
    study = study_with(saes, hooks=[EARLY])
    assert study.cached_hooks == [STEERED, EARLY, LATE]
    assert [study.hook_of(name) for name in saes] == [STEERED, LATE, LATE]
    assert study.last_layer == 3


def test_transcoders_and_crosscoders_have_all_that_they_read_and_write_cached():
    saes = {
        "main": {"train": {}},
        "mlp": {"train": {}, "hook": "blocks.2.hook_resid_mid", "target": "blocks.2.hook_mlp_out"},
        "layers": {**BATCH, "hooks": [EARLY, LATE]},
        "diff": {**BATCH, "models": ["tales-lm", "tuned"], "sweep": {"k": [4, 8]}},
    }
    study = study_with(saes, models=[{"name": "tuned", "train": {"epochs": 2, "d_model": 64}}])
    mlp = ["blocks.2.hook_resid_mid", "blocks.2.hook_mlp_out"]
    assert study.caches == {"tales-lm": [STEERED, *mlp, EARLY, LATE], "tuned": [STEERED]}
    assert study.cached_hooks == study.caches["tales-lm"]
    assert study.caches_of("mlp") == [("tales-lm", hook) for hook in mlp]
    assert study.sources_of("mlp") == [("tales-lm", mlp[0])]
    assert study.sources_of("layers") == [("tales-lm", EARLY), ("tales-lm", LATE)]
    assert study.sources_of("diff-k-8") == [("tales-lm", STEERED), ("tuned", STEERED)]
    assert study.saes_of("crosscoder") == ["layers", "diff-k-4", "diff-k-8"]
    assert study.trainings["diff"] == ["diff-k-4", "diff-k-8"]


def test_a_tuned_model_is_a_copy_of_one_that_is_not_tuned_itself():
    tuned = {"name": "tuned", "tune": {"path": "pairs.yaml"}}
    study = study_with({"main": {"train": {}}}, models=[tuned])
    assert study.tuned_models == {"tuned": "tales-lm"}
    assert study.origin_of("tuned") == study.origin_of("tales-lm") == study.model
    for of in ("tuned", "nobody"):
        again = {"name": "again", "tune": {"path": "pairs.yaml", "of": of}}
        with pytest.raises(
            SaeflowError, match=rf"^config: models.1.tune.of: '{of}' is no model to tune a copy of"
        ):
            study_with({"main": {"train": {}}}, models=[tuned, again])


def test_models_that_are_compared_differ_in_name_and_are_computed_alike():
    for model, key, reason in (
        (
            {"name": "tales-lm", "train": {}},
            "models.0.name",
            "another model is called 'tales-lm', too",
        ),
        (
            {"name": "b", "train": {}, "dtype": "bfloat16"},
            "models.0.dtype",
            "is not model.dtype 'float32'",
        ),
        (
            {"name": "b", "train": {"batch_size": 100_000}},
            "models.0.train.batch_size",
            "blocks per step",
        ),
    ):
        with pytest.raises(SaeflowError, match=f"^config: {key}: .*{reason}"):
            study_with({"main": {"train": {}}}, models=[model])


def test_an_sae_of_another_model_is_trained_on_its_cache_and_most_analyses_leave_it_out():
    tuned = {"name": "tuned", "tune": {"path": "pairs.yaml"}}
    saes = {
        "main": {"train": {}},
        "other": {"train": {}, "model": "tuned"},
        "mlp": {"train": {}, "model": "tuned", "target": LATE},
    }
    study = study_with(saes, models=[tuned])
    assert study.caches == {"tales-lm": [STEERED], "tuned": [STEERED, LATE]}
    assert study.caches_of("mlp") == [("tuned", STEERED), ("tuned", LATE)]
    assert study.own_saes_of("sae", "transcoder") == ["main"]
    assert logit_lens.saes(study) == ["main"]
    asked = {"measured": {}, "contrasts": {}, "steering": ["caa"]}
    study = study_with(saes, models=[tuned], decomposition={"directions": asked})
    assert decomposition.saes(study) == ["main", "other"]


@pytest.mark.parametrize(
    ("sae", "key", "reason"),
    [
        (
            {"model": "nobody"},
            "model",
            "there is no model 'nobody'; model and models name tales-lm",
        ),
        (
            {"model": "tales-lm", "models": ["tales-lm", "other"]},
            "model",
            "is one of models already",
        ),
        ({"leave_out": []}, "leave_out", "at least 1"),
        (
            {"group": "both", "leave_out": ["sea"]},
            "leave_out",
            "is not that of 'first' of the same",
        ),
    ],
)
def test_an_sae_whose_model_or_text_is_not_there_is_a_sentence(sae, key, reason):
    first = {"train": {}, "group": "both"} if "group" in sae else {"train": {}}
    with pytest.raises(SaeflowError, match=rf"config: saes\.second\.{key}\S*: .*{reason}"):
        study_with({"first": first, "second": {"train": {}, **sae}})


def test_latents_that_are_targeted_are_of_the_study_s_model():
    tuned = {"name": "tuned", "tune": {"path": "pairs.yaml"}}
    with pytest.raises(SaeflowError, match=r"saes.main.model: reads 'tuned', and latents of 'tale"):
        study_with({"main": {"train": {}, "model": "tuned"}}, models=[tuned])


def test_words_are_left_out_of_trainings_that_are_done_here():
    with pytest.raises(SaeflowError, match=r"saes.main.leave_out: is for SAEs that are trained he"):
        study_with({"main": {"path": "somewhere", "leave_out": ["sea"]}})


def test_the_hook_of_an_imported_sae_is_cached_only_for_the_examples_of_its_latents():
    saes = {"main": {"train": {}}, "other": {"path": "somewhere", "hook": LATE}}
    study = study_with(saes, examples=None, logit_lens=None)
    assert (study.cached_hooks, study.hook_of("other")) == ([STEERED], LATE)
    assert study_with(saes).cached_hooks == [STEERED, LATE]


def test_the_lens_looks_at_saes_that_write_the_residual_stream():
    saes = {"main": {"train": {}}, "heads": {"train": {}, "hook": "blocks.1.attn.hook_z"}}
    assert logit_lens.saes(study_with(saes)) == ["main"]
    with pytest.raises(SaeflowError, match="logit_lens: reads where latents fire"):
        study_with(saes, examples=None)


@pytest.mark.parametrize(
    ("saes", "key", "reason"),
    [
        (
            {"main": {"train": {}, "hook": LATE}},
            "saes.main.hook",
            f"is not the study's hook '{STEERED}'",
        ),
        (
            {"main": {"train": {}}, "far": {"train": {}, "hook": "blocks.4.hook_mlp_out"}},
            "saes.far.hook",
            "layer 4 does not exist; the model of model.train has 0 to 3",
        ),
        (
            {"main": {"train": {}}, "far": {"train": {}, "hook": "middle"}},
            "saes.far.hook",
            "TransformerLens name",
        ),
        (
            {
                "main": {"train": {}, "group": "all"},
                "late": {"train": {}, "hook": LATE, "group": "all"},
            },
            "saes.late",
            "reads or writes elsewhere than 'main' of the same group",
        ),
        ({"main": {"train": {}, "target": LATE}}, "effects.sae", "'main' is a transcoder"),
        (
            {
                "main": {"train": {}},
                "mlp": {"train": {}, "hook": LATE, "target": "blocks.3.hook_mlp_out"},
            },
            "saes.mlp.target",
            f"'blocks.3.hook_mlp_out' does not come after '{LATE}', which is read",
        ),
        (
            {"main": {"train": {}}, "both": {"train": {}, "hooks": [STEERED, LATE]}},
            "saes.both.train.architecture",
            "'topk' is not one of standard, jumprelu, batchtopk, which a crosscoder may be",
        ),
        (
            {"main": {"train": {}}, "both": {**BATCH, "hooks": [LATE]}},
            "saes.both.hooks",
            "at least 2 items",
        ),
        (
            {"main": {"train": {}}, "both": {**BATCH, "hooks": [LATE, "blocks.9.hook_mlp_out"]}},
            "saes.both.hooks.1",
            "9",
        ),
        (
            {"main": {"train": {}}, "both": {**BATCH, "hooks": [LATE, LATE]}},
            "saes.both.hooks",
            "appears twice",
        ),
        (
            {"main": {"train": {}}, "both": {**BATCH, "hooks": [LATE, EARLY], "hook": LATE}},
            "saes.both.hook",
            "hooks",
        ),
        (
            {"main": {"train": {}}, "both": {**BATCH, "models": ["tales-lm", "no"]}},
            "saes.both.models.1",
            "no model 'no'",
        ),
        (
            {"main": {"train": {}}, "both": {**BATCH, "hooks": [LATE, EARLY], "target": LATE}},
            "saes.both.target",
            "a crosscoder rebuilds what it reads",
        ),
    ],
)
def test_a_hook_that_cannot_be_read_is_told_by_its_key(saes, key, reason):
    with pytest.raises(SaeflowError) as raised:
        study_with(saes)
    [line] = str(raised.value).splitlines()
    assert line.startswith(f"config: {key}: ")
    assert reason in line


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("blocks.2.hook_out", "blocks.2.hook_resid_post"),
        ("blocks.2.hook_in", "blocks.1.hook_resid_post"),
        ("blocks.2.hook_resid_pre", "blocks.1.hook_resid_post"),
        ("blocks.0.hook_in", "blocks.0.hook_resid_pre"),
        ("blocks.2.attn.o.hook_in", "blocks.2.attn.hook_z"),
    ],
)
def test_a_tensor_goes_by_one_name_so_that_it_has_one_cache(written, name):
    study = study_with({"main": {"train": {}}}, hooks=[written])
    assert name in study.cached_hooks
    assert len(study.cached_hooks) == len({STEERED, name})
    assert study == study_with({"main": {"train": {}}}, hooks=[name])
    with pytest.raises(SaeflowError, match=r"hooks: .*appears twice"):
        study_with({"main": {"train": {}}}, hooks=[written, name])


@pytest.mark.parametrize("site", [*SITES, *SYNONYMS])
def test_every_site_may_be_written_and_nothing_else(site):
    assert re.fullmatch(HOOK, f"blocks.10.{site}")
    for wrong in (
        f"blocks.01.{site}",
        f"blocks.1.{site}s",
        f"blocks.1.x{site}",
        f"Blocks.1.{site}",
    ):
        assert not re.fullmatch(HOOK, wrong)


def test_what_a_module_gives_is_called_by_what_is_added_where_a_model_is_trained_here():
    with pytest.raises(
        SaeflowError, match=r"hooks\.0: is blocks\.1\.hook_mlp_out in a model that is"
    ):
        study_with({"main": {"train": {}}}, hooks=["blocks.1.mlp.hook_out"])
