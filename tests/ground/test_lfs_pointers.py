"""A clone without git-lfs leaves pointers in the place of large files: whoever reads one says
so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkout import DATA
from tiny_models import save_tiny_model

from saeflow.analyses.effects.io import open_effects
from saeflow.artifacts import read_json
from saeflow.chess.games.files import read_chunks
from saeflow.config import read_goal
from saeflow.config.sections import Corpus
from saeflow.corpora.text import documents
from saeflow.errors import SaeflowError
from saeflow.models.io import link_model
from saeflow.models.language_model import load_model, load_tokenizer
from saeflow.saes.io import import_sae
from saeflow.tables import read_table

POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 4976698672\n"
)
SAES = DATA / "saes"


def of_model(file: Path) -> None:
    save_tiny_model(file.parent, "llama")
    file.write_text(POINTER)
    link_model(file.parent, file.parent.parent / "linked")


def of_sae(folder: str) -> Callable[[Path], Any]:
    def read(file: Path) -> None:
        shutil.copytree(SAES / folder, file.parent, dirs_exist_ok=True)
        file.write_text(POINTER)
        import_sae(file.parent)

    return read


def of_effects(file: Path) -> None:
    with open_effects(file):
        pass


READERS: dict[str, Callable[[Path], Any]] = {
    "model.safetensors": of_model,
    "sae_weights.safetensors": of_sae("saelens-standard"),
    "params.npz": of_sae("gemma_scope-res"),
    "ae.pt": of_sae("dictionary_learning-AutoEncoder"),
    "text.jsonl": lambda file: list(documents(Corpus(kind="text", path=str(file)), "sae")),
    "text.txt": lambda file: list(documents(Corpus(kind="text", path=str(file)), "sae")),
    "text.parquet": lambda file: list(documents(Corpus(kind="text", path=str(file)), "sae")),
    "games.pgn": lambda file: list(read_chunks(file, 8)),
    "table.parquet": read_table,
    "effects.h5": of_effects,
    "metrics.json": read_json,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pointer_in_a_file_s_place_is_told(name: str, tmp_path: Path) -> None:
    file = tmp_path / "clone" / name
    file.parent.mkdir()
    file.write_text(POINTER)
    with pytest.raises(
        SaeflowError, match=rf"{name}: is a Git LFS pointer and not the file itself"
    ):
        READERS[name](file)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_pointer_is_told_when_a_checkpoint_is_loaded(
    load: Callable[[Path], Any], name: str, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path / "clone", "llama")
    (folder / name).write_text(POINTER)
    with pytest.raises(
        SaeflowError, match=rf"{name}: is a Git LFS pointer and not the file itself"
    ):
        load(folder)


def test_json_s_way_to_spell_an_emoji_is_read_in_a_goal(tmp_path: Path) -> None:
    goal = tmp_path / "joy.yaml"
    texts = {"positive": ["ha \U0001f600", "b"], "negative": ["c", "d"]}
    goal.write_text(
        json.dumps({"title": "Joy", "criterion": "The text holds \U0001f600.", **texts})
    )
    assert read_goal(goal).criterion == "The text holds \U0001f600."
    goal.write_text(
        '{"title": "Joy", "criterion": "half: \\ud83d", "positive": ["a", "b"], "negative": ["c", "d"]}'
    )
    with pytest.raises(SaeflowError, match="criterion"):
        read_goal(goal)
