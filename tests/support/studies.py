"""Configs of studies, which lie as YAML in `studies/`, and how a test changes single keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).parent / "studies"
MISSING = object()


def study_config(name: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config `studies/<name>.yaml`, with the values at dotted keys changed."""
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return changed(values, changes or {})


def changed(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the values at dotted keys replaced, or taken out where the value is MISSING."""
    values = copy.deepcopy(base)
    for dotted, value in changes.items():
        section, keys = values, dotted.split(".")
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        if value is MISSING:
            del section[keys[-1]]
        else:
            section[keys[-1]] = value
    return values


TINY = study_config("tiny")
GOALS: list[str] = TINY["steering"]["goals"]["names"]
METHODS: list[str] = TINY["steering"]["vectors"]["methods"]
COMPLETIONS: dict[str, Any] = TINY["steering"]["completions"]
