"""The JSON schema and the reference page say what the sections say, and Snakemake's defaults do no
harm."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from checkout import ROOT
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate
from studies import study_config

from saeflow.analyses import Study
from saeflow.config import Goal, Section
from saeflow.config.reference import REFERENCE, reference
from saeflow.config.schema import json_schema, repository, schema_text
from saeflow.errors import SaeflowError
from saeflow.kinds import KINDS, check_any_study

MINIMAL = study_config("minimal", {"saes.other": {"path": "folder"}})
IMPORTED = study_config(
    "minimal-text",
    {
        "model": {"name": "lm", "published": {"repo": "openai/gpt2", "revision": "main"}},
        "saes": {"main": {"path": "folder"}},
    },
)


def sections(section: type[Section]) -> dict[str, Any]:
    """The schemas of a section and of all below it, by name."""
    schema = json_schema(section)
    return {section.__name__: schema, **schema.get("$defs", {})}


SCHEMA = KINDS["language"].schema
GENERATED = {kind.schema: partial(schema_text, kind.study) for kind in KINDS.values()}
GENERATED[REFERENCE] = partial(reference, {name: kind.study for name, kind in KINDS.items()})


@pytest.mark.parametrize("file", GENERATED)
def test_generated_files_have_not_drifted(file: Path) -> None:
    written = (ROOT / file).read_text(encoding="utf-8")
    assert written == GENERATED[file](), (
        f"{file} is not what the sections say; regenerate it: python -m saeflow.kinds"
    )


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(Study))
    assert yaml.safe_load((ROOT / SCHEMA).read_text(encoding="utf-8")) == json_schema(Study)


@pytest.mark.parametrize("values", [MINIMAL, IMPORTED])
def test_defaults_that_snakemake_fills_in_change_nothing(values: dict[str, Any]) -> None:
    filled = copy.deepcopy(values)
    validate(filled, str(ROOT / SCHEMA))
    assert filled["activations"]["format"] == "parquet"
    assert check_any_study(filled) == check_any_study(values)


def test_the_default_study_passes_the_schema() -> None:
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    study = check_any_study(copy.deepcopy(values))
    validate(values, str(ROOT / SCHEMA))
    assert check_any_study(values) == study


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sed", 1),
        ("seed", "0"),
        ("hook", "layer 1"),
        ("saes", {}),
        ("saes", {"a/b": {"path": "folder"}}),
        ("saes", {"main": {"train": {"d_sea": 64}}}),
        ("steering", {"goals": {"names": []}}),
        ("effects", {"measurement": {"scale": {"rule": "norm"}}}),
        ("model", {"name": "x" * 65, "train": {}}),
    ],
)
def test_the_schema_refuses_what_the_sections_refuse(key: str, value: Any) -> None:
    values = {**copy.deepcopy(MINIMAL), key: value}
    with pytest.raises(SaeflowError):
        check_any_study(values)
    with pytest.raises(WorkflowError):
        validate(values, str(ROOT / SCHEMA))


def test_every_section_is_closed_and_every_key_has_a_meaning() -> None:
    for name, schema in (sections(Goal) | sections(Study) | sections(KINDS["chess"].study)).items():
        assert schema["additionalProperties"] is False, name
        assert schema["description"], name
        for key, value in schema["properties"].items():
            assert value.get("description") or "$ref" in value or "patternProperties" in value, (
                f"{name}.{key}"
            )
            assert key in schema.get("required", []) or "default" in value, (
                f"{name}.{key} has no default"
            )


def test_the_reference_names_every_key_of_every_section() -> None:
    page = GENERATED[REFERENCE]()
    for name, schema in (sections(Goal) | sections(Study) | sections(KINDS["chess"].study)).items():
        for key in schema["properties"]:
            assert f"\n| `{key}` | " in page, f"{name}.{key}"
    assert all(line.count(" | ") == 3 for line in page.splitlines() if line.startswith("| "))


def test_all_files_are_written_by_one_command(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    command = [sys.executable, "-W", "error", "-m", "saeflow.kinds", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"wrote {tmp_path / file}" for file in GENERATED]
    for file in GENERATED:
        assert (tmp_path / file).read_bytes() == (ROOT / file).read_bytes()


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match=r"is not the repository of saeflow; give its folder"):
        repository([str(tmp_path)])
