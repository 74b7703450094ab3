"""A direction of a study: its candidates, which of them is taken, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.directions.candidates import GEOMETRY, Held, Material, geometry, unit
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


class Fixed(NamedTuple):
    """A vector that is not searched for."""

    vector: Float[Tensor, " d_model"]
    layer: int


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
    for split in ("train", "validation") if selection.filter else ():
        inside = np.array([own == split for own in prompts.splits])
        if all((fits & inside & (sign == side)).sum() >= LEAST[split] for side in (1, -1)):
            result[inside] = fits[inside]
    return result


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
    if name in sources.contrast:
        own = sources.contrast[name]
        sides = [own.with_it or asked.with_it, own.without_it or asked.without_it]
    else:
        sides = [sources.difference_of_models[name].with_it or asked.with_it]
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


def build(
    lm: LanguageModel,
    reading: Reading,
    made_of: Material | Fixed,
    asked: DirectionPrompts,
    selection: Selection,
    tokens: list[int],
    seed: int,
    metadata: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Direction, pl.DataFrame]:
    """Score all candidates on validation prompts, and take one.

    Args:
        lm: the model.
        reading: what it holds of the prompts.
        made_of: train prompts' activations, or a vector as it is.
        asked: classes of the prompts.
        selection: the rule.
        tokens: with which the behaviour begins.
        seed: of the study.
        metadata: of the direction: its name, model and kind.
        progress: called with (candidates scored, candidates).

    Returns:
        The direction with its controls, and the table of candidates (`CANDIDATES`).
    """
    prompts, stored = reading.prompts, reading.stored
    keep, name = kept(reading, asked, selection), metadata["name"]
    if isinstance(made_of, Fixed):
        values = stored.values[:, -1:, [stored.layers.index(made_of.layer)]]
        positions, layers = stored.positions[-1:], [made_of.layer]
        vectors = made_of.vector[None, None]
        held = held_out(prompts, values, asked)
        null = Material(values[:1] * 0 + made_of.vector, np.ones(1, dtype=bool))
        table = geometry(null, held, positions, layers, 2, LEVEL, seed, name).with_columns(
            pl.lit(None, pl.Float64).alias(column)
            for column in GEOMETRY
            if column not in ("position", "layer", "auc", "auc_low", "auc_high")
        )
        shuffled = torch.zeros(0, lm.d_model)
    else:
        values, positions, layers = stored.values, stored.positions, stored.layers
        vectors = unit(made_of.difference)
        held = held_out(prompts, values, asked)
        table = geometry(made_of, held, positions, layers, selection.bootstraps, LEVEL, seed, name)
    both = (asked.with_it, asked.without_it)
    means = [values[numbers].double().mean(0) for numbers in used(prompts, both, "train", keep)]
    gaps = ((means[0] - means[1]) * vectors.double()).sum(-1).abs().flatten().tolist()
    flat = vectors.flatten(0, 1)
    chosen_by = used(prompts, both, "validation", keep)
    scores = score_candidates(
        lm,
        flat,
        table["layer"].to_list(),
        [reading.rows[number] for number in chosen_by[0]],
        [reading.rows[number] for number in chosen_by[1]],
        tokens,
        gaps,
        progress,
    )
    unedited = [float(reading.log_odds[numbers].mean()) for numbers in chosen_by]
    table = pl.concat([table, scores], how="horizontal").with_columns(
        pl.Series("gap", gaps), unedited_on=unedited[0], unedited_off=unedited[1]
    )
    table = choose(table, lm.n_layers, selection).select(list(CANDIDATES))
    best = table["chosen"].arg_true()[0]
    place = np.unravel_index(best, vectors.shape[:2])
    if isinstance(made_of, Material):
        generator = numpy_generator(seed, "directions", name, "shuffled controls")
        shuffled = torch.stack(
            [unit(made_of.shuffled(generator).difference[place]) for _ in range(MOST_CONTROLS)]
        )
    other = others(table, MOST_CONTROLS, numpy_generator(seed, "directions", name, "candidates"))
    direction = Direction(
        flat[best],
        table["layer"][best],
        gaps[best],
        shuffled,
        flat[other],
        table["layer"][other].to_list(),
        [gaps[number] for number in other],
        {
            **metadata,
            "position": table["position"][best],
            "within_rule": bool(table["within_rule"][best]),
        },
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
