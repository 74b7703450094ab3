"""Pairs of tasks: read, held against what would spoil them, and split."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from saeflow.analyses.tasks.settings import LEAST, parted
from saeflow.config.shipped import shipped_or_own
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.tasks.settings import TaskLists, TaskPrompts

SPLITS = ("train", "validation", "test")
SHIPPED = "workflow/tasks"


class Pair(NamedTuple):
    """An input and what becomes of it."""

    input: str
    output: str


Split = Mapping[str, list[Pair]]
"""Pairs by split; no pair, and no pair's reverse, is in two of them."""


def file_of(own: TaskLists, task: str) -> str | None:
    """The file of a task as the config names it; None for one that stands in the config."""
    if task in own.shipped:
        return f"{SHIPPED}/{task}.csv"
    return own.files.get(task)


def read_lists(
    own: TaskLists, prompts: TaskPrompts, files: Mapping[str, Path], seed: int
) -> dict[str, Split]:
    """The pairs of every task by split.

    Args:
        own: which tasks.
        prompts: how they are shown.
        files: where the files of tasks lie, by name; for others they are sought as the config says.
        seed: of the study.

    Raises:
        SaeflowError: a file cannot be read, or a task cannot be shown in this template; one
            sentence.
    """
    splits = {}
    for task in own.names:
        split = _split(_checked(own, prompts, task, files), own, task, seed)
        check_shots(split["train"], prompts.shots)
        splits[task] = split
    return splits


def _checked(
    own: TaskLists, prompts: TaskPrompts, task: str, files: Mapping[str, Path]
) -> list[Pair]:
    if task in own.pairs:
        source = f"tasks.lists.pairs.{task}"
        pairs = [Pair(each.input, each.output) for each in own.pairs[task]]
    else:
        named = file_of(own, task)
        assert named is not None
        path = files.get(task) or shipped_or_own(named)
        source, pairs = str(path), read_task(path)
    for number, pair in enumerate(pairs, start=1):
        for template in filter(None, (prompts.template, prompts.other)):
            _refuse_marks(pair, template, f"{source}: pair {number}")
    first = list({pair.input: pair for pair in reversed(pairs)}.values())[::-1]
    if len(first) < LEAST:
        raise SaeflowError(
            f"{source}: task '{task}' has {len(first)} pairs of different inputs, and {LEAST} are "
            "needed to learn from some, choose by others and tell from others; add more"
        )
    if len({pair.output for pair in first}) < 2:
        raise SaeflowError(
            f"{source}: every output of task '{task}' is '{first[0].output}', so that nothing "
            "depends on the input; name another list"
        )
    return first


def _refuse_marks(pair: Pair, template: str, where: str) -> None:
    """See that a prompt shows where an input and an output end."""
    _, separator, _, closing = parted(template)
    marks = [separator.strip(), closing.strip() or closing.strip(" ")]
    for name, text in zip(("input", "output"), pair, strict=True):
        for mark in filter(None, marks):
            if mark in text:
                raise SaeflowError(
                    f"{where}: the {name} {text!r} holds {mark!r}, with which the template "
                    "separates inputs and outputs; leave the pair out, or set another template "
                    "in tasks.prompts"
                )
        if text != text.strip():
            raise SaeflowError(f"{where}: the {name} {text!r} has blanks around it; remove them")


def read_task(path: Path) -> list[Pair]:
    """The pairs of a CSV or JSON file.

    Raises:
        SaeflowError: it cannot be read, or a pair lacks its input or output.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise SaeflowError(f"{path}: the list of a task cannot be read ({error})") from None
    rows = _of_json(path, text) if path.suffix.lower() == ".json" else _of_csv(path, text)
    pairs = []
    for number, row in enumerate(rows, start=1):
        texts = [row.get(key) if isinstance(row, dict) else None for key in Pair._fields]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise SaeflowError(
                f"{path}: pair {number} must have an input and an output, texts that are not "
                f"blank; it is {str(row)[:80]}"
            )
        pairs.append(Pair(*map(str, texts)))
    return pairs


def _of_json(path: Path, text: str) -> Sequence[object]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise SaeflowError(f"{path}: is no JSON ({error})") from None
    if not isinstance(rows, list):
        raise SaeflowError(f'{path}: must be a list of {{"input": …, "output": …}}')
    return rows


def _of_csv(path: Path, text: str) -> Sequence[object]:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise SaeflowError(f"{path}: is no CSV ({error}); look for a quote that is open") from None
    if rows and not {"input", "output"} <= rows[0].keys():
        raise SaeflowError(
            f"{path}: must have the columns input and output; it has {', '.join(map(str, rows[0]))}"
        )
    return rows


def _split(pairs: Sequence[Pair], own: TaskLists, task: str, seed: int) -> Split:
    """Half the pairs to learn from, a quarter each to choose by and to tell from; a pair and its
    reverse (hot, cold; cold, hot) are of one split."""
    together: dict[frozenset[str], list[Pair]] = {}
    for pair in pairs:
        together.setdefault(frozenset(pair), []).append(pair)
    groups = list(together.values())
    most = min(len(pairs), own.most)
    split: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    for place in numpy_generator(seed, "tasks", task, "split").permutation(len(groups)):
        done = sum(map(len, split.values()))
        if done < most:
            name = SPLITS[(done >= most // 2) + (done >= 3 * most // 4)]
            split[name] += groups[place]
    check_disjoint(split, task)
    return split


def check_shots(pool: Sequence[Pair], shots: int) -> None:
    """See that so many examples can be drawn.

    Raises:
        SaeflowError: the pool is too small.
    """
    if len(pool) <= shots:
        raise SaeflowError(
            f"tasks.prompts.shots: {shots} examples beside the one that is asked for cannot be "
            f"drawn from {len(pool)} pairs; set fewer, or add pairs"
        )


def check_disjoint(split: Split, task: str) -> None:
    """See that nothing of one split is in another.

    Raises:
        AssertionError: something is.
    """
    seen: dict[frozenset[str], str] = {}
    for name, pairs in split.items():
        for pair in pairs:
            earlier = seen.setdefault(frozenset(pair), name)
            assert earlier == name, f"{task}: {pair} is in {earlier} and in {name}"
