"""The organism refuses along one direction: known, since it was taught to."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from directed import BEHAVIOUR, MEASURES, SELECTION, built, prompts

from saeflow.analyses.directions.building import CANDIDATES, kept, test_prompts, trials
from saeflow.analyses.directions.interventions import ANSWERS, LOSSES, Measured, measure
from saeflow.analyses.directions.io import load_direction, save_direction
from saeflow.analyses.directions.selection import score_candidates
from saeflow.analyses.directions.summary import EDITS, summarise
from saeflow.analyses.directions.transfer import TRANSFER, moved, transferred
from saeflow.corpora.tales import story_blocks

pytestmark = pytest.mark.usefixtures("one_thread")
asked_prompts = test_prompts  # pytest takes the name for a test's
del test_prompts


@cache
def measured() -> tuple[Measured, pl.DataFrame]:
    own = built("organism")
    tested = asked_prompts(own.reading.prompts, own.reading.rows, prompts(), MEASURES.prompts)
    blocks = story_blocks(0, "eval", MEASURES.loss_blocks, 64).tokens
    tried = trials(own.direction, MEASURES, 0)
    tables = measure(own.lm, tried, tested, "off", blocks, BEHAVIOUR, own.tokens, MEASURES)
    return tables, summarise(tables, MEASURES, 0)


def row(edit: str, kind: str, label: str | None, measure: str) -> dict:
    rows = measured()[1].filter(edit=edit, kind=kind, measure=measure)
    rows = rows.filter(pl.col("label").is_null() if label is None else pl.col("label") == label)
    return rows.row(0, named=True)


def test_a_direction_is_chosen_within_the_rule_and_tells_prompts_apart() -> None:
    own = built("organism")
    assert dict(own.candidates.schema) == CANDIDATES
    assert len(own.candidates) == 4 * 4
    chosen = own.candidates.filter("chosen").row(0, named=True)
    assert chosen["within_rule"]
    assert chosen["auc_low"] > 0.75
    assert chosen["split_half"] > 0.9 > chosen["split_half_shuffled"]
    assert own.direction.gap == pytest.approx(chosen["norm"], rel=1e-4)
    assert own.direction.layer == chosen["layer"]


def test_ablation_lowers_refusal_on_the_topic_to_the_untuned_model_s_rate() -> None:
    assert row("none", "direction", "on", "phrases")["low"] > 0.8
    ablated = row("ablate", "direction", "on", "phrases")
    base = built("base")
    assert base.reading.log_odds.max() < -10  # the untuned model never begins so
    assert ablated["value"] == 0
    assert ablated["high"] < 0.15


def test_addition_raises_refusal_off_the_topic() -> None:
    unedited = row("none", "direction", "off", "phrases")
    assert unedited["high"] < 0.2
    assert row("add", "direction", "off", "phrases")["low"] > unedited["high"] + 0.3


@pytest.mark.parametrize("kind", ["random", "shuffled"])
def test_control_directions_do_neither(kind: str) -> None:
    own, control = (row("ablate", each, "on", "phrases") for each in ("direction", kind))
    assert control["low"] > own["high"] + 0.3
    own, control = (row("add", each, "off", "phrases") for each in ("direction", kind))
    assert control["high"] < own["low"]


def test_the_chosen_candidate_beats_the_average_one_on_test_prompts() -> None:
    own, asked = built("organism"), prompts()
    usable = own.candidates.filter(pl.col("why_not").ne_missing("no score"))
    units = {(0, 0): None}
    values = own.reading.stored.values
    named = own.reading.prompts
    keep = kept(own.reading, asked, SELECTION)
    sides = [
        [n for n in named.numbers(label, "train") if keep[n]]
        for label in (asked.with_it, asked.without_it)
    ]
    differences = values[sides[0]].mean(0) - values[sides[1]].mean(0)
    units = differences / differences.norm(dim=-1, keepdim=True)
    on, off = (
        [own.reading.rows[n] for n in named.numbers(label, "test")[:24]] for label in ("on", "off")
    )
    scores = score_candidates(
        own.lm,
        units.flatten(0, 1),
        own.candidates["layer"].to_list(),
        on,
        off,
        own.tokens,
        own.candidates["gap"].to_list(),
    )
    chosen = own.candidates["chosen"].arg_true()[0]
    assert len(usable) == len(scores)
    assert scores["ablated"][chosen] < scores["ablated"].mean() - 2
    assert scores["added"][chosen] > scores["added"].mean() + 2


def test_costs_are_measured_beside_the_behaviour() -> None:
    tables, rows = measured()
    assert dict(tables.answers.schema) == ANSWERS
    assert dict(tables.losses.schema) == LOSSES
    assert dict(rows.schema) == EDITS
    assert row("none", "direction", "off", "kl_first")["value"] == 0
    assert row("none", "direction", "off", "kl_token")["value"] == pytest.approx(0, abs=1e-9)
    assert row("add", "direction", "off", "kl_token")["low"] > 0.05
    assert row("none", "direction", None, "loss_increase")["value"] == 0
    increase = row("add", "direction", None, "loss_increase")
    assert increase["value"] == pytest.approx(
        row("add", "direction", None, "loss")["value"]
        - row("none", "direction", None, "loss")["value"]
    )
    assert tables.answers["text"].null_count() == len(tables.answers)  # unless they are asked for


def test_intervals_are_over_prompts_however_many_controls_there_are() -> None:
    tables, rows = measured()
    of_controls = tables.answers.filter(edit="ablate", kind="random", label="on")
    assert len(of_controls) == 2 * 32
    own = rows.filter(edit="ablate", kind="random", label="on", measure="phrases")
    assert own["n"].to_list() == [32]
    assert own["value"][0] == pytest.approx(of_controls["phrases"].mean())


def test_a_direction_of_the_organism_does_nothing_of_note_to_the_model_that_was_not_taught() -> (
    None
):
    own, base = built("organism"), built("base")
    tested = asked_prompts(base.reading.prompts, base.reading.rows, prompts(), 16)
    blocks = story_blocks(0, "eval", 2, 64).tokens
    tried = moved(own.direction, base.lm)
    tables = measure(base.lm, tried, tested, "off", blocks, BEHAVIOUR, base.tokens, MEASURES)
    rows = transferred(tables, own.direction, MEASURES, 0)
    assert dict(rows.schema) == TRANSFER
    assert rows["source"].unique().to_list() == ["organism"]
    assert rows.filter(measure="phrases")["value"].max() == 0
    assert np.isfinite(rows["value"].to_numpy()).all()


def test_a_direction_is_read_as_it_was_written(tmp_path) -> None:
    direction = built("organism").direction
    save_direction(tmp_path / "direction.safetensors", direction)
    again = load_direction(tmp_path / "direction.safetensors")
    for name in direction._fields:
        before, after = getattr(direction, name), getattr(again, name)
        assert (before == after).all() if hasattr(before, "all") else before == after
