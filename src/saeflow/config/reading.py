"""Reading configs and goals from YAML; every complaint is one line that opens with the key."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from saeflow.config.sections import Goal, Study
from saeflow.errors import SaeflowError

M = TypeVar("M", bound=BaseModel)


def read_study(*paths: Path) -> Study:
    """Read a study from YAML files, later ones over earlier ones.

    Raises:
        SaeflowError: a file cannot be read, or a key is unknown, missing or wrong; all complaints, a line each.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        _merge(merged, _read_yaml(Path(path)))
    return check_study(merged, ", ".join(str(path) for path in paths))


def check_study(values: dict[str, Any], source: str = "config") -> Study:
    """Turn a mapping into a study, or tell what is wrong with it, a line per complaint."""
    return _validated(Study, _expanded(values), source)


def read_goal(path: Path) -> Goal:
    """Read and check one goal's file."""
    goal = _validated(Goal, _read_yaml(Path(path)), str(path))
    return goal if goal.topic else goal.model_copy(update={"topic": Path(path).stem})


def _validated(model: type[M], values: dict[str, Any], source: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = list(dict.fromkeys(_line(item) for item in error.errors()))
        raise SaeflowError("\n".join(f"{source}: {line}" for line in lines)) from None


def _line(error: Any) -> str:
    """One pydantic complaint as ``key.path: reason``."""
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("["))
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        return f"{key}: is not a known key; remove it or correct its spelling"
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "value_error":  # our own sentences already open with the key
        sentence = str(error["ctx"]["error"])
        return f"{key}: {sentence.partition(': ')[2]}" if key.startswith("saes.") else sentence
    value = repr(error["input"])
    if isinstance(error["input"], str) and kind in ("float_type", "int_type") and re.match(r"^[\d.]+e-?\d+$", error["input"]):
        message += " (YAML reads 3e-4 as text: write 3.0e-4)"
    return f"{key or 'config'}: {message[0].lower()}{message[1:]}; got {value if len(value) < 60 else value[:57] + '...'}"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SaeflowError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise SaeflowError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SaeflowError(f"{path}: must hold keys and values; it holds {type(values).__name__}")
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _expanded(values: Any, key: str = "") -> Any:
    """Replace ``${NAME}`` in the values of keys called ``path`` and ``directory`` by the environment's."""
    if isinstance(values, dict):
        return {name: _expanded(value, f"{key}.{name}".strip(".")) for name, value in values.items()}
    if isinstance(values, str) and key.rsplit(".", 1)[-1] in ("path", "directory"):
        for name in re.findall(r"\$\{(\w+)\}", values):
            if not os.environ.get(name):
                raise SaeflowError(f"{key}: the environment has no {name}; set it (export {name}=...) or write a path instead")
        return os.path.expandvars(values)
    return values
