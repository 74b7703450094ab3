"""What a study reads from outside: told by the plan, which ends with 1 where it is missing, and by
the workflow before any job."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from checkout import ROOT
from studies import changed, study_config
from tiny_models import chat_tokenizer, save_tiny_model
from typer.testing import CliRunner

from saeflow.analyses.workflow import StudyWorkflow
from saeflow.cli.main import app
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study, plan_of
from saeflow.planning.work import Need, StagePlan, missing

SMALL = study_config("minimal-text", {"effects": None, "steering": None})
HOSTED = study_config("minimal-text", {"steering.judge": {"kind": "openai", "model": "m"}})


def workflow_of(values: dict[str, object]) -> StudyWorkflow:
    return StudyWorkflow(check_any_study(values), ROOT, lambda path: path)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_job_has_made_something_of_already_is_not_missed(tmp_path: Path) -> None:
    needs = [
        Need("there", "a", True, "made"),
        Need("of the hub", "b", None, "absent"),
        Need("corpus.path", "c", False, "made"),
        Need("model.path", "d", False, "absent"),
        Need("goals", "e", False),
    ]
    (tmp_path / "made").touch()
    assert [need.key for need in missing(needs, tmp_path)] == ["model.path", "goals"]


def test_the_target_all_names_each_key_whose_file_is_missing_before_any_job() -> None:
    flow = workflow_of(changed(SMALL, {"model.path": "no-model", "corpus.path": "no.txt"}))
    with pytest.raises(SaeflowError) as raised:
        flow.everything(None)
    assert str(raised.value).splitlines() == [
        "corpus.path: no.txt is not there; correct the name, or make it",
        "model.path: no-model/config.json is not there; correct the name, or make it",
    ]
    for made in ("corpus/eval.safetensors", "models/lm/config.json"):
        file = Path("results/small", made)
        file.parent.mkdir(parents=True)
        file.touch()
    assert flow.everything(None) == flow.files(*flow.results)


RECORDS: dict[str, dict[str, Any]] = {
    "text": {"text": "The cat sat."},
    "content": {"content": "The cat sat."},
    "messages": {"messages": [{"role": "user", "content": "The cat sat."}]},
    "token_ids": {"input_ids": [3, 4, 5]},
}


def refusal(model: Path, corpus: dict[str, Any]) -> list[str]:
    """What the workflow says before any job of a study of a model and a text; nothing where it
    would run."""
    values = changed(SMALL, {"model.path": str(model), "corpus.context": 16})
    values["corpus"] |= corpus
    try:
        workflow_of(values).everything(None)
    except SaeflowError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".jsonl.gz"])
def test_what_files_of_text_lack_is_told_before_any_job(tmp_path: Path, ending: str) -> None:
    model = save_tiny_model(tmp_path / "model", "llama")
    for name, record in RECORDS.items():
        file = tmp_path / f"{name}{ending}"
        if ending == ".parquet":
            pl.DataFrame([record]).write_parquet(file)
        else:
            data = json.dumps([record] if ending == ".json" else record).encode()
            file.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    texts, others = f"text{ending}", [f"content{ending}", f"text{ending}"]
    assert refusal(model, {"path": texts}) == []
    assert refusal(model, {"path": f"token_ids{ending}"}) == []
    assert refusal(model, {"path": others[0], "field": "content"}) == []
    [line] = refusal(model, {"path": others})
    assert f"content{ending}" in line
    assert "has no field 'text' but content; set corpus.field, for example to content" in line
    [line] = refusal(model, {"path": texts, "messages": "chat"})
    assert line.startswith("config: corpus.messages: names messages, and the tokenizer in ")
    [line] = refusal(model, {"path": f"messages{ending}"})
    assert line.startswith(f"corpus.path: messages{ending} holds chats, and the tokenizer in ")
    assert line.endswith("has no chat template; write text, or put chat_template.jinja there")
    chat_tokenizer().save_pretrained(model)
    assert refusal(model, {"path": f"messages{ending}"}) == []
    [line] = refusal(model, {"path": texts, "messages": "chat"})
    assert "has no field 'chat' but text" in line


def test_text_that_was_read_is_not_looked_at_again(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "llama")
    Path("content.jsonl").write_text(json.dumps(RECORDS["content"]))
    assert refusal(model, {"path": "content.jsonl"}) != []
    written = Path("results/small/corpus/eval.safetensors")
    written.parent.mkdir(parents=True)
    written.touch()
    assert refusal(model, {"path": "content.jsonl"}) == []


def test_weights_to_begin_with_that_are_not_there_are_told_before_any_job(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "llama")
    Path("text.txt").write_text("The cat sat.")
    values = changed(SMALL, {"model.path": str(model), "corpus.path": "text.txt"})
    values["corpus"]["context"] = 16
    values["saes"]["main"] = {"train": {"init_from": "no/sae"}}
    with pytest.raises(SaeflowError, match=r"^saes.main.train.init_from: no/sae is not there; cor"):
        workflow_of(values).everything(None)


def test_the_target_of_an_analysis_that_is_off_says_what_to_write() -> None:
    flow = workflow_of(SMALL)
    assert {"effects", "steering"} <= set(flow.not_asked)
    with pytest.raises(SaeflowError, match=r"^effects: is not asked for in this study; write `eff"):
        flow.target("effects")(None)
    assert flow.target("saes")(None) == flow.files(*flow.targets["saes"])


def test_a_judge_without_key_is_told_unless_it_has_answered_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def keys() -> list[str]:
        absent = missing(workflow_of(HOSTED).needs(tmp_path), Path("results/small"))
        return [need.key for need in absent if need.key == "calls.key"]

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert keys() == ["calls.key"]
    told = [need.said() for need in workflow_of(HOSTED).needs(tmp_path) if need.key == "calls.key"]
    assert "OPENAI_API_KEY" in told[0]
    assert told[0].endswith("is not there; set it, or name a server of your own as calls.base_url")
    Path(".env").write_text("OPENAI_API_KEY=k\n")
    assert keys() == []
    Path(".env").unlink()
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert keys() == []
    monkeypatch.delenv("OPENAI_API_KEY")
    Path("results/small/judging").mkdir(parents=True)
    Path("results/small/judging/ledger.sqlite").touch()
    assert keys() == []


def test_only_what_is_left_to_do_is_planned(tmp_path: Path) -> None:
    stage = StagePlan("effects", 10, 100, 1000, 7, "blocks", [f"block-{n}" for n in range(4)])
    assert stage.left(lambda _: False) == stage
    assert stage.left(lambda path: path == "block-1") == (
        *("effects", 8, 75, 750, 6, "blocks; 1 of 4 files are there", ()),
    )
    assert stage.left(lambda _: True) == ("effects", 0, 0, 0, 0, "blocks; done", ())

    study = check_any_study(SMALL)
    saes = next(stage for stage in plan_of(study, tmp_path).stages if stage.stage == "saes")
    assert saes.jobs == 3
    metrics = tmp_path / "results/small/saes/main/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    stages = {stage.stage: stage.jobs for stage in plan_of(study, tmp_path).stages}
    assert (stages["saes"], stages["corpus"]) == (0, 2)


def test_the_plan_ends_with_1_where_something_is_missing() -> None:
    values = changed(SMALL, {"model.path": "no-model", "corpus.path": "text.txt"})
    Path("study.yaml").write_text(yaml.safe_dump(values))
    Path("text.txt").write_text("A text.\n")
    done = CliRunner().invoke(app, ["plan", "study.yaml"], catch_exceptions=False)
    assert done.exit_code == 1
    assert "missing: model.path: no-model/config.json is not there" in done.output
    assert "corpus.path" not in done.output


def test_latents_of_a_goal_that_the_study_s_sae_lacks_are_told_before_any_job(
    tmp_path: Path,
) -> None:
    goal = yaml.safe_load((ROOT / "workflow/goals/stories/animals.yaml").read_text())
    steered = study_config("minimal-text", {"effects": None})
    steered["steering"] = {
        "goals": {"directory": str(tmp_path), "names": ["animals"]},
        "vectors": {"methods": ["caa", "sae"]},
        "judge": {"kind": "lexical"},
    }
    steered["saes"] = {"chosen-2b": {"train": {"d_sae": 64, "k": 4}}}
    for listed, fault in (
        ({"chosen-2b": {63: 1.0}, "another": {500: 1.0}}, None),
        ({"chosen-2b": {63: 1.0, 64: 0.5}}, r"latents.chosen-2b.64: .* has latents 0 to 63$"),
        ({"chosen-9b": {500: 1.0}}, None),  # another study's SAE
        ({"chozen-2b": {5: 1.0}}, "latents.chozen-2b: this study targets the SAE 'chosen-2b' and"),
        ({"chosen-2b": {63: 1.0}, "chozen-2b": {5: 1.0}}, None),
    ):
        (tmp_path / "animals.yaml").write_text(yaml.safe_dump(goal | {"latents": listed}))
        for looks in (
            lambda: plan_of(check_any_study(steered), tmp_path),
            lambda: workflow_of(steered),
        ):
            if fault:
                with pytest.raises(SaeflowError, match=fault):
                    looks()
            else:
                looks()


@pytest.mark.parametrize(
    ("file", "published", "reads"),
    [
        ("saelens-standard", "any", "blocks.3.hook_resid_post"),
        ("llama_scope-2024", "any", "blocks.3.hook_resid_post"),
        (
            "gemma_scope-res",
            "gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_5",
            "blocks.3.hook_resid_post",
        ),
        (
            "gemma_scope_2-resid_post",
            "any",
            r"model.layers.7.output \(blocks.7.hook_resid_post\)",
        ),
        ("sparsify-topk", "layers.3", r"layers.3 \(blocks.3.hook_resid_post\)"),
    ],
)
def test_an_sae_of_another_place_is_told_before_any_job(
    tmp_path: Path, file: str, published: str, reads: str
) -> None:
    path = tmp_path / published
    shutil.copytree(ROOT / "tests/data/saes" / file, path)
    layer = 7 if ".7." in reads else 3
    hook = f"blocks.{layer}.hook_resid_post"
    values = changed(SMALL, {"saes": {"main": {"path": str(path)}}, "hook": hook})
    plan_of(check_any_study(values), tmp_path)
    plan_of(check_any_study({**values, "hook": f"blocks.{layer + 1}.hook_resid_pre"}), tmp_path)
    elsewhere = {**values, "hook": "blocks.2.hook_resid_post"}
    said = rf"^saes.main.path: .* reads {reads}, not blocks.2.*\(saes.main.hook\)$"
    with pytest.raises(SaeflowError, match=said):
        plan_of(check_any_study(elsewhere), tmp_path)
    with pytest.raises(SaeflowError, match=said):
        workflow_of(elsewhere).everything(None)


def test_a_transcoder_that_writes_elsewhere_is_told_before_any_job(tmp_path: Path) -> None:
    path = tmp_path / "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_5"
    shutil.copytree(ROOT / "tests/data/saes/gemma_scope-res", path)
    sae = {"path": str(path), "hook": "blocks.3.mlp.hook_in", "target": "blocks.3.hook_mlp_out"}
    plan_of(check_any_study(changed(SMALL, {"saes": {"main": sae}})), tmp_path)
    sae["target"] = "blocks.4.hook_mlp_out"
    said = r"writes blocks.3.hook_mlp_out, not blocks.4.*; correct its target \(saes.main.target\)$"
    with pytest.raises(SaeflowError, match=said):
        plan_of(check_any_study(changed(SMALL, {"saes": {"main": sae}})), tmp_path)
