"""Reading configs and goals from YAML; every complaint is one line that opens with the key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from saeflow.config.complaints import complaints_of
from saeflow.config.goal import Goal
from saeflow.config.pairs import Pair, Pairs
from saeflow.config.questions import Question, Questions
from saeflow.config.section import Complaint
from saeflow.config.sections.labelled import Catalogue, LabelledTexts
from saeflow.config.token_sets import TokenSet, TokenSets
from saeflow.config.values import refuse_endless, unwritable
from saeflow.errors import SaeflowError

M = TypeVar("M", bound=BaseModel)
MOST_COMPLAINTS = 50
_HANDED_DOWN = ("text", "label", "value", "group", "classes", "package")
LONGEST_KEY, LONGEST_REASON = 200, 600  # characters


def merged_files(*paths: Path, over: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What YAML or JSON files say together, later ones over earlier ones.

    Args:
        paths: the files.
        over: values over those of all files, as Snakemake's `--config` gives them.

    Raises:
        SaeflowError: a file cannot be read.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merged(merged, _read_yaml(Path(path)))
    return _merged(merged, _resolved(over or {}))


def _resolved(value: Any) -> Any:
    """A value of `--config` with null, true, false and numbers for what they are: Snakemake leaves
    them as text where they stand in braces, and null anywhere."""
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    try:
        meant = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return value if isinstance(meant, dict | list) else meant


def checked(study: type[M], values: dict[str, Any], source: str) -> M:
    """Turn a mapping into a study of a kind.

    Raises:
        SaeflowError: what is wrong with it, a line per complaint.
    """
    refuse_endless(values, source)
    return _validated(study, values, source)


def read_goal(path: Path) -> Goal:
    """Read and check one goal's file.

    Raises:
        SaeflowError: the file cannot be read, or a key is unknown, missing or wrong; all
            complaints, a line each.
    """
    goal = _validated(Goal, _read_yaml(Path(path)), str(path))
    return goal if goal.topic else goal.model_copy(update={"topic": Path(path).stem})


def read_token_sets(path: Path) -> dict[str, TokenSet]:
    """Read and check one file of token sets.

    Raises:
        SaeflowError: the file cannot be read, a set is empty, or a pattern is no regular
            expression; all complaints.
    """
    return _validated(TokenSets, _read_yaml(Path(path)), str(path)).sets


def read_questions(path: Path) -> list[Question]:
    """Read and check one file of multiple-choice questions; raises as `read_goal` does."""
    return _validated(Questions, _read_yaml(Path(path)), str(path)).questions


def read_pairs(path: Path) -> list[Pair]:
    """Read and check one file of pairs to tune a model on; raises as `read_goal` does."""
    return _validated(Pairs, _read_yaml(Path(path)), str(path)).pairs


def read_catalogue(path: Path) -> dict[str, LabelledTexts]:
    """Read and check one file of sets of labelled texts.

    What stands under ``defaults`` counts for every set that does not say otherwise, and what a set
    says of columns and package for its shifted test sets.

    Raises:
        SaeflowError: as `read_goal` does.
    """
    values = _read_yaml(Path(path))
    defaults, sets = values.pop("defaults", {}), values.get("sets", {})
    if isinstance(defaults, Mapping) and isinstance(sets, Mapping):
        values["sets"] = {name: _with_defaults(defaults, own) for name, own in sets.items()}
    return _validated(Catalogue, values, str(path)).sets


def _with_defaults(defaults: Mapping[str, Any], own: Any) -> Any:
    if not isinstance(own, Mapping):
        return own
    whole = _merged(defaults, own)
    handed = {key: whole[key] for key in _HANDED_DOWN if key in whole}
    if isinstance(shifted := whole.get("shifted"), Mapping):
        whole["shifted"] = {
            name: _merged(
                {key: value for key, value in handed.items() if _is_handed(key, test)}, test
            )
            if isinstance(test, Mapping)
            else test
            for name, test in shifted.items()
        }
    return whole


def _is_handed(key: str, test: Mapping[str, Any]) -> bool:
    """Whether a test set takes a key of its set: another source or coding of its own is whole."""
    if key == "package":
        return not {"path", "published", "examples"} & test.keys()
    return not (key in test or (key in ("label", "value") and {"label", "value"} & test.keys()))


def _validated(model: type[M], values: dict[str, Any], source: str) -> M:
    """The values as `model`; where they are wrong, one complaint per key and reason."""
    if faults := unwritable(values):  # sections reckon with numbers that are numbers
        raise _refusal(source, faults)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = list(complaints_of(error))
    raise _refusal(source, wrong)


def _refusal(source: str, complaints: list[Complaint]) -> SaeflowError:
    lines = [f"{source}: {line}" for line in _lines(complaints)]
    if (more := len(lines) - MOST_COMPLAINTS) > 0:
        lines[MOST_COMPLAINTS:] = [f"{source}: and {more} complaints more"]
    return SaeflowError("\n".join(lines))


def complaints(error: ValidationError) -> list[str]:
    """What is wrong with a section, as lines that open with the key."""
    return _lines(complaints_of(error))


def _lines(complaints: Iterable[Complaint]) -> list[str]:
    lines = (
        f"{_cut(key, LONGEST_KEY) or 'config'}: {_cut(reason, LONGEST_REASON)}"
        for key, reason in complaints
    )
    return list(dict.fromkeys(map(_on_a_line, lines)))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


STRING = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once (plain YAML would silently keep the last) and nothing holds
    itself."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.deep_construct = True  # what holds itself is then refused

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # such as a date of a thirteenth month, or !!int before a word
            problem = (
                f"is no {node.tag.rpartition(':')[2]} ({error}); correct it, or put it in quotes"
            )
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if node.tag == STRING:  # JSON, which is YAML, spells one beyond 16 bits as two escapes
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return value

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
        values = _values_of(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; correct its name, or make it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SaeflowError(f"{path}: cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SaeflowError(f"{path}: is not YAML: {where}{_problem(error.problem)}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SaeflowError(f"{path}: is not YAML: {_problem(error)}") from None
    if values is None:
        raise SaeflowError(f"{path}: is empty; it must hold keys and values")
    if not isinstance(values, dict):
        raise SaeflowError(f"{path}: must hold keys and values; it holds a {type(values).__name__}")
    if code := [str(key) for key in values if str(key).startswith("__")]:
        does = "lets Snakemake run code of the file as it reads it"
        raise SaeflowError(
            f"{path}: {_problem(code[0])}: {does}; a study holds values only, remove it"
        )
    refuse_endless(values, str(path))
    return values


def _values_of(text: str) -> Any:
    """What a file says: JSON where it is JSON, as Snakemake reads it, else YAML."""
    try:
        return json.loads(text, object_pairs_hook=_keys_once)
    except ValueError:
        return yaml.load(text, _Loader)


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise yaml.constructor.ConstructorError(None, None, f"'{twice}' stands twice; keep one")
    return values


def _on_a_line(text: str) -> str:
    """A text with what cannot be seen spelled out, such as a blank that is none and spoils a
    key."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def _problem(error: object) -> str:
    return _on_a_line(_cut(" ".join(str(error).split()), LONGEST_REASON))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The values of two mappings, those of `over` first. Neither is changed: a name in YAML may
    stand for a value at several keys."""
    both = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
    }
    return {**base, **over, **both}
