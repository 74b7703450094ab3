"""The JSON schema of the config, generated from the sections: Snakemake and editors read it.

``python -m saeflow.kinds [REPOSITORY]`` writes it.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema

from saeflow.artifacts import atomic
from saeflow.config.section import Section
from saeflow.errors import SaeflowError

OPENING = (
    "# Generated from the sections of saeflow.config by `python -m saeflow.kinds`; edit those.\n"
)


def json_schema(section: type[Section]) -> dict[str, Any]:
    """The schema of a section (draft 2020-12): closed objects, defaults, bounds, and what every key
    means."""
    schema = _tidied(section.model_json_schema(schema_generator=_WithoutTitles))
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def schema_text(study: type[Section]) -> str:
    """What the file of a study's schema holds."""
    return OPENING + yaml.safe_dump(
        json_schema(study), sort_keys=False, allow_unicode=True, width=110
    )


def prose(docstring: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(inspect.cleandoc(docstring).split()).replace("``", "`")


def repository(arguments: list[str]) -> Path:
    """The repository that is named by the first argument, or else the one that this package lies
    in.

    Raises:
        SaeflowError: it holds no pyproject.toml.
    """
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[3]
    if not (root / "pyproject.toml").is_file():
        raise SaeflowError(
            f"{root}: is not the repository of saeflow; give its folder as the argument"
        )
    return root


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically and say so."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


class _WithoutTitles(GenerateJsonSchema):
    """Pydantic's titles only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _tidied(schema: Any) -> Any:
    """Close mappings with named entries, drop the sections' titles, turn docstrings into prose, put
    null first."""
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {
        key: _tidied(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
    if isinstance(tidy.get("description"), str):
        tidy["description"] = prose(tidy["description"])
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False
    if (
        "anyOf" in tidy
    ):  # null first: Snakemake fills defaults into whatever meets a section's schema, null too
        tidy["anyOf"].sort(key=lambda option: option != {"type": "null"})
    return tidy
