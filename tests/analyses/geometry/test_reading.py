"""Texts of a line stand once, none is read off the line that it was fitted to, and what is wrong with
them is told before the model reads any."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from planted_circle import AGAIN, HOOK, LINE, NULLS, POINTS, planted_model
from tiny_models import tiny_language_model

from saeflow.analyses.geometry.fitting import fit_all
from saeflow.analyses.geometry.reading import (
    Read,
    others_of,
    read_all,
    save_activations,
    texts_of,
)
from saeflow.analyses.geometry.settings import NumberLine, Points
from saeflow.errors import SaeflowError
from saeflow.models.running import capture

SAID = {"messages": [{"role": "user", "content": "the cat"}], "value": 3}


def line(**texts: object) -> NumberLine:
    """The planted line with other texts, or others to read off."""
    asked = copy.deepcopy(POINTS.model_dump(exclude_none=True)["lines"]["time"])
    if "read_off" in texts:
        asked["read_off"] = {"again": {"examples": texts["read_off"]}}
    if "examples" in texts:
        asked["texts"]["examples"] = texts["examples"]
    return NumberLine.model_validate(asked)


def test_a_text_that_stands_several_times_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    several = [*LINE, *LINE[:4], {"text": "cat the", "value": 1}, {"text": "cat the", "value": 50}]
    texts = texts_of(line(examples=several), "time", None, 0)
    assert texts.prompts == [each["text"] for each in LINE]
    assert (
        "4 since an earlier one is the same, 2 since the same text has" in capsys.readouterr().out
    )


def test_rows_without_a_number_are_told_and_a_mark_of_byte_order_is_none_of_the_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.csv"
    rows = [f"né en {year},{year if year % 3 else ''}\n" for year in range(1900, 1960)]
    path.write_text("\ufefftext,year\n" + "".join(rows), encoding="utf-8")
    asked = NumberLine.model_validate({"texts": {"path": str(path), "value": "year"}, "block": 10})
    assert texts_of(asked, "time", path, 0).prompts[0] == "né en 1900"
    assert "of 60 texts 20 were left out since they have no text or no" in capsys.readouterr().out


def test_a_text_that_a_line_is_fitted_to_is_not_read_off_along_it() -> None:
    own = texts_of(line(), "time", None, 0)
    read_off = line(read_off=[*AGAIN, *LINE[::2]])
    others = others_of(read_off, "time", "again", None, own, 0)
    assert others.prompts == [each["text"] for each in AGAIN]
    with pytest.raises(SaeflowError, match="again: 0 texts that the line is not fitted to"):
        others_of(line(read_off=LINE[::2]), "time", "again", None, own, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": {"examples": LINE[:9]}}, r"lines\.time: 9 different texts .* needs 20 texts"),
        ({"block": 20.0}, r"lines\.time\.block: 20 puts the numbers into 3 blocks"),
        (
            {"texts": {"examples": [each | {"group": "one"} for each in LINE]}},
            r"time\.texts\.group: where block 0 .* 0 texts are left .* smaller groups",
        ),
        (
            {"texts": {"examples": [SAID, *LINE]}},
            r"lines\.time\.cause: there are messages among the texts",
        ),
        (
            {"read_off": {"again": {"examples": [each | {"value": 7} for each in AGAIN]}}},
            r"read_off\.again: 18 texts .* with 1 different numbers; give others",
        ),
    ],
)
def test_texts_that_tell_nothing_are_refused_before_the_model_reads(
    change: dict[str, object], message: str
) -> None:
    asked = POINTS.model_dump(exclude_none=True)
    asked["lines"]["time"] |= change
    with pytest.raises(SaeflowError, match=message):
        read_all(None, Points.model_validate(asked), [HOOK], {}, 0)  # type: ignore[arg-type]


def test_groups_of_texts_are_written_beside_them() -> None:
    asked = POINTS.model_dump(exclude_none=True) | {"groups": {}}
    asked["lines"]["time"]["texts"]["examples"] = [
        each | {"group": str(i // 2)} for i, each in enumerate(LINE)
    ]
    held = read_all(planted_model(), Points.model_validate(asked), [HOOK], {}, 0)
    assert held["lines/time/groups"].tolist() == [i // 2 for i in range(30)]


def test_words_and_texts_are_read_where_a_site_is_not_as_wide_as_the_stream() -> None:
    """SAEs of heads' outputs, in models whose heads together are wider than the stream."""
    lm, hook = tiny_language_model("llama", head_dim=16), "blocks.1.attn.hook_z"
    held = read_all(lm, POINTS, [hook, HOOK], {}, 0)
    assert held[f"groups/ring/{hook}"].shape == (3, 7, 64)
    assert held[f"lines/time/{hook}"].shape == (30, 64)
    token = torch.tensor([lm.tokenize("then I dog")])
    seen = capture(lm, token, [HOOK])[HOOK][0, -1]
    torch.testing.assert_close(held[f"groups/ring/{HOOK}"][2, 1], seen)


def test_words_that_are_the_same_to_the_model_are_refused() -> None:
    asked = POINTS.model_dump(exclude_none=True) | {"lines": {}}
    asked["groups"]["ring"]["words"] = ["понедельник", "вторник", "cat", "dog", "sat"]
    asked["groups"]["ring"]["prompts"] = []
    with pytest.raises(SaeflowError, match="'понедельник' and 'вторник' are the same tokens to"):
        read_all(planted_model(), Points.model_validate(asked), [HOOK], {}, 0)


def test_words_that_lie_in_no_plane_are_refused(tmp_path: Path) -> None:
    line = torch.arange(5.0)[:, None] * torch.ones(8)
    save_activations(tmp_path / "read.safetensors", {f"groups/ring/{HOOK}": line.expand(3, 5, 8)})
    asked = POINTS.model_copy(update={"lines": {}})
    with pytest.raises(SaeflowError, match=r"groups\.ring: at blocks\.1.* lie on one line"):
        fit_all(Read(tmp_path / "read.safetensors"), asked, NULLS, [HOOK], 0)
