"""Which latents a study aimed at, how sure their choice is, and what it cost where the best ones
are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.steering.methods import PLANTED
from saeflow.analyses.steering.results import difference
from saeflow.analyses.steering.tables import AVERAGE
from saeflow.figures.style import words
from saeflow.report.wording import interval, number

SURE = 0.8
"""Share of resamples in which a target is chosen from which on its choice is called sure."""


class TargetRow(NamedTuple):
    """One latent that a goal targets."""

    goal: str
    latent: int
    source: str
    """``chosen``, or ``goal`` where the goal's file names it."""
    score: str
    chosen: str
    """Share of resamples of the example texts in which it was chosen."""
    sure: bool
    held_out: str
    """Area by which it tells texts that were left out from neutral ones, and from those of other
    goals."""
    second: int | None
    """The latent that was next."""
    runner_up: str
    """It, and by how much of the score it is behind."""
    shared_with: list[str]
    f1: float | None
    """Of its firing as a sign of the planted topic; None where that is not known."""
    planted: int | None
    """The latent that has the largest."""
    planted_f1: float | None

    @property
    def best(self) -> bool:
        """It is the latent that detects the planted topic best, or as good."""
        return self.f1 is not None and self.f1 == self.planted_f1


class PlantedCell(NamedTuple):
    """One method with the chosen target and with the planted one."""

    chosen: str
    planted: str
    difference: str
    """Planted less chosen, with its interval; empty where it was not measured."""
    same: bool
    """Both targets are the same latent, so that the vectors are the same, too."""


class PlantedRow(NamedTuple):
    """One goal, or the average over goals."""

    goal: str
    average: bool
    cells: list[PlantedCell]


class Planted(NamedTuple):
    """Methods with the targets that were chosen, and with the latents that detect the planted
    topics best."""

    methods: Sequence[str] = ()
    rows: Sequence[PlantedRow] = ()
    sentences: Sequence[str] = ()
    """What each method would gain on average, in sentences."""

    @classmethod
    def of(cls, best: pl.DataFrame, comparisons: pl.DataFrame, targets: list[TargetRow]) -> Planted:
        """From the tables of all methods; empty where no method was given planted targets."""
        present = set(best["method"]) if "method" in best.columns else set()
        methods = [name.removesuffix(PLANTED) for name in sorted(present) if name.endswith(PLANTED)]
        if not methods:
            return cls()
        same = {row.goal for row in targets if row.latent == row.planted}
        goals = sorted(best["goal"].unique(maintain_order=True), key=lambda goal: goal != AVERAGE)
        rows = [
            PlantedRow(
                goal,
                goal == AVERAGE,
                [_planted_cell(best, comparisons, goal, m, goal in same) for m in methods],
            )
            for goal in goals
        ]
        lines = [
            f"With the latents that detect the planted topics best, {method} has an average "
            f"product of {cell.planted} in place of {cell.chosen}: the choice of latents accounts "
            f"for {cell.difference}."
            for row in rows[:1]
            for method, cell in zip(methods, row.cells, strict=True)
            if row.average and cell.difference
        ]
        if same >= set(goals) - {AVERAGE}:
            lines = [
                "Every goal has the latent that detects its topic best, so what a method lacks is "
                "not lacking in the choice of latents."
            ]
        return cls(methods, rows, lines)


def target_rows(
    targets: pl.DataFrame, recovery: pl.DataFrame, topics: Mapping[str, str]
) -> list[TargetRow]:
    """The targets of all goals, in the order of the study.

    Args:
        targets: ``targets.parquet``.
        recovery: ``recovery.parquet`` of the SAE that is steered with; empty where nothing was
            planted.
        topics: of every goal.
    """
    return [
        _target_row(row, recovery, topics.get(row["goal"], row["goal"]))
        for row in targets.to_dicts()
    ]


def _target_row(row: dict[str, Any], recovery: pl.DataFrame, topic: str) -> TargetRow:
    scores: dict[int, float] = {}
    if {"label", "detectors"} <= set(recovery.columns):
        for topic_row in recovery.filter(
            (pl.col("label") == "topic") & (pl.col("feature") == topic)
        ).to_dicts():
            scores = dict(zip(topic_row["detectors"], topic_row["detectors_f1"], strict=True))
    planted = next(iter(scores), None)
    chosen, shared = row["chosen"], row["shared_with"] or ""
    second = row["runner_up"]
    areas = [row["held_out_neutral"], row["held_out_others"]]
    return TargetRow(
        goal=row["goal"],
        latent=row["latent"],
        source=row["source"],
        score=number(row["score"]),
        chosen="–" if chosen is None else f"{100 * chosen:.0f} %",
        sure=chosen is not None and chosen >= SURE,
        held_out="–" if areas[0] is None else " / ".join(map(number, areas)),
        second=second,
        runner_up="" if second is None else f"{second} ({number(row['margin'])} behind)",
        shared_with=[name for name in shared.split(", ") if name],
        f1=scores.get(row["latent"]),
        planted=planted,
        planted_f1=None if planted is None else scores[planted],
    )


def sentences(rows: list[TargetRow]) -> list[str]:
    """How far the results hang on the choice of latents, in sentences; nothing without targets."""
    chosen = [row for row in rows if row.source == "chosen"]
    lines = []
    if chosen:
        sure = sum(row.sure for row in chosen)
        unsure = [f"{words(row.goal)} {row.chosen}" for row in chosen if not row.sure]
        lines.append(
            f"Of {len(chosen)} target latents {sure} are chosen again in at least {100 * SURE:.0f} "
            "% of resamples of the example "
            f"texts{'; the others are ' + ', '.join(unsure) if unsure else ''}."
        )
    if shared := sorted({words(row.goal) for row in rows if row.shared_with}):
        lines.append(
            f"{', '.join(shared)} share targets, so methods that aim at latents build the same "
            "vectors for them."
        )
    if with_planted := [row for row in rows if row.planted is not None]:
        best = sum(row.best for row in with_planted)
        lines.append(
            f"{best} of {len(with_planted)} targets detect their planted topic best of all "
            "latents, by F1."
        )
    return lines


def _planted_cell(
    best: pl.DataFrame, comparisons: pl.DataFrame, goal: str, method: str, same: bool
) -> PlantedCell:
    def valued(name: str) -> str:
        row = next(
            iter(best.filter((pl.col("goal") == goal) & (pl.col("method") == name)).to_dicts()), {}
        )
        return f"{number(row.get('product'))} {interval(row)}".strip()

    gained = difference(comparisons, goal, method + PLANTED, method)
    return PlantedCell(
        valued(method), valued(method + PLANTED), gained.worded() if gained else "", same
    )
