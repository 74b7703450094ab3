"""Areas under the ROC curve with intervals, where numbers come in clusters that are independent.

Positions of a game are a cluster. An area is the mean of *placements*: a positive's is the share of
negatives below it, a negative's the share of positives above it, ties counted half. What a cluster
adds to the area's error follows from the placements of its members in both classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy import special, stats


class Area(NamedTuple):
    """An area with its uncertainty; all NaN where the numbers are none.

    Attributes:
        auc: the area.
        low, high: its interval.
        p: two-sided, of the area being one half, from the distribution that the interval is from.
    """

    auc: float
    low: float
    high: float
    p: float


class Error(NamedTuple):
    """What an area, or a mean of areas, owes to each cluster.

    Attributes:
        value: the area.
        influence: how far each cluster pulls it; they sum to 0.
        clusters: how many clusters have members in the class that fewer have.
    """

    value: float
    influence: Float64[np.ndarray, " clusters"]
    clusters: int


UNKNOWN = Area(np.nan, np.nan, np.nan, np.nan)


def area_of_rank_sum(
    rank_sum: Float64[np.ndarray, ...],
    positives: Int64[np.ndarray, ...] | int,
    negatives: Int64[np.ndarray, ...] | int,
) -> Float64[np.ndarray, ...]:
    """The share of pairs of a positive and a negative in which the positive lies above, ties
    counted half.

    Args:
        rank_sum: of the positives' mid-ranks among all numbers, from 1. It is a multiple of one
            half, so that the area is exact up to its last division.
        positives, negatives: how many there are; they broadcast.
    """
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def areas_between(
    positive: Float[np.ndarray, "n series"], negative: Float[np.ndarray, "m series"]
) -> Float64[np.ndarray, " series"]:
    """Per series, the area for telling its positive numbers from its negative ones."""
    ranks = stats.rankdata(np.concatenate([positive, negative]), axis=0)
    return area_of_rank_sum(ranks[: len(positive)].sum(axis=0), len(positive), len(negative))


def placements(
    values: Float[np.ndarray, " n"], label: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Of every positive the share of negatives below it, of a negative that of positives above it.

    Args:
        values: to tell the classes by.
        label: which are positives; there are some of both.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    positives = int(label.sum())
    every = stats.rankdata(values)
    place = np.empty(len(values))
    place[label] = (every[label] - stats.rankdata(values[label])) / (len(values) - positives)
    place[~label] = 1 - (every[~label] - stats.rankdata(values[~label])) / positives
    return place


def area_error(
    place: Float64[np.ndarray, " n"],
    label: Bool[np.ndarray, " n"],
    clusters: Int64[np.ndarray, " n"],
) -> Error:
    """The area of one set of placements and what it owes to each cluster.

    Args:
        place: from `placements`.
        label: which are positives.
        clusters: of each number, counted from 0; none is left out.

    Source: Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data".
    """
    return mean_area_error(place, label, clusters, np.zeros(len(place), np.int64))


def mean_area_error(
    place: Float64[np.ndarray, " n"],
    label: Bool[np.ndarray, " n"],
    clusters: Int64[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
) -> Error:
    """The mean of the areas of several groups by their positives, and what it owes to each cluster.

    Args:
        place: from `placements`, group by group.
        label: which are positives; every group has some of both.
        clusters: of each number, counted from 0; none is left out.
        groups: of each number.
    """
    which = np.unique(groups, return_inverse=True)[1]
    positives, negatives = np.bincount(which[label]), np.bincount(which[~label])
    areas = np.bincount(which[label], place[label]) / positives
    auc = float(place[label].mean())
    # A positive counts once in the mean; a negative as much as its group's positives do, among its
    # group's negatives.
    of_negatives = (positives / negatives)[which] * (place - areas[which])
    influence = np.bincount(clusters, np.where(label, place - auc, of_negatives) / label.sum())
    return Error(auc, influence, fewest_clusters(label, clusters))


def fewest_clusters(label: Bool[np.ndarray, " n"], clusters: Int64[np.ndarray, " n"]) -> int:
    """How many clusters have a positive, or a negative, whichever are fewer."""
    return min(len(np.unique(clusters[label])), len(np.unique(clusters[~label])))


def area_interval(error: Error, level: float) -> Area:
    """The interval of an area, or of a mean of areas over the same clusters.

    It is Student's on the logit scale, which keeps it inside 0..1, with the degrees of freedom that
    the clusters' unequal influences leave (Satterthwaite). One cluster is added of which nothing is
    known: its placement is 0 or 1, as likely. So an area of exactly 1 has an interval that says of
    how many clusters it is, and one that rests on rare events does not look sure because none was
    seen.

    Args:
        error: from `area_error`.
        level: of the interval.
    """
    auc, m = error.value, error.clusters
    if np.isnan(auc):
        return UNKNOWN
    n_clusters = len(error.influence)
    squares = error.influence**2 * n_clusters / max(n_clusters - 1, 1)
    unseen = ((1 - auc) ** 2 + auc**2) / 2 / (m + 1) ** 2
    middle = (m * auc + 0.5) / (m + 1)
    spread = np.sqrt(squares.sum() + unseen) / (middle * (1 - middle))
    freedom = _degrees_of_freedom(squares, unseen, m - 1)
    width = float(special.stdtrit(freedom, (1 + level) / 2)) * spread
    low, high = (float(special.expit(special.logit(middle) + side * width)) for side in (-1, 1))
    p = float(2 * special.stdtr(freedom, -abs(special.logit(middle)) / spread))
    return Area(auc, min(low, auc), max(high, auc), p)


def _degrees_of_freedom(
    squares: Float64[np.ndarray, " clusters"], unseen: float, most: int
) -> float:
    """Of the sum of both: squares of normal numbers have a variance of two thirds of their own
    squares."""
    total, fourth = float(squares.sum()), float((squares**2).sum())
    of_squares = max(min(3 * total**2 / fourth - 1, most), 1) if fourth > 0 else 1
    return (total + unseen) ** 2 / (total**2 / of_squares + unseen**2 / max(most, 1))


def difference_interval(first: Error, second: Error, level: float) -> tuple[float, float, float]:
    """The second area less the first, of the same clusters, and its interval.

    Each end is as far from the difference as both areas' own ends allow (square and add): the
    interval has a width even where neither area has an error that shows.

    Args:
        first, second: over the same clusters in the same order.
        level: of the interval.

    Source: Zou and Donner 2008, "Construction of confidence limits about effect measures".
    """
    left, right = area_interval(first, level), area_interval(second, level)
    product = float(np.sqrt((first.influence**2).sum() * (second.influence**2).sum()))
    shared = float(first.influence @ second.influence) / product if product > 0 else 0.0
    down = square_and_add(right.auc - right.low, left.high - left.auc, shared)
    up = square_and_add(right.high - right.auc, left.auc - left.low, shared)
    change = right.auc - left.auc
    return change, change - down, change + up


def square_and_add(a: float, b: float, correlation: float) -> float:
    """How far a difference may lie off where its sides lie off by these, and correlate."""
    return float(np.sqrt(max(a * a + b * b - 2 * correlation * a * b, 0.0)))
