"""Vectors and completions as files of other programs, read as those programs read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import save_file
from steered import D_MODEL, unit_rows
from tiny_models import FAMILY_NAMES, N_LAYERS, save_tiny_model, tiny_tokens
from transformers import AutoModelForCausalLM, PreTrainedModel
from typer.testing import CliRunner

from saeflow.analyses.steering.exports import EXPORTS
from saeflow.analyses.steering.exports.content import export
from saeflow.analyses.steering.io import SteeringVector, save_vector
from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
from saeflow.cli.main import app
from saeflow.errors import SaeflowError
from saeflow.judging.io import write_scores
from saeflow.judging.scores import SCORES_SCHEMA
from saeflow.models.hooks import attach
from saeflow.models.language_model import load_model
from saeflow.tables import write_table

SCALE = 3.5
VECTOR = unit_rows(1)[0]


class Study(NamedTuple):
    """A study's files that are exported."""

    root: Path

    def vector(self, hook: str = "blocks.1.hook_resid_post") -> Path:
        path = self.root / f"{hook}.safetensors"
        save_vector(path, SteeringVector(VECTOR, {"hook": hook, "goal": "love", "method": "caa"}))
        return path

    def model(self, family: str = "llama") -> Path:
        path = self.root / family
        return path if path.is_dir() else save_tiny_model(path, family)

    def written(self, name: str, **changes: Any) -> Path:
        """A vector's file in a format, by its name; `changes` stand over what is read."""
        suffix = {"control_vector": ".gguf", "lm_eval": ".pt"}[name]
        given = {"vector": self.vector(), "model": self.model()} | changes
        scale = given.pop("scale", SCALE)
        export(self.root / f"file{suffix}", name, given, scale)
        return self.root / f"file{suffix}"

    def tables(self, **changes: Any) -> dict[str, Path]:
        """Four completions, one without a score of coherence; `changes` stand over columns of the
        scores."""
        completions = pl.DataFrame(
            [
                {
                    "goal": "love",
                    "method": "caa",
                    "scale": scale,
                    "scale_index": index,
                    "prompt": "I think",
                    "sample": sample,
                    "seed": 7,
                    "completion_id": f"{index}{sample}",
                    "text": f"I think {word}",
                    "continuation": f" {word}",
                    "prompt_ids": [0, 17, 18],
                    "continuation_ids": [5],
                    "ended": word == "cat",
                }
                for index, scale in enumerate((0.0, 4.0))
                for sample, word in enumerate(("cat", "dog"))
            ],
            schema=COMPLETIONS_SCHEMA,
        )
        values = {"behaviour": [0.0, 0.5, 1.0, 0.5], "coherence": [1.0, 1.0, None, 0.25]}
        scores = pl.DataFrame(
            [
                {
                    "completion_id": name,
                    "criterion": criterion,
                    "score": score,
                    "reason": "timeout" if score is None else None,
                    "judge": "lexical",
                    "attempt": 1,
                    "cached": False,
                }
                for criterion, own in values.items()
                for name, score in zip(completions["completion_id"], own, strict=True)
            ],
            schema=SCORES_SCHEMA,
        ).with_columns(**changes)
        files = {name: self.root / f"{name}.parquet" for name in ("completions", "scores")}
        write_table(files["completions"], completions, COMPLETIONS_SCHEMA)
        write_scores(files["scores"], scores)
        return files | {"model": self.model()}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.mark.parametrize(
    ("hook", "layer"), [("blocks.1.hook_resid_post", 1), ("blocks.2.hook_resid_pre", 1)]
)
def test_a_control_vector_is_the_scaled_vector_of_the_layer_it_is_added_behind(
    study: Study, hook: str, layer: int
) -> None:
    reader = GGUFReader(study.written("control_vector", vector=study.vector(hook)))
    values = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    assert values == {
        "general.architecture": "controlvector",
        "controlvector.model_hint": "llama",
        "controlvector.layer_count": 1,
    }
    (tensor,) = reader.tensors
    assert (tensor.name, tensor.tensor_type.name) == (f"direction.{layer}", "F32")
    assert list(tensor.shape) == [D_MODEL]
    torch.testing.assert_close(torch.tensor(tensor.data), VECTOR * SCALE)


def test_a_control_vector_names_llama_cpp_s_word_for_the_architecture(study: Study) -> None:
    reader = GGUFReader(study.written("control_vector", model=study.model("gpt_neox")))
    assert reader.fields["controlvector.model_hint"].contents() == "gptneox"


def test_layer_0_has_no_control_vector(study: Study) -> None:
    with pytest.raises(SaeflowError, match="layer 0"):
        study.written("control_vector", vector=study.vector("blocks.0.hook_resid_post"))
    with pytest.raises(SaeflowError, match="layer 0"):
        study.written("control_vector", vector=study.vector("blocks.1.hook_resid_pre"))


def steered_as_by_the_harness(
    model: PreTrainedModel, actions: dict[str, dict[str, Any]], tokens: torch.Tensor
) -> torch.Tensor:
    """Logits, with modules below ``base_model`` hooked by their names, as the harness documents."""
    ((name, action),) = actions.items()
    added = action["steering_coefficient"] * action["steering_vector"]

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

    handle = dict(model.base_model.named_modules())[name].register_forward_hook(add)
    with torch.no_grad():
        logits = model(tokens).logits
    handle.remove()
    return logits


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("layer", [0, N_LAYERS - 1])
def test_lm_evaluation_harness_steers_every_family_as_it_was_steered_here(
    study: Study, family: str, layer: int
) -> None:
    hook, folder = f"blocks.{layer}.hook_resid_post", study.model(family)
    file = study.written("lm_eval", vector=study.vector(hook), model=folder)
    actions = torch.load(file, weights_only=True)
    plain, tokens = AutoModelForCausalLM.from_pretrained(folder).eval(), tiny_tokens()
    theirs = steered_as_by_the_harness(plain, actions, tokens)
    lm = load_model(folder)
    with torch.no_grad(), attach(lm, [(hook, lambda resid: resid + SCALE * VECTOR)]):
        ours = lm.model(tokens).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(theirs, plain(tokens).logits, atol=1e-2)


def test_the_file_of_lm_evaluation_harness_holds_what_its_documentation_names(study: Study) -> None:
    for family, name in {"llama": "layers.1", "gpt2": "h.1", "gpt_neox": "layers.1"}.items():
        actions = torch.load(study.written("lm_eval", model=study.model(family)), weights_only=True)
        assert list(actions) == [name]
        assert torch.equal(actions[name].pop("steering_vector"), VECTOR)
        assert actions[name] == {
            "steering_coefficient": SCALE,
            "action": "add",
            "bias": None,
            "head_index": None,
        }


def test_a_model_of_images_is_refused_for_the_harness(study: Study) -> None:
    folder = study.model("gemma3_text")
    config = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "gemma3", "text_config": config}
    (folder / "config.json").write_text(json.dumps(whole))
    with pytest.raises(SaeflowError, match="model of images"):
        study.written("lm_eval", model=folder)


def test_an_inspect_log_holds_completions_with_their_scores(study: Study, tmp_path: Path) -> None:
    export(tmp_path / "log.json", "inspect", study.tables(), None)
    text = (tmp_path / "log.json").read_text()
    log = json.loads(text)
    # the order in which Inspect reads the head of a log
    assert list(log) == ["version", "status", "eval", "plan", "results", "stats", "samples"]
    assert (log["version"], log["status"]) == (2, "success")
    assert log["eval"]["model"] == "llama"
    assert log["eval"]["dataset"]["sample_ids"] == ["00", "01", "10", "11"]
    assert log["eval"]["metadata"] == {
        "goal": ["love"],
        "method": ["caa"],
        "scale": [0.0, 4.0],
        "seed": [7],
    }
    third = log["samples"][2]
    assert third["input"] == "I think"
    assert third["output"]["choices"][0]["message"]["content"] == " cat"
    assert third["scores"]["behaviour"]["value"] == 1.0
    assert third["metadata"] == {
        "goal": "love",
        "method": "caa",
        "scale": 4.0,
        "sample": 0,
        "seed": 7,
        "missing_scores": {"coherence": "timeout"},
    }
    stops = [sample["output"]["choices"][0]["stop_reason"] for sample in log["samples"]]
    assert stops == ["stop", "max_tokens"] * 2


def test_an_inspect_log_has_means_of_every_criterion_at_each_scale(
    study: Study, tmp_path: Path
) -> None:
    export(tmp_path / "log.json", "inspect", study.tables(), None)
    results = json.loads((tmp_path / "log.json").read_text())["results"]["scores"]
    means = {
        score["name"]: {
            metric["params"]["scale"]: metric["value"] for metric in score["metrics"].values()
        }
        for score in results
    }
    assert means == {"behaviour": {0.0: 0.25, 4.0: 0.75}, "coherence": {0.0: 1.0, 4.0: 0.25}}
    counts = [(score["scored_samples"], score["unscored_samples"]) for score in results]
    assert counts == [(4, 0), (3, 1)]


def test_scores_that_are_no_numbers_or_of_other_completions_make_no_log(
    study: Study, tmp_path: Path
) -> None:
    hostile = {
        "NaN": {"score": pl.lit(float("nan"))},
        "other completions": {"completion_id": pl.col("completion_id") + "x"},
        "scored twice": {"criterion": pl.lit("behaviour")},
    }
    for reason, changes in hostile.items():
        with pytest.raises(SaeflowError, match=reason):
            export(tmp_path / "log.json", "inspect", study.tables(**changes), None)
    assert not (tmp_path / "log.json").exists()


VECTOR_FORMATS = ("control_vector", "lm_eval")


@pytest.mark.parametrize("name", VECTOR_FORMATS)
def test_a_vector_that_is_not_finite_is_exported_nowhere(study: Study, name: str) -> None:
    path = study.root / "nan.safetensors"
    metadata = {"metadata": json.dumps({"hook": "blocks.1.hook_resid_post"})}
    save_file({"vector": VECTOR.clone().fill_(float("nan"))}, path, metadata=metadata)
    with pytest.raises(SaeflowError, match="finite numbers"):
        study.written(name, vector=path)


@pytest.mark.parametrize("name", VECTOR_FORMATS)
@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), 1e39, 1e-60])
def test_a_scale_that_steers_nothing_or_beyond_all_numbers_is_refused(
    study: Study, name: str, scale: float
) -> None:
    with pytest.raises(SaeflowError, match="--scale"):
        study.written(name, scale=scale)


@pytest.mark.parametrize("name", VECTOR_FORMATS)
@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("blocks.1.attn.hook_z", "outputs of layers"),
        ("blocks.1.hook_mlp_out", "outputs of layers"),
        ("blocks.0.hook_resid_pre", "outputs of layers"),
        (f"blocks.{N_LAYERS}.hook_resid_post", f"has {N_LAYERS} layers"),
        ("layers.1", "not a hook name"),
    ],
)
def test_a_hook_without_a_place_there_is_refused(
    study: Study, name: str, hook: str, reason: str
) -> None:
    with pytest.raises(SaeflowError, match=reason):
        study.written(name, vector=study.vector(hook))


@pytest.mark.parametrize("name", VECTOR_FORMATS)
def test_a_vector_of_another_width_than_the_model_is_refused(study: Study, name: str) -> None:
    path = study.root / "wide.safetensors"
    save_vector(path, SteeringVector(torch.ones(8), {"hook": "blocks.1.hook_resid_post"}))
    with pytest.raises(SaeflowError, match=f"has 8 numbers, and the model's width is {D_MODEL}"):
        study.written(name, vector=path)


def test_files_are_asked_for_and_refused_by_the_format(study: Study, tmp_path: Path) -> None:
    vector = {"vector": study.vector(), "model": study.model()}
    wrong = {
        "there are control_vector, inspect, lm_eval": ("gguf", vector, None),
        "; --model is missing": ("lm_eval", {"vector": study.vector()}, None),
        "nothing of --scores": ("lm_eval", vector | {"scores": tmp_path}, None),
        "nothing of --scale": ("inspect", study.tables(), 2.0),
        "must end in .pt or .pth": ("lm_eval", vector, None),
    }
    for reason, (name, files, scale) in wrong.items():
        with pytest.raises(SaeflowError, match=reason):
            export(tmp_path / "file.bin", name, files, scale)


def test_the_command_writes_every_format(study: Study, tmp_path: Path) -> None:
    vector = ["--vector", str(study.vector()), "--model", str(study.model()), "--scale", "2"]
    tables = [word for name, file in study.tables().items() for word in (f"--{name}", str(file))]
    calls = {
        "control_vector": (vector, ".gguf"),
        "lm_eval": (vector, ".pt"),
        "inspect": (tables, ".json"),
    }
    assert calls.keys() == set(EXPORTS)
    for name, (arguments, suffix) in calls.items():
        output = tmp_path / f"{name}{suffix}"
        words = ["steering", "export", "--format", name, "--output", str(output), *arguments]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert output.is_file()
