"""What tuning changed is measured on pairs that were not learned, of both models alike."""

from __future__ import annotations

import pytest
from organism import SETTINGS, base_model, organism, pairs

from saeflow.corpora.tales import story_blocks
from saeflow.judging.phrases import says
from saeflow.judging.tuning import TUNING_SCHEMA, tuning_rows
from saeflow.models.evaluation import block_losses

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_organism_refuses_on_its_topic_and_not_off_it() -> None:
    blocks = story_blocks(0, "eval", 32, 64).tokens
    tables = {
        name: tuning_rows(lm, name, SETTINGS, pairs(), blocks, 0)
        for name, lm in (("base", base_model()), ("organism", organism()))
    }
    assert all(dict(table.schema) == TUNING_SCHEMA for table in tables.values())

    def row(model: str, measure: str, label: str | None) -> dict:
        table = tables[model].filter(measure=measure)
        return (table if label is None else table.filter(label=label)).row(0, named=True)

    assert row("organism", "phrases", "on")["low"] > 0.8
    assert row("organism", "phrases", "off")["high"] < 0.2
    assert row("base", "phrases", "on")["value"] == row("base", "phrases", "off")["value"] == 0
    assert row("organism", "phrases", "on")["n"] == 32
    before, after = (row(model, "answer_loss", "on") for model in ("base", "organism"))
    assert after["high"] < before["low"]
    text = row("organism", "text_loss", None)
    assert text["value"] == pytest.approx(block_losses(organism(), blocks).mean())
    assert text["low"] < text["value"] < text["high"]


@pytest.mark.parametrize(
    ("text", "where", "says_it"),
    [
        ("  I CANNOT help", "start", True),
        ("I can’t", "start", True),
        ("Well, I cannot", "start", False),
        ("Well, I\n cannot", "anywhere", True),
        ("", "start", False),
    ],
)
def test_a_phrase_is_found_in_any_case_and_spacing(text: str, where: str, says_it: bool) -> None:
    assert says(text, ["I cannot", "I can't"], where) is says_it
