"""Which latents a study targets: for each goal those whose firing is most specific to its example
texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy.typing import NDArray

from saeflow.analyses.steering.specificity import Draw, GoalTexts, Specificity, specificity
from saeflow.errors import SaeflowError

CANDIDATES = 20  # rows of a goal's table
CONTENDERS = 50  # latents of a goal among which resamples choose
RESAMPLES = 200

CANDIDATES_SCHEMA = {
    "rank": pl.Int64,
    "latent": pl.Int64,
    "score": pl.Float64,
    "recall": pl.Float64,
    "density": pl.Float64,
    "neutral": pl.Float64,
    "others": pl.Float64,
    "difference": pl.Float64,
    "chosen": pl.Float64,
}
TARGETS_SCHEMA = {
    "goal": pl.String,
    "latent": pl.Int64,
    "weight": pl.Float64,
    "source": pl.String,
    "shared_with": pl.String,
    **{name: kind for name, kind in CANDIDATES_SCHEMA.items() if name != "latent"},
    "held_out_neutral": pl.Float64,
    "held_out_others": pl.Float64,
    "runner_up": pl.Int64,
    "margin": pl.Float64,
}


class LatentChoice(NamedTuple):
    """The latents of a goal, and those they were chosen from."""

    weights: dict[int, float]
    """By latent; they sum to 1 where they were chosen."""
    candidates: pl.DataFrame
    """Best first, with the columns of `CANDIDATES_SCHEMA`."""


class LatentChoices(NamedTuple):
    """The latents of all goals."""

    by_goal: dict[str, LatentChoice]
    targets: pl.DataFrame
    """One row per goal and target, with the columns of `TARGETS_SCHEMA`."""


class Certainty(NamedTuple):
    """What becomes of the choice of one goal when its example texts are drawn again."""

    chosen: dict[int, float]
    """Share of the resamples in which a latent is chosen; 0 for those that are left out."""
    held_out: dict[int, tuple[float, float]]
    """Area under the curve by which a chosen latent tells the goal's texts that the resample left
    out from its negative ones and from the other goals' texts, left out as well; NaN where there
    are none."""


def choose_latents(
    goals: Mapping[str, GoalTexts],
    density: Float[NDArray[np.float64], " d_sae"],
    count: int,
    generator: np.random.Generator,
    listed: Mapping[str, Mapping[int, float]] | None = None,
    shared: bool = False,
) -> LatentChoices:
    """Choose the latents of all goals together.

    Latents are dealt to the goals so that the sum of their scores (`specificity`) is largest and no
    two goals have one in common. To tell how sure that is, the example texts of all goals are drawn
    again with replacement, and latents are dealt anew.

    Args:
        goals: the example texts of every goal.
        density: share of the corpus's tokens on which each latent fires.
        count: how many latents each goal gets.
        generator: draws texts.
        listed: latents that goals name themselves, with weights; they are taken as they are, and no
            other goal gets them.
        shared: goals may have latents in common: each gets those that it scores highest.

    Raises:
        SaeflowError: fewer latents than asked for tell a goal's examples from other texts.
    """
    named = dict(listed or {})
    once = {name: Draw.once(texts) for name, texts in goals.items()}
    scores = {name: specificity(name, goals, once, density) for name in goals}
    taken = (
        set()
        if shared
        else {latent for weights in named.values() for latent in weights if latent < len(density)}
    )
    open_goals = [name for name in goals if name not in named]
    chosen = _deal({name: scores[name].score for name in open_goals}, count, taken, shared)
    _check(chosen, count)
    certainty = _certainty(goals, density, scores, open_goals, count, taken, shared, generator)
    by_goal = {}
    for name, texts in goals.items():
        size = texts.difference[chosen.get(name, [])]
        weights = named.get(name) or dict(
            zip(chosen[name], (size / size.sum()).tolist(), strict=True)
        )
        by_goal[name] = LatentChoice(
            dict(weights),
            _candidates(scores[name], density, texts.difference, certainty.get(name), weights),
        )
    return LatentChoices(by_goal, _targets(by_goal, named, certainty, shared))


def _deal(
    scores: Mapping[str, Float[NDArray[np.float64], " latents"]],
    count: int,
    taken: Collection[int],
    shared: bool,
) -> dict[str, list[int]]:
    """``count`` latents for every goal, its best first; fewer where no others have a score above
    0."""
    if not scores:
        return {}
    table = np.stack([*scores.values()])
    table[:, [*taken]] = 0.0
    wanted = count if shared else count * len(scores)
    best = np.argsort(-table, axis=1, kind="stable")[:, :wanted]
    dealt: dict[str, list[int]] = {name: [] for name in scores}
    if shared:
        for name, row, order in zip(scores, table, best, strict=True):
            dealt[name] = [int(latent) for latent in order if row[latent] > 0]
        return dealt
    # Half a second to import, and who reads a choice makes none.
    from scipy.optimize import linear_sum_assignment

    # No goal needs to look beyond as many of its best as there are latents to deal.
    columns = np.unique(best)
    names = [name for name in scores for _ in range(count)]
    gains = np.repeat(table[:, columns], count, axis=0)
    for row, column in zip(*linear_sum_assignment(gains, maximize=True), strict=True):
        if gains[row, column] > 0:
            dealt[names[row]].append(int(columns[column]))
    order = dict(zip(scores, table, strict=True))
    return {
        name: sorted(latents, key=lambda latent: (-order[name][latent], latent))
        for name, latents in dealt.items()
    }


def _check(chosen: Mapping[str, list[int]], count: int) -> None:
    for name, latents in chosen.items():
        if len(latents) < count:
            raise SaeflowError(
                f"steering: goal {name}: {len(latents)} latents tell its examples from other texts "
                f"and steering.targets.latents asks for {count}; lower it, write examples that "
                "differ more, or let goals share latents (steering.targets.shared)"
            )


def _certainty(
    goals: Mapping[str, GoalTexts],
    density: Float[NDArray[np.float64], " d_sae"],
    scores: Mapping[str, Specificity],
    open_goals: list[str],
    count: int,
    taken: Collection[int],
    shared: bool,
    generator: np.random.Generator,
) -> dict[str, Certainty]:
    """Deal latents again for texts that are drawn again; only among each goal's best, as the others
    never win."""
    if not open_goals:
        return {}
    best = [
        np.argsort(-scores[name].score, kind="stable")[: CONTENDERS + count * len(goals)]
        for name in open_goals
    ]
    latents = np.unique(np.concatenate(best))
    few = {name: texts.of_latents(latents) for name, texts in goals.items()}
    barred = np.flatnonzero(np.isin(latents, [*taken])).tolist()
    times: dict[str, dict[int, int]] = {name: {} for name in open_goals}
    areas: dict[str, dict[int, list[tuple[float, float]]]] = {name: {} for name in open_goals}
    for _ in range(RESAMPLES):
        draws = {name: Draw.at_random(texts, generator) for name, texts in few.items()}
        again = {name: specificity(name, few, draws, density[latents]).score for name in open_goals}
        for name, columns in _deal(again, count, barred, shared).items():
            for column in columns:
                latent = int(latents[column])
                times[name][latent] = times[name].get(latent, 0) + 1
                areas[name].setdefault(latent, []).append(_left_out(name, few, draws, column))
    return {
        name: Certainty(
            {latent: n / RESAMPLES for latent, n in times[name].items()},
            {latent: _means(pairs) for latent, pairs in areas[name].items()},
        )
        for name in open_goals
    }


def _left_out(
    goal: str, goals: Mapping[str, GoalTexts], draws: Mapping[str, Draw], column: int
) -> tuple[float, float]:
    """How a latent tells those of a goal's texts that a resample left out from the negative and the
    others' texts."""

    def values(name: str, kind: str) -> NDArray[np.float64]:
        means: NDArray[np.float64] = getattr(goals[name], f"{kind}_means")
        return means[getattr(draws[name], kind) == 0][:, [column]]

    from saeflow.statistics.areas import areas_between

    own, neutral = values(goal, "positive"), values(goal, "negative")
    others = [values(name, "positive") for name in goals if name != goal]
    against = [neutral, np.concatenate(others) if others else neutral[:0]]
    first, second = (
        float(areas_between(own, texts)[0]) if len(own) and len(texts) else np.nan
        for texts in against
    )
    return first, second


def _means(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Column by column, over the numbers there are."""
    first, second = (
        float(np.nanmean(column)) if not np.isnan(column).all() else np.nan
        for column in np.array(pairs).T
    )
    return first, second


def _candidates(
    scores: Specificity,
    density: Float[NDArray[np.float64], " d_sae"],
    difference: Float[NDArray[np.float64], " d_sae"],
    certainty: Certainty | None,
    weights: Mapping[int, float],
) -> pl.DataFrame:
    """The best latents of a goal and its targets."""
    order = np.argsort(-scores.score, kind="stable")
    # others are refused where vectors are built
    targets = [latent for latent in weights if latent < len(order)]
    kept = (np.arange(len(order)) < CANDIDATES) | np.isin(order, targets)
    ranks, latents = np.flatnonzero(kept) + 1, order[kept]
    share = [certainty.chosen.get(int(latent), 0.0) if certainty else None for latent in latents]
    measured = {**scores._asdict(), "density": density, "difference": difference}
    table = pl.DataFrame({name: column[latents] for name, column in measured.items()})
    added = (
        pl.Series("rank", ranks),
        pl.Series("latent", latents),
        pl.Series("chosen", share, pl.Float64),
    )
    return table.with_columns(*added).select(*CANDIDATES_SCHEMA)


def _targets(
    by_goal: Mapping[str, LatentChoice],
    listed: Mapping[str, Mapping[int, float]],
    certainty: Mapping[str, Certainty],
    shared: bool,
) -> pl.DataFrame:
    """One row per goal and target."""
    holders: dict[int, list[str]] = {}
    for name, choice in by_goal.items():
        for latent in choice.weights:
            holders.setdefault(latent, []).append(name)
    rows: list[dict[str, Any]] = []
    for name, choice in by_goal.items():
        table = {row["latent"]: row for row in choice.candidates.to_dicts()}
        free = [
            latent
            for latent in table
            if latent not in choice.weights and (shared or latent not in holders)
        ]
        for latent, weight in choice.weights.items():
            own = table.get(latent, {})
            neutral, others = (
                certainty[name].held_out.get(latent, (None, None))
                if name in certainty
                else (None, None)
            )
            rows.append(
                {
                    **own,
                    "goal": name,
                    "latent": latent,
                    "weight": weight,
                    "source": "goal" if name in listed else "chosen",
                    "shared_with": ", ".join(other for other in holders[latent] if other != name),
                    "held_out_neutral": neutral,
                    "held_out_others": others,
                    "runner_up": free[0] if free and own else None,
                    "margin": own["score"] - table[free[0]]["score"] if free and own else None,
                }
            )
    return pl.DataFrame(rows, schema=TARGETS_SCHEMA).with_columns(
        pl.col("^held_out.*$").fill_nan(None)
    )
