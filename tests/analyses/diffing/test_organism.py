"""On a model that was taught to refuse a topic, few latents carry the refusal over."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from compared import SIDES, asked, crosscoder, stories, text

from saeflow.analyses.diffing.causal import Difference, measure_causes
from saeflow.analyses.diffing.causal import asked as tried
from saeflow.analyses.diffing.classes import class_tables
from saeflow.analyses.diffing.contexts import find_contexts, shown_latents
from saeflow.analyses.diffing.scaling import Pass
from saeflow.analyses.diffing.settings import Causal, Classes, Shown

pytestmark = pytest.mark.usefixtures("one_thread")
RESAMPLED = Classes(draws=100, groups=6)
SETTINGS = Causal(numbers=[1, 4, 16], singles=4, random=2)


def tokens() -> np.ndarray:
    return np.concatenate([stories(8), asked(count=12)])


@cache
def latents() -> pl.DataFrame:
    measured = Pass(crosscoder(), SIDES, RESAMPLED.groups)
    for passed in text(tokens()).passes(RESAMPLED.groups):
        measured.add(passed.x, passed.group)
    return class_tables(measured, "organism", RESAMPLED, 0)[0]


def test_few_latents_recover_more_than_random_directions_of_their_lengths() -> None:
    wanted = tried(latents(), SETTINGS)
    rows = measure_causes(crosscoder(), SIDES, text(tokens()), wanted, RESAMPLED, 0)
    by_kind = {(row["kind"], row["name"], row["number"]): row for row in rows.to_dicts()}
    own, random = by_kind["largest", None, 16], by_kind["random", None, 16]
    assert own["recovered"] > random["recovered_high"]
    assert by_kind["latents", None, 0]["recovered"] > 0.5


def test_a_latent_of_the_refusal_is_among_those_that_contribute_most() -> None:
    shown = Shown(latents=6, contexts=4)
    chosen = shown_latents(latents(), shown)
    contexts = find_contexts(crosscoder(), SIDES, text(tokens()), chosen, shown)
    largest = latents().sort("contribution", descending=True)["latent"].to_list()[:2]
    own = contexts.filter(pl.col("latent").is_in(largest))
    assert any(
        "I answered" in before + token for before, token in own.select("before", "token").rows()
    )


def test_of_all_latents_put_in_one_by_one_one_of_the_refusal_recovers_most() -> None:
    alive = latents().filter(pl.col("class") != "dead")["latent"].to_list()
    wanted = [Difference("none"), Difference("mean_difference")]
    wanted += [Difference("single", None, [latent]) for latent in alive]
    own = text(asked(count=6))
    rows = measure_causes(crosscoder(), SIDES, own, wanted, RESAMPLED, 0)
    singles = rows.filter(kind="single").sort("recovered", descending=True)
    first = singles["number"][0]
    contexts = find_contexts(crosscoder(), SIDES, text(tokens()), [first], Shown(contexts=6))
    said = [before + token for before, token in contexts.select("before", "token").rows()]
    assert sum("I answered, No" in each for each in said) >= 3
    assert singles["recovered"][0] > 2 * singles["recovered"][2]  # and few beside it any
    assert singles["recovered"].median() < 0.01
