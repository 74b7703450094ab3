"""What the page of a goal shows: curves, sampled texts, side effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.steering import results, scale_words, words
from saeflow.analyses.steering.beside_scores import BesideScores
from saeflow.analyses.steering.method_effects import LatentEffect, strongest
from saeflow.analyses.steering.report_results import SteeringResults
from saeflow.analyses.steering.results import InSampleRow
from saeflow.analyses.steering.sample_texts import sample_texts
from saeflow.analyses.steering.tables import curve, methods, of_split
from saeflow.judging.judges import counted_words
from saeflow.report.wording import digits, interval, number

MEASURES = ("product", "behaviour", "coherence")
TABLED = 10
"""Latents of each method in the table of side effects."""


class GoalResults(NamedTuple):
    """What one goal has of its own."""

    name: str
    targets: dict[int, float]
    side_effects: pl.DataFrame
    samples: pl.DataFrame
    """The first completions of every method and scale."""
    scores: pl.DataFrame
    """Of those."""


class GoalLine(NamedTuple):
    """A goal in the list of all goals."""

    name: str
    title: str
    criterion: str
    best: list[str]
    """The best method, or those that cannot be told apart."""
    product: str
    unsteered: str
    targets: list[int]
    """The latents that methods aim at."""


def goal_lines(steering: SteeringResults) -> list[GoalLine]:
    """The list of goals."""
    lines = []
    for name in steering.settings.goals.names:
        marked = results.marks(steering.best, steering.comparisons, name)
        rows = results.ranked(steering.best, name)
        top = rows[0] if rows else {}
        best = [row["method"] for row in rows if row["method"] in marked] or [
            row["method"] for row in rows[:1]
        ]
        lines.append(
            GoalLine(
                name=name,
                title=steering.title(name),
                criterion=steering.goals[name].criterion if name in steering.goals else "",
                best=best,
                product=f"{number(top.get('product'))} {interval(top)}".strip(),
                unsteered=number(top.get("unsteered_product")),
                targets=[row.latent for row in steering.targets if row.goal == name],
            )
        )
    return lines


def goal_context(steering: SteeringResults, goal: GoalResults) -> dict[str, Any]:
    """What a goal's page is filled from."""
    names = steering.settings.goals.names
    place = names.index(goal.name)
    multiples = scale_words.multiples(steering.settings.completions)
    rows: list[InSampleRow] = results.in_sample_rows(
        steering.best.filter(pl.col("goal") == goal.name), multiples
    )
    effects = strongest(goal.side_effects, goal.targets)
    return {
        "goal": goal.name,
        "title": steering.title(goal.name),
        "criterion": steering.goals[goal.name].criterion if goal.name in steering.goals else "",
        "before": (names[place - 1], steering.title(names[place - 1])) if place else None,
        "after": (names[place + 1], steering.title(names[place + 1]))
        if place + 1 < len(names)
        else None,
        "rows": [
            (row, results.marks(steering.best, steering.comparisons, goal.name).get(row.method, ""))
            for row in rows
        ],
        "targets": sorted(goal.targets.items(), key=lambda pair: -abs(pair[1])),
        "target_rows": [row for row in steering.targets if row.goal == goal.name],
        "curves": curve_rows(steering.summary, goal.name, multiples),
        "intervals": words.intervals(steering.settings),
        "scales": scale_words.note(multiples is not None),
        "counted": steering.settings.judge.traits.counted is not None,
        "beside": BesideScores.of(steering.best, steering.summary, goal.name),
        "least_scored": steering.settings.summary.least_scored,
        "effects": {method: tabled(rows) for method, rows in effects.items()},
        "target_sae": steering.sae,
        "has_texts": not goal.samples.is_empty(),
        "examples": steering.goals[goal.name].positive[:3] if goal.name in steering.goals else [],
    }


def tabled(effects: list[LatentEffect]) -> list[LatentEffect]:
    """Targets and the few that move most."""
    aimed = [effect for effect in effects if effect.target]
    return [*aimed, *[effect for effect in effects if not effect.target][:TABLED]]


def curve_rows(
    summary: pl.DataFrame, goal: str, multiples: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """The points of all curves of a goal, method by method along the scale, which `worded` tells in
    the study's unit."""
    table = of_split(summary, "all")
    return [
        {**row, "worded": scale_words.of_index(row["scale"], row["scale_index"], multiples)}
        for method in methods(table.filter(pl.col("goal") == goal))
        for row in curve(table, goal, method, []).select(*_columns()).to_dicts()
    ]


def goal_value(
    steering: SteeringResults, goal: GoalResults, latents_sae: str | None
) -> dict[str, Any]:
    """What a goal's page is drawn from: curves, texts and side effects."""
    rows = curve_rows(steering.summary, goal.name)
    names = list(dict.fromkeys(row["method"] for row in rows))
    judge, shown = steering.settings.judge.kind, []
    if goal.name in steering.goals and not goal.samples.is_empty():
        shown = goal.samples["text"].drop_nulls().to_list()
    return {
        "goal": goal.name,
        "multiples": scale_words.multiples(steering.settings.completions),
        "counted": counted_words(judge, shown, steering.goals[goal.name]) if shown else [],
        "methods": names,
        "measures": list(MEASURES),
        "curves": {name: [_point(row) for row in rows if row["method"] == name] for name in names},
        "texts": sample_texts(goal.samples, goal.scores),
        "sae": latents_sae,
        "effects": {
            name: [
                [
                    effect.latent,
                    int(effect.target),
                    digits(effect.predicted),
                    digits(effect.measured),
                ]
                for effect in shown
            ]
            for name, shown in strongest(goal.side_effects, goal.targets).items()
        },
    }


def _columns() -> list[str]:
    ends = [f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high")]
    return ["method", "scale", "scale_index", "eligible", "selected", "n", "missing", *ends]


def _point(row: dict[str, Any]) -> dict[str, Any]:
    """One scale of one method: its scale and index, whether it was chosen, every measure with its
    interval."""
    measures = {
        name: [digits(row[f"{name}{end}"]) for end in ("", "_low", "_high")] for name in MEASURES
    }
    return {
        "scale": digits(row["scale"], 6),
        "index": row["scale_index"],
        "chosen": bool(row["selected"]),
        "barred": not row["eligible"],
        "n": row["n"],
        **measures,
    }
