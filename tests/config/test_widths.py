"""An SAE of another model, and a model that cannot be, are told before any job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkout import DATA
from hub_server import environment, serving
from studies import changed, study_config
from tiny_models import save_tiny_model, tiny_tokenizer

from saeflow.config.model_files import fault_of_config
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.models.language_model import load_model

SAES = DATA / "saes"
TEXT = study_config("minimal-text", {"effects": None, "steering": None})
D_MODEL, D_SAE, D_OUT = 6, 12, 7  # of the SAEs there; what their transcoders write
STREAM, HEADS = "blocks.3.hook_resid_post", "blocks.4.attn.hook_z"
WHOLE = {"hidden_size": D_MODEL, "num_attention_heads": 2, "num_hidden_layers": 9, "vocab_size": 64}


def checkpoint(folder: Path, **config: Any) -> Path:
    """As much of a checkpoint as is looked at before any job."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **WHOLE, **config}))
    (folder / "model.safetensors").write_bytes(b"")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def study_of(model: Path, sae: dict[str, Any], hook: str) -> dict[str, Any]:
    sections = {"model.path": str(model), "saes": {"main": sae}, "hook": hook}
    return changed(TEXT, sections)


def hook_and_target(name: str) -> tuple[str, dict[str, str]]:
    hook = "blocks.3.attn.hook_z" if "hook_z" in name else "blocks.3.hook_resid_post"
    if name == "sparsify-transcode_skip":  # such transcoders write as much as they read
        return hook, {"target": "blocks.4.hook_mlp_out"}
    return hook, {"target": HEADS} if "transcod" in name else {}


def checkpoint_for(name: str, folder: Path, **config: Any) -> Path:
    """A checkpoint whose heads, side by side, have the width that the transcoders there write."""
    heads = {"num_attention_heads": 1, "head_dim": D_OUT} if "transcod" in name else {}
    return checkpoint(folder, **heads, **config)


@pytest.mark.parametrize("name", sorted(path.name for path in SAES.iterdir() if path.is_dir()))
def test_an_sae_of_another_width_is_refused_before_any_job(tmp_path: Path, name: str) -> None:
    hook, target = hook_and_target(name)
    sae = {"path": str(SAES / name), **target}
    check_any_study(study_of(checkpoint_for(name, tmp_path / "fits"), sae, hook))
    larger = checkpoint_for(name, tmp_path / "larger", hidden_size=8)
    with pytest.raises(SaeflowError) as raised:
        check_any_study(study_of(larger, sae, hook))
    [line] = str(raised.value).splitlines()
    assert line.startswith("config: saes.main.path: ")
    assert f"reads activations of {D_MODEL} numbers, and those of 'lm' at {hook} have 8" in line


def test_a_single_file_of_another_width_is_refused(tmp_path: Path) -> None:
    shapes = {"W_enc": (D_MODEL, D_SAE), "W_dec": (D_SAE, D_MODEL), "b_enc": (D_SAE,)}
    tensors = {name: torch.zeros(*shape) for name, shape in shapes.items()}
    torch.save({**tensors, "b_dec": torch.zeros(D_MODEL)}, tmp_path / "sae.pt")
    larger = checkpoint(tmp_path / "larger", hidden_size=8)
    with pytest.raises(SaeflowError, match=r"reads activations of 6 numbers, .* have 8"):
        check_any_study(
            study_of(larger, {"path": str(tmp_path / "sae.pt")}, "blocks.3.hook_resid_post")
        )


def test_heads_side_by_side_have_a_width_of_their_own(tmp_path: Path) -> None:
    sae = {"path": str(SAES / "saelens-hook_z")}
    wide = checkpoint(tmp_path / "wide", hidden_size=8, head_dim=3)
    check_any_study(study_of(wide, sae, "blocks.3.attn.hook_z"))
    narrow = checkpoint(tmp_path / "narrow", hidden_size=6, head_dim=5)
    with pytest.raises(SaeflowError, match="have 10"):
        check_any_study(study_of(narrow, sae, "blocks.3.attn.hook_z"))


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        ("saelens-transcoder", D_OUT),
        ("saelens-jumprelu_skip_transcoder", D_OUT),
        ("gemma_scope_2-transcoder", D_OUT),
        ("sparsify-transcode_skip", D_MODEL),
    ],
)
def test_a_transcoder_that_writes_another_width_than_its_target_has_is_refused(
    tmp_path: Path, name: str, writes: int
) -> None:
    """Heads side by side have 10 numbers in this model, and the stream 6."""
    model = checkpoint(tmp_path / "model", head_dim=5)
    with pytest.raises(SaeflowError) as raised:
        check_any_study(study_of(model, {"path": str(SAES / name), "target": HEADS}, STREAM))
    [line] = str(raised.value).splitlines()
    assert f"the SAE writes activations of {writes} numbers, and those of 'lm' at {HEADS}" in line
    assert "have 10; name an SAE of this model, or correct model or hook" in line


def test_a_single_file_tells_what_it_writes(tmp_path: Path) -> None:
    shapes = {"W_enc": (D_MODEL, D_SAE), "W_dec": (D_SAE, 10), "b_enc": (D_SAE,)}
    tensors = {name: torch.zeros(*shape) for name, shape in shapes.items()}
    torch.save({**tensors, "b_dec": torch.zeros(10)}, tmp_path / "sae.pt")
    model = checkpoint(tmp_path / "model", head_dim=5)
    sae = {"path": str(tmp_path / "sae.pt"), "target": HEADS}
    check_any_study(study_of(model, sae, STREAM))
    with pytest.raises(SaeflowError, match=r"writes activations of 10 numbers, .* have 6"):
        check_any_study(study_of(model, {**sae, "target": "blocks.4.hook_mlp_out"}, STREAM))


def test_weights_to_begin_with_of_another_width_are_refused(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", head_dim=5)

    def refused(init_from: str, d_sae: int = D_SAE, **saes: dict[str, Any]) -> str:
        train = {"init_from": init_from, "d_sae": d_sae}
        config = study_of(model, {"train": train}, STREAM)
        config["saes"] |= saes
        with pytest.raises(SaeflowError) as raised:
            check_any_study(config)
        [line] = str(raised.value).splitlines()
        assert line.startswith("config: saes.main.train.init_from: ")
        return line

    own = str(SAES / "sparsify-topk")
    check_any_study(study_of(model, {"train": {"init_from": own, "d_sae": D_SAE}}, STREAM))
    assert f"'{own}' has d_sae {D_SAE}, and this SAE 24; make them equal" in refused(own, 24)
    imported = {"path": own, "hook": STREAM}
    assert "'other' has d_sae 12, and this SAE 24" in refused("other", 24, other=imported)
    elsewhere = {"train": {"d_sae": D_SAE}, "hook": HEADS}
    said = refused("other", other=elsewhere)
    assert f"'other' reads activations of 10 numbers, and those of 'lm' at {STREAM} have 6" in said
    across = {
        "train": {"d_sae": D_SAE, "architecture": "batchtopk"},
        "hooks": [STREAM, "blocks.5.hook_resid_post"],
    }
    assert "is a crosscoder" in refused("other", other=across)
    transcoder = {"train": {"d_sae": D_SAE}, "target": HEADS}
    assert "'other' writes activations of 10 numbers" in refused("other", other=transcoder)
    larger = study_of(checkpoint(tmp_path / "larger", hidden_size=8), {}, STREAM)
    larger["saes"] = {"main": {"train": {"init_from": own, "d_sae": D_SAE}}}
    with pytest.raises(SaeflowError, match=r"reads activations of 6 numbers, .* have 8"):
        check_any_study(larger)


def test_a_crosscoder_of_unlike_widths_is_refused(tmp_path: Path) -> None:
    train = {"architecture": "batchtopk", "d_sae": D_SAE}
    saes = {"main": {"train": {"d_sae": D_SAE}}, "both": {"train": train, "hooks": [STREAM, HEADS]}}
    fits = changed(study_of(checkpoint(tmp_path / "fits"), {}, STREAM), {"saes": saes})
    check_any_study(fits)
    config = {**fits, "model": {**fits["model"], "path": str(tmp_path / "unlike")}}
    checkpoint(tmp_path / "unlike", head_dim=5)
    said = rf"saes.both: a crosscoder's sources have one width.*{STREAM} have 6 numbers.*{HEADS} 10"
    with pytest.raises(SaeflowError, match=said):
        check_any_study(config)
    other = checkpoint(tmp_path / "other", hidden_size=8)
    models = {"train": train, "models": ["lm", "other"]}
    config = {**fits, "models": [{"name": "other", "path": str(other)}]}
    config["saes"] = {**saes, "both": models}
    with pytest.raises(SaeflowError, match=r"of 'lm' at .* have 6 numbers, those of 'other'.* 8;"):
        check_any_study(config)


def test_an_sae_of_a_hub_is_refused_once_it_lies_in_the_cache(tmp_path: Path) -> None:
    larger = checkpoint(tmp_path / "larger", hidden_size=8)
    published = {"repo": "some/saes", "file": "layer_3"}
    sae = {"published": published, "d_sae": D_SAE}
    (tmp_path / "text.txt").write_text("the cat")
    config = study_of(larger, sae, "blocks.3.hook_resid_post")
    config["corpus"]["path"] = "text.txt"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    command = Path(sys.executable).with_name("saeflow")
    words = ["fetch", "sae", "--published", json.dumps(published), "--key", "saes.main.published"]
    words += ["--hook", "blocks.3.hook_resid_post", "--output", "own"]
    with serving() as hub:
        folder = SAES / "sparsify-topk"
        files = {f"layer_3/{file.name}": file.read_bytes() for file in folder.iterdir()}
        hub.add("some/saes", files)
        run: dict[str, Any] = {
            "cwd": tmp_path,
            "env": {**os.environ, **environment(hub, tmp_path / "home")},
            "capture_output": True,
            "text": True,
        }
        plan = [command, "plan", "mine.yaml", "--no-calibrate"]
        before = subprocess.run(plan, **run)
        assert before.returncode == 0, before.stderr
        fetched = subprocess.run([command, *words], **run)
        assert fetched.returncode == 0, fetched.stderr
        after = subprocess.run(plan, **run)
    assert after.returncode == 1
    assert "saes.main.published: " in after.stderr
    assert "reads activations of 6 numbers" in after.stderr
    assert "Traceback" not in after.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"max_position_embeddings": 0},
        {"max_position_embeddings": -1},
        {"max_position_embeddings": "long"},
        {"max_position_embeddings": 10**12},
        {"hidden_size": 0},
        {"hidden_size": 7.5},
        {"num_hidden_layers": True},
        {"num_attention_heads": -2},
        {"num_key_value_heads": 0},
        {"head_dim": 0},
        {"vocab_size": 0},
        {"intermediate_size": [64, 0]},
    ],
)
def test_a_config_of_no_model_is_refused_before_any_job_and_when_it_is_loaded(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = save_tiny_model(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    assert fault_of_config(config) is None
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    said = rf"its config.json says {next(iter(change))} .*, which must be a whole number"
    with pytest.raises(SaeflowError, match=said):
        load_model(folder)
    with pytest.raises(SaeflowError, match=said):
        check_any_study(changed(TEXT, {"model.path": str(folder)}))


def test_what_a_config_leaves_open_is_no_fault() -> None:
    config = {**WHOLE, "head_dim": None, "n_inner": None, "max_position_embeddings": None}
    assert fault_of_config(config) is None
    assert fault_of_config({"text_config": {"model_type": "gemma3_text", **config}}) is None
    inside = {**config, "hidden_size": 0}
    fault = fault_of_config({"text_config": {"model_type": "gemma3_text", **inside}})
    assert fault is not None
    assert "hidden_size" in fault
