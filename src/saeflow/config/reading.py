"""Reading configs and goals from YAML; every complaint is one line that opens with the key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from saeflow.config.complaints import complaints_of
from saeflow.config.goal import Goal
from saeflow.config.section import Complaint
from saeflow.config.sections import ChessStudy, Study
from saeflow.config.token_sets import TokenSet, TokenSets
from saeflow.errors import SaeflowError

M = TypeVar("M", bound=BaseModel)


def read_study(*paths: Path) -> Study:
    """Read a study of language from YAML files, later ones over earlier ones.

    Raises:
        SaeflowError: a file cannot be read, or a key is unknown, missing or wrong; all complaints, a line each.
    """
    study = read_any_study(*paths)
    if not isinstance(study, Study):
        source = ", ".join(map(str, paths))
        raise SaeflowError(f"{source}: kind: '{study.kind}' is not planned; `snakemake -n` tells what would run")
    return study


def read_any_study(*paths: Path) -> Study | ChessStudy:
    """Read a study of whatever kind it names, as `read_study` does.

    Raises:
        SaeflowError: a file cannot be read, or a key is unknown, missing or wrong; all complaints, a line each.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        _merge(merged, _read_yaml(Path(path)))
    return check_study(merged, ", ".join(map(str, paths)))


def check_study(values: dict[str, Any], source: str = "config") -> Study | ChessStudy:
    """Turn a mapping into a study of the kind that it names.

    Raises:
        SaeflowError: what is wrong with it, a line per complaint.
    """
    unset: list[Complaint] = []
    expanded = _expanded(values, "", unset)
    if expanded.get("kind") == "chess":
        return _validated(ChessStudy, expanded, source, unset)
    return _validated(Study, expanded, source, unset)


def refuse_loose_yaml(path: Path) -> None:
    """Refuse a config that Snakemake takes and a study is not: with a key that stands twice, or one that runs code.

    Raises:
        SaeflowError: what stands in the file.
    """
    _read_yaml(Path(path))


def read_goal(path: Path) -> Goal:
    """Read and check one goal's file.

    Raises:
        SaeflowError: the file cannot be read, or a key is unknown, missing or wrong; all complaints, a line each.
    """
    goal = _validated(Goal, _read_yaml(Path(path)), str(path), [])
    return goal if goal.topic else goal.model_copy(update={"topic": Path(path).stem})


def read_token_sets(path: Path) -> dict[str, TokenSet]:
    """Read and check one file of token sets.

    Raises:
        SaeflowError: the file cannot be read, a set is empty, or a pattern is no regular expression; all complaints.
    """
    return _validated(TokenSets, _read_yaml(Path(path)), str(path), []).sets


def _validated(model: type[M], values: dict[str, Any], source: str, found: list[Complaint]) -> M:
    """The values as `model`, unless something was `found` wrong before or is now; one complaint per key and reason."""
    known = {key for key, _ in found}
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        found = found + [complaint for complaint in complaints_of(error) if complaint[0] not in known]
    if found:
        raise SaeflowError("\n".join(f"{source}: {line}" for line in _lines(found)))
    return checked


def complaints(error: ValidationError) -> list[str]:
    """What is wrong with a section, as lines that open with the key."""
    return _lines(complaints_of(error))


def _lines(found: Iterable[Complaint]) -> list[str]:
    return list(dict.fromkeys(f"{key or 'config'}: {reason}".replace("\n", "\\n") for key, reason in found))


STRING = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once (plain YAML would silently keep the last) and nothing holds itself."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.deep_construct = True  # what holds itself is then refused

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        # JSON, which is YAML, spells one character beyond 16 bits as two escapes.
        return (
            value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") if node.tag == STRING else value
        )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problem = f"'{key.value}' stands twice; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SaeflowError(f"{path}: cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SaeflowError(f"{path}: is not YAML: {where}{error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SaeflowError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        raise SaeflowError(f"{path}: is empty; it must hold keys and values")
    if not isinstance(values, dict):
        raise SaeflowError(f"{path}: must hold keys and values; it holds a {type(values).__name__}")
    if code := [str(key) for key in values if str(key).startswith("__")]:
        does = "lets Snakemake run code of the file as it reads it"
        raise SaeflowError(f"{path}: {code[0]}: {does}; a study holds values only, remove it")
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _expanded(values: Any, key: str, unset: list[Complaint]) -> Any:
    """Replace ``${NAME}`` in the values of keys called ``path`` and ``directory``; what is not set joins `unset`."""
    if isinstance(values, dict):
        return {name: _expanded(value, f"{key}.{name}".strip("."), unset) for name, value in values.items()}
    if not isinstance(values, str) or key.rpartition(".")[2] not in ("path", "directory"):
        return values

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            reason = f"the environment has no {name}; set it (export {name}=...) or write a path instead"
            unset.append((key, reason))
        return os.environ.get(name, "")

    return re.sub(r"\$\{(\w+)\}", value_of, values)
