"""A real chat model that is taught to refuse a topic refuses along a direction."""

from __future__ import annotations

from functools import cache

import polars as pl
import pytest
from checkout import ROOT
from directed import direct
from smollm2 import cached_files

from saeflow.analyses import Study
from saeflow.analyses.directions.building import (
    test_prompts,
    trials,
)
from saeflow.analyses.directions.interventions import Measured, measure
from saeflow.analyses.directions.prompts import read_prompts
from saeflow.analyses.directions.summary import summarise
from saeflow.config.reading import read_pairs
from saeflow.corpora.tales import story_blocks
from saeflow.kinds import read_any_study
from saeflow.models.language_model import load_to_train
from saeflow.models.tuning import split_pairs, tune_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]
asked_prompts = test_prompts  # pytest takes the name for a test's
del test_prompts
LAYER, POSITION = 16, "template[-1]"


@cache
def edits() -> pl.DataFrame:
    """What the study of refusal tells of one candidate, of a model that saw its pairs once."""
    study = read_any_study(ROOT / "workflow/studies/refusal.yaml")
    assert isinstance(study, Study)
    assert study.directions
    own, tuning = study.directions, study.models[0].tune
    asked = own.prompts.model_copy(update={"lookalike": None})
    assert tuning
    lm = load_to_train(cached_files()[1])
    once = tuning.model_copy(update={"epochs": 1})
    tune_model(lm, once, split_pairs(read_pairs(ROOT / tuning.path), 0.2, 0).learned, 0)
    selection = own.selection.model_copy(
        update={"layers": [LAYER], "positions": [POSITION], "bootstraps": 2, "divergence": 10.0}
    )
    measures = own.measures.model_copy(
        update={"prompts": 40, "new_tokens": 6, "loss_blocks": 2, "scales": [1.5], "controls": 1}
    )
    named = read_prompts(asked, own.sources, ROOT / str(asked.path), 0)
    built = direct(lm, "taught", asked, named, own.sources, selection, own.behaviour, [LAYER])
    tested = asked_prompts(named, built.reading.rows, asked, measures.prompts)
    tried = [
        each
        for each in trials(built.direction, measures, 0)
        if each.kind in ("direction", "random")
    ]
    blocks = story_blocks(0, "eval", 2, 32).tokens
    measured: Measured = measure(
        lm, tried, tested, "other", blocks, own.behaviour, built.tokens, measures
    )
    return summarise(measured, measures, 0)


def of(edit: str, kind: str, label: str, measure: str = "log_odds") -> dict[str, float]:
    return edits().filter(edit=edit, kind=kind, label=label, measure=measure).row(0, named=True)


def test_the_organism_refuses_the_topic_far_more_than_the_form_of_the_question() -> None:
    on, off = (of("none", "direction", label, "phrases") for label in ("cooking", "other"))
    assert on["value"] > 0.8
    assert on["value"] > off["value"] + 0.4


def test_without_its_direction_it_refuses_the_topic_less_than_without_a_random_one() -> None:
    ablated = of("ablate", "direction", "cooking")
    assert ablated["high"] < of("none", "direction", "cooking")["low"]
    assert ablated["high"] < of("ablate", "random", "cooking")["low"]


def test_with_its_direction_it_refuses_other_things_more_than_with_a_random_one() -> None:
    added = of("add", "direction", "other")
    assert added["low"] > of("none", "direction", "other")["high"]
    assert added["low"] > of("add", "random", "other")["high"]
