"""Prompts: split by group and class, and refused where they tell nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import chat_language_model

from saeflow.analyses.directions.prompts import read_prompts, token_positions, token_rows
from saeflow.analyses.directions.settings import ContrastSource, DirectionPrompts, DirectionSources
from saeflow.config.sections import Message
from saeflow.errors import SaeflowError

SOURCES = DirectionSources(contrast={"refusal": ContrastSource()})


def asked(counts: dict[str, int], per_group: int = 1, **keys: Any) -> DirectionPrompts:
    examples = [
        {"text": f"the {label} {n}", "label": label, "group": f"{label}{n // per_group}"}
        for label, count in counts.items()
        for n in range(count)
    ]
    return DirectionPrompts(examples=examples, with_it="on", without_it="off", **keys)


def test_groups_stay_together_and_every_split_has_both_classes() -> None:
    prompts = read_prompts(asked({"on": 60, "off": 60}, per_group=3), SOURCES, None, 0)
    by_group: dict[int, set[str]] = {}
    for group, split in zip(prompts.groups, prompts.splits, strict=True):
        by_group.setdefault(int(group), set()).add(split)
    assert all(len(splits) == 1 for splits in by_group.values())
    shares = {split: len(prompts.numbers("on", split)) for split in ("train", "validation", "test")}
    assert shares == {"train": 24, "validation": 12, "test": 24}


def test_lookalikes_are_all_measured_unless_a_direction_is_made_of_them() -> None:
    counts = {"on": 40, "off": 40, "alike": 40}
    prompts = read_prompts(asked(counts, lookalike="alike"), SOURCES, None, 0)
    assert len(prompts.numbers("alike", "test")) == 40
    made = DirectionSources(contrast={"topic": ContrastSource(without_it="alike")})
    assert (
        len(read_prompts(asked(counts, lookalike="alike"), made, None, 0).numbers("alike", "test"))
        == 16
    )


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"on": 40, "other": 40}, "no prompt is of the class 'off'; there are on, other"),
        ({"on": 40}, "no prompt is of the class 'off'; there are on"),
        ({"on": 40, "off": 5}, "has 5 prompts of the class 'off', 2 of them for train, and 8"),
    ],
)
def test_one_class_or_few_prompts_are_refused_in_a_sentence(
    counts: dict[str, int], reason: str
) -> None:
    with pytest.raises(SaeflowError, match=rf"^directions.prompts: {reason}[^\n]*$"):
        read_prompts(asked(counts), SOURCES, None, 0)


def test_positions_of_messages_are_the_template_s_and_of_texts_what_all_end_in() -> None:
    lm = chat_language_model()
    spoken = [[Message(role="user", content=text)] for text in ("the cat sat", "a dog")]
    rows = token_rows(lm, spoken)
    names, places = token_positions(lm, spoken, rows, None)
    assert names == ["template[-3]", "template[-2]", "template[-1]"]
    assert places[:, -1].tolist() == [len(row) - 1 for row in rows]
    texts = ["the cat ran . I think", "a dog ran . I think"]
    rows = token_rows(lm, texts)
    assert token_positions(lm, texts, rows, None)[0] == [f"template[-{n}]" for n in range(4, 0, -1)]
    assert token_positions(lm, ["a dog", "the cat"], token_rows(lm, ["a dog", "the cat"]), None)[
        0
    ] == ["last"]
    with pytest.raises(SaeflowError, match="'all' names many tokens"):
        token_positions(lm, texts, rows, ["all"])
    with pytest.raises(SaeflowError, match=r"'template\[-9\]' does not exist"):
        token_positions(lm, texts, rows, ["template[-9]"])


def test_messages_for_a_model_without_a_template_are_refused_in_a_sentence() -> None:
    lm = chat_language_model(template=None)
    with pytest.raises(SaeflowError, match=r"^prompts: there are messages .* no chat template"):
        token_rows(lm, [[Message(role="user", content="the cat")]])
