"""Ratings of methods from comparisons side by side: Bradley-Terry and Elo, with intervals.

Both are in Elo points: a lead of 400 means odds of ten to one. A goal's ratings have the mean 1000.

- Bradley-Terry (Biometrika 39, 1952) is the maximum-likelihood strength of every method, found by
  the minorisation-maximisation of Hunter (Ann. Statist. 32, 2004). Every two methods that met get
  half a win each on top, so that a method that never lost has a finite rating.
- Elo goes through the comparisons one by one, so it depends on their order: it is the mean over
  many random orders.

Intervals suppose one more unit (a sample, or a prompt where there are several) in which a method
loses every comparison at the lower end and wins it at the upper end, as in
`saeflow.statistics.means`: a method that won all that it was shown in has not won for ever.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from saeflow.analyses.steering.comparisons import AVERAGE
from saeflow.analyses.steering.preferences import SAMPLE
from saeflow.seeds import numpy_generator
from saeflow.statistics.means import interval, random_weights

MEAN, POINTS_PER_DECADE = 1000.0, 400.0
K = 16.0  # Elo points that one comparison can move
ORDERS = 200
STEPS = 200  # of the minorisation-maximisation
RATINGS_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String,
    **{
        f"{kind}{end}": pl.Float64
        for kind in ("bradley_terry", "elo")
        for end in ("", "_low", "_high")
    },
    "n": pl.Int64,
}  # fmt: skip


def rate(preferences: pl.DataFrame, resamples: int, level: float, seed: int) -> pl.DataFrame:
    """Rate the methods of every goal, then of all goals together.

    Args:
        preferences: columns goal, method, other, preference (null is left out) and the sample's.
        resamples: of the samples, for the intervals.
        level: of the intervals.
        seed: the study's seed.

    Returns:
        The columns of `RATINGS_SCHEMA`; ``n`` counts the comparisons that the method took part in.
    """
    compared = preferences.drop_nulls("preference")
    tables = [
        _rate(own, str(goal), resamples, level, seed)
        for (goal,), own in compared.group_by("goal", maintain_order=True)
    ]
    if len(tables) > 1:
        tables.append(_rate(compared, AVERAGE, resamples, level, seed))
    return pl.concat([pl.DataFrame(schema=RATINGS_SCHEMA), *tables])


def _rate(
    compared: pl.DataFrame, goal: str, resamples: int, level: float, seed: int
) -> pl.DataFrame:
    methods = (
        pl.concat([compared["method"], compared["other"]]).unique(maintain_order=True).to_list()
    )
    first, second = (
        compared[side].replace_strict(methods, range(len(methods))).to_numpy()
        for side in ("method", "other")
    )
    preference = compared["preference"].to_numpy()
    weights = random_weights(
        _units(compared), resamples, numpy_generator(seed, "ratings", "bootstrap", goal)
    )
    generator = numpy_generator(seed, "ratings", "order", goal)
    orders = np.stack([generator.permutation(len(compared)) for _ in range(ORDERS)])
    strengths = bradley_terry(
        _wins(first, second, preference, np.ones((1, len(compared))), len(methods))
    )[0]
    rated = elo(first, second, preference, orders, len(methods)).mean(axis=0)
    draws = _draws((first, second, preference), _units(compared), weights, len(methods), generator)
    columns: dict[str, object] = {"goal": [goal] * len(methods), "method": methods}
    for kind, value, both in (("bradley_terry", strengths, draws[0]), ("elo", rated, draws[1])):
        low, high = interval(both, level)
        columns |= {kind: value, f"{kind}_low": low, f"{kind}_high": high}
    counts = np.bincount(np.concatenate([first, second]), minlength=len(methods))
    return pl.DataFrame(columns | {"n": counts}).select(
        pl.col(name).cast(kind) for name, kind in RATINGS_SCHEMA.items()
    )


def _draws(
    rows: tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"], Float[np.ndarray, " rows"]],
    unit: Int[np.ndarray, " rows"],
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    methods: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "2 2 draws methods"]:
    """Draws of Bradley-Terry and of Elo ratings, of each for the lower and the upper end of its
    interval.

    Args:
        rows: the methods of every comparison, and whether the first was preferred.
        unit: of every comparison, with their ``weights``.
    """
    # what the unit that was not seen compares, in rows after the others
    pairs = np.unique(np.stack(rows[:2]), axis=1)
    first, second = np.append(rows[0], pairs[0]), np.append(rows[1], pairs[1])
    unseen_weight = np.repeat(weights[:, -1:] / len(pairs.T), len(pairs.T), axis=1)
    counts = len(unit) * np.concatenate([weights[:, :-1], unseen_weight], axis=1)
    orders = _redrawn(
        np.append(unit, np.full(len(pairs.T), unit.max() + 1)), len(unit), weights, generator
    )
    draws = np.empty((2, 2, len(weights), methods))
    for end in (0, 1):
        for method in range(methods):
            unseen = np.where(pairs[0] == method, end, np.where(pairs[1] == method, 1 - end, 0.5))
            outcomes = np.append(rows[2], unseen)
            strengths = bradley_terry(_wins(first, second, outcomes, counts, methods))
            draws[0, end, :, method] = strengths[:, method]
            draws[1, end, :, method] = elo(first, second, outcomes, orders, methods)[:, method]
    return draws


def _units(compared: pl.DataFrame) -> Int[np.ndarray, " rows"]:
    """What every comparison is drawn by, counted from 0: its prompt where there are several, else
    its sample."""
    by = ["prompt"] if compared["prompt"].n_unique() > 1 else list(SAMPLE)
    return compared.select(pl.struct(by).rank("dense") - 1).to_series().cast(pl.Int64).to_numpy()


def bradley_terry(
    wins: Float[np.ndarray, "resamples methods methods"],
) -> Float[np.ndarray, "resamples methods"]:
    """Ratings in Elo points with the mean 1000.

    Args:
        wins: how often the first method was preferred to the second, ties counted half for either.
    """
    wins = wins + 0.5 * ((wins + wins.transpose(0, 2, 1)) > 0)
    met = wins + wins.transpose(0, 2, 1)
    strength = np.ones(wins.shape[:2])
    for _ in range(STEPS):
        expected = (met / (strength[:, :, None] + strength[:, None, :])).sum(axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            strength = np.where(expected > 0, wins.sum(axis=2) / expected, strength)
        strength /= np.exp(np.log(strength).mean(axis=1, keepdims=True))
    return MEAN + POINTS_PER_DECADE * np.log10(strength)


def elo(
    first: Int[np.ndarray, " rows"],
    second: Int[np.ndarray, " rows"],
    preference: Float[np.ndarray, " rows"],
    orders: Int[np.ndarray, "orders steps"],
    methods: int,
) -> Float[np.ndarray, "orders methods"]:
    """Ratings after going through the comparisons in each order, from 1000 each.

    Args:
        first, second: the methods of every comparison.
        preference: 1 where the first was preferred, 0 where the second was.
        orders: indices of comparisons.
        methods: how many there are.
    """
    ratings, rows = np.full((len(orders), methods), MEAN), np.arange(len(orders))
    for step in orders.T:
        own, other = first[step], second[step]
        lead = ratings[rows, own] - ratings[rows, other]
        gain = K * (preference[step] - 1 / (1 + 10 ** (-lead / POINTS_PER_DECADE)))
        ratings[rows, own] += gain
        ratings[rows, other] -= gain
    return ratings


def _wins(
    first: Int[np.ndarray, " rows"],
    second: Int[np.ndarray, " rows"],
    preference: Float[np.ndarray, " rows"],
    weights: Float[np.ndarray, "resamples rows"],
    methods: int,
) -> Float[np.ndarray, "resamples methods methods"]:
    wins = np.zeros((len(weights), methods, methods))
    for method in range(methods):
        for other in range(methods):
            rows = (first == method) & (second == other)
            wins[:, method, other] += weights[:, rows] @ preference[rows]
            wins[:, other, method] += weights[:, rows] @ (1 - preference[rows])
    return wins


def _redrawn(
    unit: Int[np.ndarray, " rows"],
    steps: int,
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    generator: np.random.Generator,
) -> Int[np.ndarray, "draws steps"]:
    """Comparisons in random order, drawn as often as their units weigh.

    Args:
        unit: of each comparison; the last one is the unit that was not seen.
        steps: comparisons of each order.
        weights: of the comparisons that were seen, and of that unit.
    """
    members = [np.flatnonzero(unit == number) for number in range(unit.max() + 1)]
    shares = np.stack([weights[:, own[0]] for own in members[:-1]] + [weights[:, -1]], axis=1)
    orders = []
    for share in shares / shares.sum(axis=1, keepdims=True):
        drawn = np.concatenate(
            [members[u] for u in generator.choice(len(members), 2 * len(members), p=share)]
        )
        orders.append(generator.permutation(np.resize(drawn, steps)))
    return np.stack(orders)
