"""Texts with labels become sets; sets are cleared of repeats and split by group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import zstandard
from pydantic import ValidationError

from saeflow.config.sections.labelled import LabelledTexts, TextSource
from saeflow.corpora.labelled import (
    LabelledSet,
    folds_by_group,
    read_labelled,
    split_by_group,
    truncated,
    without_repeats,
)
from saeflow.errors import SaeflowError

ROWS = [
    {
        "text": f"text {i}, {'warm' if i % 3 else 'cold'}",
        "label": int(i % 3 > 0),
        "who": f"w{i % 7}",
    }
    for i in range(60)
]


def write(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    file = folder / f"set{kind}"
    if kind == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == ".parquet":
        pl.DataFrame(rows).write_parquet(file)
    elif kind == ".csv":
        pl.DataFrame(rows).write_csv(file)
    else:
        file.write_bytes(zstandard.compress(pl.DataFrame(rows).write_csv().encode()))
    return file


def made(labels: list[int], groups: list[int] | None = None) -> LabelledSet:
    texts: list[Any] = [f"text {i}" for i in range(len(labels))]
    own = np.arange(len(labels)) if groups is None else np.array(groups)
    return LabelledSet("planted", texts, ["no", "yes"], np.array(labels, float), own)


@pytest.mark.parametrize("kind", [".csv", ".csv.zst", ".jsonl", ".parquet"])
def test_every_kind_of_file_says_the_same(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    texts = read_labelled(LabelledTexts(path=str(file), group="who"), "warmth", file)
    assert texts.classes == ["0", "1"]
    assert texts.prompts == [row["text"] for row in ROWS]
    assert texts.targets.tolist() == [row["label"] for row in ROWS]
    assert texts.groups.tolist() == [i % 7 for i in range(60)]
    assert texts.shortage() is None


def test_texts_in_the_config_may_be_messages() -> None:
    examples = [
        {"text": "Hello.", "label": "kind", "group": "a"},
        {"messages": [{"role": "user", "content": "Go away."}], "label": "rude", "group": "a"},
    ]
    texts = read_labelled(TextSource.model_validate({"examples": examples}), "manners")
    assert texts.classes == ["kind", "rude"]
    assert not isinstance(texts.prompts[1], str)
    assert texts.prompts[1][0].content == "Go away."
    assert texts.groups.tolist() == [0, 0]


def test_messages_of_a_file_are_read_as_messages(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    file = write(
        tmp_path, ".jsonl", [{"chat": said, "label": "a"}, {"chat": "plain", "label": "b"}]
    )
    texts = read_labelled(TextSource(path=str(file), text="chat"), "talks", file)
    assert [type(prompt) for prompt in texts.prompts] == [list, str]
    file = write(tmp_path, ".jsonl", [{"chat": [{"speaker": "me"}], "label": "a"}])
    with pytest.raises(SaeflowError, match=r"line 1: is neither text nor messages"):
        read_labelled(TextSource(path=str(file), text="chat"), "talks", file)


def test_numbers_and_classes_of_several_entries_are_read(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        ".csv",
        [{"text": f"t{i}", "year": 1900.5 + i, "kind": "abc"[i % 3]} for i in range(30)],
    )
    years = read_labelled(TextSource(path=str(file), value="year"), "years", file)
    assert not years.classes
    assert years.targets[3] == 1903.5
    coded = TextSource(path=str(file), label="kind", classes={"a": "vowel", "b": "consonant"})
    kinds = read_labelled(coded, "kinds", file)
    assert kinds.classes == ["vowel", "consonant"]
    assert (len(kinds), kinds.other) == (20, 10)


def test_labels_that_are_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    file = write(
        tmp_path, ".parquet", [{"text": f"t{i}", "label": float(i % 12)} for i in range(24)]
    )
    assert read_labelled(TextSource(path=str(file)), "n", file).classes == [
        str(i) for i in range(12)
    ]


def test_a_shifted_set_is_coded_as_the_set_it_tests(tmp_path: Path) -> None:
    file = write(tmp_path, ".csv")
    texts = read_labelled(TextSource(path=str(file)), "warmth", file)
    only_warm = write(tmp_path, ".jsonl", [{"text": "hot", "label": 1}] * 3)
    shifted = read_labelled(TextSource(path=str(only_warm)), "warmth.far", only_warm, texts)
    assert shifted.targets.tolist() == [1, 1, 1]
    strange = write(tmp_path, ".jsonl", [{"text": "hot", "label": "yes"}] * 3)
    with pytest.raises(SaeflowError, match=r"has the labels yes, and warmth the classes 0, 1; say"):
        read_labelled(TextSource(path=str(strange)), "warmth.far", strange, texts)


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_a_column_that_is_missing_is_named_with_those_there_are(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    with pytest.raises(
        SaeflowError, match=r"has no column 'answer' but text, label, who; set label"
    ):
        read_labelled(TextSource(path=str(file), label="answer"), "warmth", file)


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        SaeflowError, match=r"^warmth: '.*gone.csv' does not exist; correct the path"
    ):
        read_labelled(TextSource(path="gone.csv"), "warmth", tmp_path / "gone.csv")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no table")
    with pytest.raises(SaeflowError, match="is not a whole Parquet file"):
        read_labelled(TextSource(path=str(broken)), "warmth", broken)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "a", "label": 1}\n{"text": ')
    with pytest.raises(SaeflowError, match="line 2: is not JSON"):
        read_labelled(TextSource(path=str(lines)), "warmth", lines)
    file = write(tmp_path, ".csv")
    with pytest.raises(SaeflowError, match=r"'text 0, cold' in the column 'text' is no number"):
        read_labelled(TextSource(path=str(file), value="text"), "warmth", file)
    with pytest.raises(SaeflowError, match=r"no row has one of the labels 7; correct classes"):
        read_labelled(TextSource(path=str(file), classes={"7": "seven"}), "warmth", file)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "give one of path, published, package, examples; this gives none"),
        ({"path": "a.csv", "examples": [{"text": "a", "label": "b"}] * 2}, "path and examples"),
        ({"path": "a.xlsx"}, "'a.xlsx' must end in one of .csv, .csv.zst, .jsonl, .parquet"),
        ({"path": "a.csv", "label": "x", "value": "y"}, "stands beside label"),
        (
            {"examples": [{"label": "b"}, {"text": "a", "label": "b"}]},
            "give either text or messages",
        ),
        (
            {"examples": [{"text": "a", "value": 1.0}, {"text": "b", "label": "c"}]},
            "give all one kind",
        ),
        (
            {"package": {"name": "p", "version": "1", "file": "a.gguf"}},
            "must name a file that ends in",
        ),
    ],
)
def test_what_a_section_denies_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TextSource.model_validate(values)


def test_a_set_that_tells_nothing_says_why() -> None:
    assert "has one class only ('yes', 20 rows)" in str(made([1] * 20).shortage())
    assert "has 7 rows, 3 of them of the class 'no', and 8 of each" in str(
        made([1, 0, 1, 0, 1, 0, 1]).shortage()
    )
    assert made([0, 1] * 8).shortage() is None
    numbers = LabelledSet("years", ["a"] * 40, [], np.ones(40), np.arange(40))
    assert numbers.shortage() == "has one number in all its rows"


def test_repeats_are_left_out_and_counted_and_contradictions_altogether() -> None:
    keys = ["a", "b", "a", "c", "b", "d", "d"]
    repeats = without_repeats(keys, np.array([0, 1, 0, 1, 0, 1, 1], float))
    assert repeats.kept.tolist() == [0, 3, 5]
    assert (repeats.repeated, repeats.contradictory) == (2, 2)


def test_no_group_is_on_both_sides_and_classes_keep_their_shares() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 60, 400).tolist()
    texts = made([int(group % 4 == 0) for group in groups], groups)
    split = split_by_group(texts, 0.25, seed=1)
    assert not set(texts.groups[split.train]) & set(texts.groups[split.test])
    assert sorted([*split.train, *split.test]) == list(range(400))
    assert abs(len(split.test) - 100) < 15
    assert abs(texts.targets[split.test].mean() - texts.targets.mean()) < 0.05
    again = split_by_group(texts, 0.25, seed=1)
    assert again.test.tolist() == split.test.tolist()
    assert split_by_group(texts, 0.25, 1, "other").test.tolist() != split.test.tolist()


def test_pairs_that_are_a_group_stay_together_and_both_sides_are_balanced() -> None:
    texts = made([0, 1] * 50, [i // 2 for i in range(100)])
    split = split_by_group(texts, 0.2, seed=0)
    assert len(split.test) == 20
    assert texts.targets[split.test].mean() == 0.5


def test_folds_hold_whole_groups_and_as_many_of_each_class() -> None:
    groups = [i // 3 for i in range(300)]
    texts = made([int(group % 5 == 0) for group in groups], groups)
    folds = folds_by_group(texts, 5, seed=0)
    for group in range(100):
        assert len(set(folds[texts.groups == group])) == 1
    assert np.bincount(folds).tolist() == [60] * 5
    assert [int(texts.targets[folds == fold].sum()) for fold in range(5)] == [12] * 5


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(SaeflowError, match="all rows are of one group"):
        split_by_group(made([0, 1] * 5, [0] * 10), 0.2, seed=0)


def test_a_long_text_loses_its_beginning_and_keeps_bos() -> None:
    assert truncated([9, 1, 2, 3, 4, 5], 4, bos_id=9) == [9, 3, 4, 5]
    assert truncated([1, 2, 3, 4, 5], 4, bos_id=9) == [9, 3, 4, 5]
    assert truncated([1, 2], 4, bos_id=9) == [9, 1, 2]
    assert truncated([9, 1, 2, 3, 4, 5], 4, 9, "beginning") == [9, 1, 2, 3]
