"""Pairs of tasks are read, split without overlap, and refused where they would tell nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import get_args

import pytest

from saeflow.analyses.tasks.lists import SPLITS, Pair, read_lists, read_task
from saeflow.analyses.tasks.settings import TaskLists, TaskName, TaskPrompts
from saeflow.errors import SaeflowError

PROMPTS = TaskPrompts()


def written(folder: Path, rows: list[tuple[str, str]], name: str = "own.csv") -> Path:
    """A file of pairs."""
    path = folder / name
    if path.suffix == ".json":
        path.write_text(json.dumps([{"input": a, "output": b} for a, b in rows]))
    else:
        path.write_text("input,output\n" + "".join(f"{a},{b}\n" for a, b in rows))
    return path


def many(count: int = 24) -> list[tuple[str, str]]:
    return [(f"in{i}", f"out{i}") for i in range(count)]


def read(path: Path, prompts: TaskPrompts = PROMPTS) -> dict[str, list[Pair]]:
    own = TaskLists(shipped=[], files={"own": str(path)})
    return dict(read_lists(own, prompts, {"own": path}, 0)["own"])


def test_every_shipped_task_has_sixty_pairs_and_splits_that_share_nothing() -> None:
    own = TaskLists(shipped=list(get_args(TaskName)))
    splits = read_lists(own, PROMPTS, {}, 0)
    assert len(splits) == 8
    for split in splits.values():
        assert sum(map(len, split.values())) >= 60
        parts = [{frozenset(pair) for pair in split[name]} for name in SPLITS]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        inputs = [pair.input for pairs in split.values() for pair in pairs]
        assert len(set(inputs)) == len(inputs)


def test_a_pair_and_its_reverse_are_never_in_two_splits(tmp_path: Path) -> None:
    rows = [pair for a, b in many() for pair in ((a, b), (b, a))]
    for seed in range(20):
        own = TaskLists(shipped=[], files={"own": "own.csv"})
        split = read_lists(own, PROMPTS, {"own": written(tmp_path, rows)}, seed)["own"]
        where = {frozenset(pair): name for name in SPLITS for pair in split[name]}
        assert all(where[frozenset(pair)] == name for name in SPLITS for pair in split[name])
        assert sum(map(len, split.values())) == len(rows)


def test_csv_and_json_hold_the_same_pairs(tmp_path: Path) -> None:
    as_csv, as_json = (written(tmp_path, many(), f"own.{end}") for end in ("csv", "json"))
    assert read_task(as_csv) == read_task(as_json) == [Pair(*row) for row in many()]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (many(6), "task 'own' has 6 pairs of different inputs, and 20 are needed"),
        ([("same", f"out{i}") for i in range(30)], "has 1 pairs of different inputs"),
        ([*many(), ("a", "b -> c")], "pair 25: the output 'b -> c' holds '->', with which"),
        ([*many(), ("a -> b", "c")], "pair 25: the input 'a -> b' holds '->'"),
        ([*many(), ("a ", "c")], "the input 'a ' has blanks around it"),
        ([*many(), ("a", "")], "pair 25 must have an input and an output"),
        ([(f"in{i}", "yes") for i in range(30)], "every output of task 'own' is 'yes'"),
    ],
)
def test_pairs_that_would_tell_nothing_are_refused_in_one_sentence(
    tmp_path: Path, rows: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(SaeflowError, match=message) as error:
        read(written(tmp_path, rows))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("own.csv", "word,plural\na,b\n", "must have the columns input and output; it has word"),
        ("own.json", '{"input": "a"}', "must be a list of"),
        ("own.json", "[1, 2]", "pair 1 must have an input and an output, .* it is 1"),
        ("own.json", "no", "is no JSON"),
        ("absent.csv", None, "the list of a task cannot be read"),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SaeflowError, match=message):
        read(tmp_path / name)


def test_a_quote_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text('input,output\n"a,b\n' + "c,d\n" * 500)
    usual = csv.field_size_limit(1_000)  # else it takes a large file
    try:
        with pytest.raises(SaeflowError, match=r"is no CSV .* look for a quote that is open"):
            read(tmp_path / "own.csv")
    finally:
        csv.field_size_limit(usual)


def test_only_line_breaks_end_a_row_whatever_else_a_word_holds(tmp_path: Path) -> None:
    rows = [
        ("naïve", "ingénue"),
        ("soft\u00adhyphen", "dash"),
        ("next\u0085line", "unit\u2028mark"),
    ]
    (tmp_path / "own.csv").write_text(
        "\ufeffinput,output\r\n" + "".join(f"{a},{b}\r\n" for a, b in rows), encoding="utf-8"
    )
    assert read_task(tmp_path / "own.csv") == [Pair(*row) for row in rows]


def test_more_examples_than_pairs_to_learn_from_are_refused_as_the_list_is_read(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, many())
    assert read(path, TaskPrompts(shots=11))
    with pytest.raises(
        SaeflowError, match=r"tasks\.prompts\.shots: 12 examples beside .* 12 pairs"
    ):
        read(path, TaskPrompts(shots=12))


def test_an_output_that_holds_the_mark_of_the_other_template_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [*many(), ("a", "Answer: b")])
    with pytest.raises(SaeflowError, match="holds 'Answer:'"):
        read(path)
    assert read(path, TaskPrompts(other=None))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{input} {output}\n", "has no separator between"),
        ("{input} -> \n", "must hold {input} once and {output} once"),
        ("{output} <- {input}\n", "must hold {input} before {output}"),
        ("{input} -> {output}", "must end an example behind"),
    ],
)
def test_a_template_without_a_place_to_read_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        TaskPrompts(template=template)


def test_two_lists_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"files\.plural: is the name of another list"):
        TaskLists(shipped=["plural"], files={"plural": "own.csv"})
