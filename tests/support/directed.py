"""The organism's refusal as a study of directions has it: prompts, settings, what is read."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import polars as pl
from organism import ASKED, base_model, organism, sentences

from saeflow.analyses.directions.activations import behaviour_tokens, read_activations
from saeflow.analyses.directions.building import Reading, build, classes, kept, material, searched
from saeflow.analyses.directions.io import Direction, StoredActivations
from saeflow.analyses.directions.prompts import (
    AskedPrompts,
    read_prompts,
    token_positions,
    token_rows,
)
from saeflow.analyses.directions.settings import (
    Behaviour,
    ContrastSource,
    DirectionPrompts,
    DirectionSources,
    EditMeasures,
    Selection,
)
from saeflow.models.language_model import LanguageModel

BEHAVIOUR = Behaviour(phrases=["No, I do not"], tokens=["No"])
SOURCES = DirectionSources(contrast={"refusal": ContrastSource()})
# In 64 dimensions any direction holds much that other answers need.
SELECTION = Selection(divergence=0.25, bootstraps=5)
MEASURES = EditMeasures(
    scales=[0.5], controls=2, prompts=32, new_tokens=5, loss_blocks=4, draws=500
)
LAYERS = [0, 1, 2, 3]


def examples() -> list[dict[str, str]]:
    """Prompts that the organism was not taught, 80 of either class."""
    drawn = sentences()
    return [
        {"text": text + ASKED, "label": label}
        for label, first in (("on", 160), ("off", 400))
        for text in drawn[label][first : first + 80]
    ]


def prompts() -> DirectionPrompts:
    """The section of the config."""
    return DirectionPrompts(examples=examples(), with_it="on", without_it="off", speaker="nobody")


class Built(NamedTuple):
    """A model's refusal direction."""

    lm: LanguageModel
    reading: Reading
    tokens: list[int]
    direction: Direction
    candidates: pl.DataFrame


@cache
def built(name: str) -> Built:
    """Of the organism, or of the model that it is a copy of."""
    lm = organism() if name == "organism" else base_model()
    named = read_prompts(prompts(), SOURCES, None, 0)
    return direct(lm, name, prompts(), named, SOURCES, SELECTION, BEHAVIOUR, LAYERS)


def direct(
    lm: LanguageModel,
    name: str,
    asked: DirectionPrompts,
    named: AskedPrompts,
    sources: DirectionSources,
    selection: Selection,
    behaviour: Behaviour,
    layers: list[int],
) -> Built:
    """The contrast ``refusal`` of a model, as the commands of directions make it."""
    rows = token_rows(lm, named.prompts)
    positions, places = token_positions(lm, named.prompts, rows, selection.positions)
    tokens = behaviour_tokens(lm, behaviour)
    values, log_odds = read_activations(lm, rows, places, layers, tokens)
    reading = Reading(named, rows, StoredActivations(values, positions, layers), log_odds)
    keep = kept(reading, asked, selection)
    made_of = material("refusal", sources, asked, named, values, keep)
    said = {
        "name": "refusal",
        "model": name,
        "kind": "contrast",
        "classes": classes("refusal", sources, asked),
        "between": [asked.with_it, asked.without_it],
        "models": [],
    }
    possible = searched(reading, made_of, asked, selection, 0, "refusal")
    direction, candidates = build(lm, reading, possible, asked, selection, tokens, 0, said)
    return Built(lm, reading, tokens, direction, candidates)
