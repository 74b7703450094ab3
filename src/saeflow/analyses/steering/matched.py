"""Methods at equal cost: their behaviour where they have lost as much coherence, or moved the model
as far.

The largest product of behaviour and coherence weighs the two in one fixed way. Here one is held
fixed: along its scales every method is followed to the first point where coherence has fallen to a
level (or the KL divergence from the unsteered model has risen to one), and its behaviour is read
there, by linear interpolation between neighbouring scales. Nothing is chosen, so all samples count,
but scales at which too few completions have scores are passed over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from saeflow.analyses.steering.comparisons import AVERAGE
from saeflow.analyses.steering.pairs import PairedScores
from saeflow.analyses.steering.resampling import means
from saeflow.analyses.steering.settings import Summary
from saeflow.statistics.means import interval, mean_draws, seen_draws

MATCHED_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String, "cost": pl.String, "level": pl.Float64,
    "scale": pl.Float64,
    "behaviour": pl.Float64, "behaviour_low": pl.Float64, "behaviour_high": pl.Float64,
    "n": pl.Int64,
}  # fmt: skip


class Curves(NamedTuple):
    """Means of every group, measured (one draw) or drawn."""

    behaviour: Float[np.ndarray, "ends draws groups"]
    """For the two ends of its interval; where measured, once."""
    coherence: Float[np.ndarray, "draws groups"]
    kl: Float[np.ndarray, "draws groups"]


class Reading(NamedTuple):
    """One method's behaviour at one level; NaN where it does not come so far."""

    goal: str
    method: str
    cost: str
    level: float
    scale: float
    behaviour: float
    draws: Float[np.ndarray, "2 draws"]
    n: int
    """The fewest completions of any scale."""


class Place(NamedTuple):
    """A point between two neighbouring scales of a curve, one per draw."""

    before: Int[np.ndarray, " draws"]
    """Index of the scale before it."""
    share: Float[np.ndarray, " draws"]
    """Of the way to the next one; NaN where the curve does not come so far."""

    def read(self, curve: Float[np.ndarray, "draws scales"]) -> Float[np.ndarray, " draws"]:
        """The value of another curve at this point."""
        rows = np.arange(len(curve))
        low, high = curve[rows, self.before], curve[rows, self.before + 1]
        return low + self.share * (high - low)


def first_fall(
    curve: Float[np.ndarray, "draws scales"], level: Float[np.ndarray, " draws"]
) -> Place:
    """Where a curve, followed from its first scale, is first at or below a level that it starts
    above."""
    below = curve[:, 1:] <= level[:, None]
    before = np.argmax(below, axis=1)
    rows = np.arange(len(curve))
    high, low = curve[rows, before], curve[rows, before + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(
            below.any(axis=1) & (curve[:, 0] > level), (high - level) / (high - low), np.nan
        )
    return Place(before, share)


def match(
    paired: PairedScores,
    kl: Float[np.ndarray, "groups samples"] | None,
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    settings: Summary,
) -> pl.DataFrame:
    """Every goal's methods at every level, then their means over the goals.

    Args:
        kl: nats per token of every completion, NaN where there is none; None leaves those levels
            out.
        weights: random weights of all samples.

    Returns:
        The columns of `MATCHED_SCHEMA`. ``level`` is a share of the unsteered coherence where
        ``cost`` is coherence, nats per token where it is kl; behaviour is null where a method does
        not come so far.
    """
    missing = (
        np.full_like(paired.behaviour, np.nan)
        if kl is None
        else np.where(paired.observed, kl, np.nan)
    )
    points, draws = _curves(paired, missing, None), _curves(paired, missing, weights)
    n = paired.observed.sum(axis=1)
    scales = paired.groups["scale"].to_numpy()
    levels = [("coherence", level) for level in settings.coherence_levels]
    levels += [("kl", level) for level in settings.divergence_levels] if kl is not None else []
    eligible = paired.scored(settings.least_scored)
    readings = []
    for (goal, method), rows in paired.groups.with_row_index("group").group_by(
        "goal", "method", maintain_order=True
    ):
        if rows["scale"].has_nulls():
            continue
        groups = rows["group"].to_numpy()[_outwards(rows["scale"].to_numpy())]
        groups = np.append(groups[:1], groups[1:][eligible[groups[1:]]])
        for cost, level in levels if len(groups) > 1 else []:
            place, drawn = (_place(curves, groups, cost, level) for curves in (points, draws))
            scale = place.read(scales[groups][None])[0]
            behaviour = place.read(points.behaviour[0][:, groups])[0]
            ends = np.stack([drawn.read(end[:, groups]) for end in draws.behaviour])
            readings.append(
                Reading(
                    goal=str(goal),
                    method=str(method),
                    cost=cost,
                    level=level,
                    scale=scale,
                    behaviour=behaviour,
                    draws=ends,
                    n=int(n[groups].min()),
                )
            )
    in_words = _in_words(paired, points, draws, n, [cost for cost, _ in levels])
    goals = paired.groups["goal"].n_unique()
    averages = [*_averages(readings, goals), *_averages(in_words, goals, same_level=False)]
    return _table([*readings, *in_words, *averages], settings.level)


def _in_words(
    paired: PairedScores,
    points: Curves,
    draws: Curves,
    n: Int[np.ndarray, " groups"],
    costs: list[str],
) -> list[Reading]:
    """Methods without a scale: each is where it is, at a level of its own."""
    numbered = paired.groups.with_row_index("group")
    in_words = numbered.filter(pl.col("scale").is_null())
    unsteered = numbered.filter(pl.col("scale") == 0).select("goal", "method", zero="group")
    readings = []
    for goal, method, group, zero in (
        in_words.join(unsteered, on=["goal", "method"], maintain_order="left")
        .select("goal", "method", "group", "zero")
        .iter_rows()
    ):
        coherence, kl = points.coherence[0], points.kl[0]
        own = {"coherence": coherence[group] / coherence[zero], "kl": kl[group]}
        readings += [
            Reading(
                goal=goal,
                method=method,
                cost=cost,
                level=float(own[cost]),
                scale=np.nan,
                behaviour=points.behaviour[0, 0, group],
                draws=draws.behaviour[..., group],
                n=int(n[[group, zero]].min()),
            )
            for cost in dict.fromkeys(costs)
        ]
    return readings


def _outwards(scales: Float[np.ndarray, " scales"]) -> Int[np.ndarray, " branch"]:
    """The scales from the unsteered one outwards; towards the negative ones only where there are no
    others."""
    outwards = scales if (scales > 0).any() else -scales
    order = np.argsort(outwards, kind="stable")
    return order[outwards[order] >= 0]


def _curves(
    paired: PairedScores,
    kl: Float[np.ndarray, "groups samples"],
    weights: Float[np.ndarray, "draws samples_and_unseen"] | None,
) -> Curves:
    """Only behaviour, which is read, is drawn with a unit that was not seen; the others say
    where."""
    if weights is None:
        scores = means(paired.behaviour, paired.coherence)
        return Curves(
            scores.behaviour[None, None], scores.coherence[None], means(kl, kl).behaviour[None]
        )
    return Curves(
        mean_draws(paired.behaviour, weights, paired.unseen_of),
        seen_draws(paired.coherence, weights),
        seen_draws(kl, weights),
    )


def _place(curves: Curves, groups: Int[np.ndarray, " scales"], cost: str, level: float) -> Place:
    if cost == "kl":
        return first_fall(-curves.kl[:, groups], np.full(len(curves.kl), -level))
    coherence = curves.coherence[:, groups]
    return first_fall(coherence, level * coherence[:, 0])


def _averages(readings: list[Reading], goals: int, same_level: bool = True) -> list[Reading]:
    """Each method's mean over the goals at each level, NaN where it does not come so far in one of
    them; or, of methods that have no levels, where it is on average."""
    members: dict[tuple[str, str, float | None], list[Reading]] = {}
    for reading in readings:
        level = reading.level if same_level else None
        members.setdefault((reading.method, reading.cost, level), []).append(reading)
    averages = []
    for over_goals in members.values():
        behaviour = float(np.mean([reading.behaviour for reading in over_goals]))
        averages.append(
            over_goals[0]._replace(
                goal=AVERAGE,
                scale=np.nan,
                level=over_goals[0].level
                if same_level
                else float(np.mean([reading.level for reading in over_goals])),
                behaviour=behaviour if len(over_goals) == goals else np.nan,
                draws=np.mean([reading.draws for reading in over_goals], axis=0),
                n=min(reading.n for reading in over_goals),
            )
        )
    return averages


def _table(readings: list[Reading], level: float) -> pl.DataFrame:
    if not readings:
        return pl.DataFrame(schema=MATCHED_SCHEMA)
    low, high = interval(np.stack([reading.draws for reading in readings], axis=-1), level)
    reached = np.array([not np.isnan(reading.behaviour) for reading in readings])
    table = pl.DataFrame(
        [
            {name: getattr(reading, name) for name in Reading._fields if name != "draws"}
            for reading in readings
        ]
    )
    return table.with_columns(
        behaviour_low=pl.Series(np.where(reached, low, np.nan)),
        behaviour_high=pl.Series(np.where(reached, high, np.nan)),
    )
