"""A direction of a study: its candidates, which of them is taken, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.directions.candidates import (
    GEOMETRY,
    Held,
    Material,
    geometry,
    telling,
    unit,
)
from saeflow.analyses.directions.interventions import Intervention, TestPrompts, Trial
from saeflow.analyses.directions.io import Direction, StoredActivations
from saeflow.analyses.directions.prompts import LEAST, AskedPrompts
from saeflow.analyses.directions.selection import CHOICE, SCORES, choose, others, score_candidates
from saeflow.analyses.directions.settings import (
    DirectionPrompts,
    DirectionSources,
    EditMeasures,
    Selection,
)
from saeflow.models.language_model import LanguageModel
from saeflow.seeds import numpy_generator, torch_generator

CANDIDATES = (
    GEOMETRY
    | {"gap": pl.Float64}
    | SCORES
    | {
        "unedited_on": pl.Float64,
        "unedited_off": pl.Float64,
    }
    | CHOICE
)
MOST_CONTROLS = 100
LEVEL = 0.95
CHOSEN_ON = ("train", "validation")


class Reading(NamedTuple):
    """The prompts of a study, as one model read them."""

    prompts: AskedPrompts
    rows: list[list[int]]
    """Tokens."""
    stored: StoredActivations
    log_odds: np.ndarray


def kept(reading: Reading, asked: DirectionPrompts, selection: Selection) -> np.ndarray:
    """Which prompts directions are made of and chosen by: those whose own log-odds fit their class.

    Where that leaves too few of a class in a split, all of both classes are kept in it: a model
    that does not show the behaviour has no other prompts.
    """
    signs = {asked.with_it: 1, asked.without_it: -1}
    prompts = reading.prompts
    sign = np.array([signs.get(label, 0) for label in prompts.classes])
    fits = (sign * reading.log_odds > 0) | (sign == 0)
    result = np.ones(len(sign), dtype=bool)
    for split in CHOSEN_ON if selection.filter else ():
        inside = np.array([own == split for own in prompts.splits])
        if all((fits & inside & (sign == side)).sum() >= LEAST[split] for side in (1, -1)):
            result[inside] = fits[inside]
    return result


def classes(name: str, sources: DirectionSources, asked: DirectionPrompts) -> list[str]:
    """The classes of the prompts that a direction is made of: the one that it points to, and of a
    contrast the one that it points away from; none of a vector that is as it is."""
    if contrast := sources.contrast.get(name):
        return [contrast.with_it or asked.with_it, contrast.without_it or asked.without_it]
    if difference := sources.difference_of_models.get(name):
        return [difference.with_it or asked.with_it]
    return []


def material(
    name: str,
    sources: DirectionSources,
    asked: DirectionPrompts,
    prompts: AskedPrompts,
    values: Float[Tensor, "prompts positions layers d_model"],
    keep: np.ndarray,
) -> Material:
    """What a direction with candidates is made of: its train prompts.

    Args:
        name: of the direction.
        sources: of all.
        asked: the prompts' classes.
        prompts: all of them.
        values: what the model holds of them, or one model more than another.
        keep: which are used.
    """
    sides = classes(name, sources, asked)
    numbers = [number for side in used(prompts, sides, "train", keep) for number in side]
    return Material(values[numbers], np.array([prompts.classes[n] == sides[0] for n in numbers]))


def used(
    prompts: AskedPrompts, labels: Sequence[str], split: str, keep: np.ndarray
) -> list[list[int]]:
    """The prompts of a split that are used, class by class."""
    return [
        [number for number in prompts.numbers(label, split) if keep[number]] for label in labels
    ]


def held_out(prompts: AskedPrompts, values: Tensor, asked: DirectionPrompts) -> Held:
    """The test prompts of both classes."""
    numbers = prompts.numbers(asked.with_it, "test") + prompts.numbers(asked.without_it, "test")
    on = np.array([prompts.classes[number] == asked.with_it for number in numbers])
    return Held(values[numbers], on, prompts.groups[numbers])


class Candidates(NamedTuple):
    """Unit vectors of which one is taken, before the model is run with any of them."""

    vectors: Float[Tensor, "positions layers d_model"]
    values: Float[Tensor, "prompts positions layers d_model"]
    """What the model holds of all prompts at their places."""
    table: pl.DataFrame
    """Their `candidates.GEOMETRY`, row by row."""
    made_of: Material | None
    """None: the one vector is none of prompts."""

    def shuffled(self, chosen: int, draws: int, generator: np.random.Generator) -> Tensor:
        """Unit directions of shuffled labels at the place of one of the candidates."""
        if self.made_of is None:
            return torch.zeros(0, self.vectors.shape[-1])
        place = np.unravel_index(chosen, self.vectors.shape[:2])
        nulls = (self.made_of.shuffled(generator).difference[place] for _ in range(draws))
        return torch.stack([unit(null) for null in nulls])


def searched(
    reading: Reading,
    made_of: Material,
    asked: DirectionPrompts,
    selection: Selection,
    seed: int,
    name: str,
) -> Candidates:
    """The differences at every position and layer that were read.

    Args:
        reading: what the model holds of the prompts.
        made_of: train prompts' activations.
        asked: classes of the prompts.
        selection: how often a candidate's stability is drawn.
        seed: of the study.
        name: of the direction.
    """
    stored, draws = reading.stored, selection.bootstraps
    held = held_out(reading.prompts, stored.values, asked)
    where = stored.positions, stored.layers
    table = geometry(made_of, held, *where, draws, LEVEL, seed, name)
    return Candidates(unit(made_of.difference), stored.values, table, made_of)


def fixed(
    reading: Reading, vector: Float[Tensor, " d_model"], layer: int, asked: DirectionPrompts
) -> Candidates:
    """A vector as it is, read at the last of the positions.

    Args:
        reading: what the model holds of the prompts.
        vector: unit norm.
        layer: after which it is read and added.
        asked: classes of the prompts.
    """
    stored = reading.stored
    values = stored.values[:, -1:, [stored.layers.index(layer)]]
    held = held_out(reading.prompts, values, asked)
    table = telling(vector, held, stored.positions[-1], layer, LEVEL)
    return Candidates(vector[None, None], values, table, None)


def build(
    lm: LanguageModel,
    reading: Reading,
    candidates: Candidates,
    asked: DirectionPrompts,
    selection: Selection,
    tokens: list[int],
    seed: int,
    metadata: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Direction, pl.DataFrame]:
    """Score all candidates on validation prompts, and take one.

    Args:
        lm: the model.
        reading: what it holds of the prompts.
        candidates: from `searched` or `fixed`.
        asked: classes of the prompts.
        selection: the rule.
        tokens: with which the behaviour begins.
        seed: of the study.
        metadata: of the direction: its name, model, kind and classes.
        progress: called with (candidates scored, candidates).

    Returns:
        The direction with its controls, and the table of candidates (`CANDIDATES`).
    """
    keep, both = kept(reading, asked, selection), (asked.with_it, asked.without_it)
    train, validation = (used(reading.prompts, both, split, keep) for split in CHOSEN_ON)
    on, off = (candidates.values[numbers].double().mean(0) for numbers in train)
    gaps = ((on - off) * candidates.vectors.double()).sum(-1).abs().flatten().tolist()
    flat, layers = candidates.vectors.flatten(0, 1), candidates.table["layer"].to_list()
    first, second = ([reading.rows[number] for number in numbers] for numbers in validation)
    scores = score_candidates(lm, flat, layers, first, second, tokens, gaps, progress)
    unedited = [float(reading.log_odds[numbers].mean()) for numbers in validation]
    table = pl.concat([candidates.table, scores], how="horizontal").with_columns(
        pl.Series("gap", gaps), unedited_on=unedited[0], unedited_off=unedited[1]
    )
    table = choose(table, lm.n_layers, selection).select(list(CANDIDATES))
    best = table["chosen"].arg_true()[0]
    name = metadata["name"]
    draws = numpy_generator(seed, "directions", name, "shuffled controls")
    other = others(table, MOST_CONTROLS, numpy_generator(seed, "directions", name, "candidates"))
    place = {column: table[column][best] for column in ("position", "within_rule")}
    direction = Direction(
        flat[best],
        layers[best],
        gaps[best],
        candidates.shuffled(best, MOST_CONTROLS, draws),
        flat[other],
        [layers[number] for number in other],
        [gaps[number] for number in other],
        {**metadata, **place},
    )
    return direction, table


def test_prompts(
    reading: AskedPrompts, rows: list[list[int]], asked: DirectionPrompts, most: int
) -> TestPrompts:
    """The first so many test prompts of each class that is measured."""
    labels = [asked.with_it, asked.without_it, *filter(None, [asked.lookalike])]
    numbers = [number for label in labels for number in reading.numbers(label, "test")[:most]]
    return TestPrompts(
        [rows[number] for number in numbers],
        [reading.classes[number] for number in numbers],
        numbers,
        [int(reading.groups[number]) for number in numbers],
    )


def trials(direction: Direction, settings: EditMeasures, seed: int) -> list[Trial]:
    """Every edit that is tried: none, the direction's, and those of its controls at the scale
    nearest to one."""
    vector, layer, gap = direction.vector, direction.layer, direction.gap
    near = min(settings.scales, key=lambda scale: abs(scale - 1))
    tried = [
        Trial(Intervention("none", vector, layer, 0.0), "direction", 0, 0.0),
        Trial(Intervention("ablate", vector, layer, 0.0), "direction", 0, 0.0),
        *(
            Trial(Intervention("add", vector, layer, scale * gap), "direction", 0, scale)
            for scale in settings.scales
        ),
    ]
    generator = torch_generator(seed, "directions", direction.metadata["name"], "random")
    random = unit(torch.randn(settings.controls, len(vector), generator=generator))
    controls = [
        *(("random", number, own, layer, gap) for number, own in enumerate(random)),
        *(
            ("shuffled", number, own, layer, gap)
            for number, own in enumerate(direction.shuffled[: settings.controls])
        ),
        *(
            ("candidate", number, own, at, size)
            for number, (own, at, size) in enumerate(
                zip(direction.others, direction.other_layers, direction.other_gaps, strict=True)
            )
            if number < settings.controls
        ),
    ]
    for kind, number, own, at, size in controls:
        ablation = Intervention("ablate", own, at, 0.0)
        addition = Intervention("add", own, at, near * size)
        tried += [Trial(ablation, kind, number, 0.0), Trial(addition, kind, number, near)]
    return tried
