"""The direction along which a number rises, told by blocks of numbers that it was not fitted to.

With fewer texts than dimensions any numbers are fitted without error, so what is said of texts that
a line was fitted to is no evidence. Whole blocks are held out, such as decades: neighbours in time
share names and words, and a text whose neighbours are known is easy. For the null the numbers of
whole blocks are exchanged, since texts of a block are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import stats

from saeflow.errors import SaeflowError

LineMethod = Literal["ridge", "pls", "difference"]
METHODS: tuple[LineMethod, ...] = ("ridge", "pls", "difference")
PENALTIES = 10.0 ** np.arange(-4, 3)
"""Of ridge, relative to the mean squared singular value; chosen by generalised cross-validation
inside the texts that are fitted."""
LEAST_BLOCKS = 4


class Fitted(NamedTuple):
    """A line: what a text's place on it is, and its number."""

    direction: Float64[np.ndarray, " d"]
    """Unit norm; numbers rise along it."""
    slope: float
    """Of the number by the place along the direction."""
    mean: Float64[np.ndarray, " d"]
    """Where the place is 0."""
    intercept: float
    """The number there."""

    def numbers(self, points: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        """The numbers that places on the line say."""
        return self.intercept + self.slope * ((points - self.mean) @ self.direction)


class Held(NamedTuple):
    """What a line says of numbers that it was not fitted to.

    Attributes:
        predicted: of each text, by the line fitted without its block.
        r2: 1 less the squared error over that of the mean of all.
        rank: Spearman's correlation.
    """

    predicted: Float64[np.ndarray, " n"]
    r2: float
    rank: float


def blocks_of(
    values: Float64[np.ndarray, " n"], width: float, name: str
) -> Int64[np.ndarray, " n"]:
    """The block of every number, counted from 0 in rising order.

    Raises:
        SaeflowError: there are fewer than `LEAST_BLOCKS`.
    """
    blocks = np.unique(np.floor(values / width), return_inverse=True)[1]
    if (count := int(blocks.max(initial=-1)) + 1) < LEAST_BLOCKS:
        raise SaeflowError(
            f"geometry.points.lines.{name}.block: {width:g} puts the numbers into {count} blocks, "
            f"and {LEAST_BLOCKS} are the least, as each is held out once; make it smaller"
        )
    return blocks.astype(np.int64)


def fit_line(
    points: Float64[np.ndarray, "n d"], values: Float64[np.ndarray, " n"], method: LineMethod
) -> Fitted:
    """Fit a line to points and their numbers.

    Args:
        points: of the texts.
        values: their numbers.
        method: ``ridge`` regression; ``pls``, the direction of largest covariance with the numbers
            (partial least squares with one component); ``difference`` of the means of the higher
            and the lower half. The latter two are then scaled by least squares.
    """
    return LineFitting(points).fit(values, method)


class LineFitting:
    """Points, taken apart once for all numbers that they are fitted to."""

    def __init__(self, points: Float64[np.ndarray, "n d"]) -> None:
        self.mean = points.mean(axis=0)
        self.points = points - self.mean
        self.scores, self.sizes, self.axes = np.linalg.svd(self.points, full_matrices=False)

    def fit(self, values: Float64[np.ndarray, " n"], method: LineMethod) -> Fitted:
        """As `fit_line`."""
        centred = values - values.mean()
        if method == "ridge":
            weights = self._ridge(centred)
        elif method == "pls":
            weights = centred @ self.points
        else:
            weights = self._difference(values)
        norm = float(np.linalg.norm(weights)) or 1.0
        direction = weights / norm
        if method == "ridge":
            slope = norm
        else:
            along = self.points @ direction
            slope = float(along @ centred / max(along @ along, 1e-300))
        return Fitted(direction, slope, self.mean, float(values.mean()))

    def _difference(self, values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " d"]:
        """The mean of the higher half less that of the rest; where half of the numbers or more are
        the largest one, these are the higher half."""
        middle = np.median(values)
        high = values > middle if middle < values.max() else values == middle
        if high.all():
            return np.zeros(self.points.shape[1])
        return np.asarray(self.points[high].mean(axis=0) - self.points[~high].mean(axis=0))

    def _ridge(self, centred: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " d"]:
        """Weights under the penalty of least generalised cross-validation error (Golub, Heath and
        Wahba, Technometrics 21, 1979)."""
        onto, squares = self.scores.T @ centred, self.sizes**2
        n, best = len(centred), (np.inf, PENALTIES[-1])
        for penalty in PENALTIES * squares.mean():
            shrunk = squares / (squares + penalty)
            error = centred @ centred - (onto**2 * shrunk * (2 - shrunk)).sum()
            free = n - 1 - shrunk.sum()
            if free > 0.01 * n:
                best = min(best, (float(error / free**2), float(penalty)))
        return (onto * self.sizes / (squares + best[1])) @ self.axes


def held_out(
    points: Float64[np.ndarray, "n d"],
    values: Float64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    methods: Sequence[LineMethod] = METHODS,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> dict[LineMethod, Held]:
    """Numbers of every block by lines that were fitted without it.

    Args:
        points: of the texts.
        values: their numbers.
        blocks: of each text.
        methods: of fitting.
        groups: as for `HeldOut`.
    """
    return HeldOut(points, blocks, groups).numbers(values, methods)


class Fold(NamedTuple):
    """A block that is held out."""

    out: Bool[np.ndarray, " n"]
    """The texts of the block."""
    fitted: Bool[np.ndarray, " n"]
    """Those that a line is fitted to which says their numbers: of other blocks, and of no group
    that has a text in this one."""


def folds_of(
    blocks: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"] | None = None
) -> list[Fold]:
    """Every block held out once.

    Args:
        blocks: of each text.
        groups: what each text belongs to, such as its author; None: to itself alone.
    """
    outs = [blocks == block for block in range(int(blocks.max()) + 1)]
    if groups is None:
        return [Fold(out, ~out) for out in outs]
    return [Fold(out, ~out & ~np.isin(groups, groups[out])) for out in outs]


class HeldOut:
    """Points with each block left out once.

    One fold is taken apart at a time, for all numbers that are fitted, so that memory does not grow
    with the number of blocks.

    Args:
        points: of the texts.
        blocks: of each text.
        groups: no text of a group is on both sides, as `folds_of` has it.
    """

    def __init__(
        self,
        points: Float64[np.ndarray, "n d"],
        blocks: Int64[np.ndarray, " n"],
        groups: Int64[np.ndarray, " n"] | None = None,
    ) -> None:
        self._points, self._folds = points, folds_of(blocks, groups)

    def numbers(
        self, values: Float64[np.ndarray, " n"], methods: Sequence[LineMethod] = METHODS
    ) -> dict[LineMethod, Held]:
        """What lines say of the blocks that they were fitted without."""
        return {method: held[0] for method, held in self.of_many([values], methods).items()}

    def of_many(
        self, several: Sequence[Float64[np.ndarray, " n"]], methods: Sequence[LineMethod] = METHODS
    ) -> dict[LineMethod, list[Held]]:
        """`numbers` for several numberings of the same texts."""
        said = {method: np.empty((len(several), len(self._points))) for method in methods}
        for out, fitted in self._folds:
            fitting = LineFitting(self._points[fitted])
            for row, values in enumerate(several):
                for method in methods:
                    line = fitting.fit(values[fitted], method)
                    said[method][row, out] = line.numbers(self._points[out])
        return {
            method: [
                Held(predicted, r_squared(values, predicted), rank(values, predicted))
                for values, predicted in zip(several, own, strict=True)
            ]
            for method, own in said.items()
        }


def r_squared(values: Float64[np.ndarray, " n"], predicted: Float64[np.ndarray, " n"]) -> float:
    """1 less the squared error over that of the mean; below 0 where the mean says more.

    Numbers that are all the same, of which nothing can be explained, have none: NaN.
    """
    if np.ptp(values) == 0:
        return float("nan")
    total = ((values - values.mean()) ** 2).sum()
    return float(1 - ((values - predicted) ** 2).sum() / total)


def rank(values: Float64[np.ndarray, " n"], predicted: Float64[np.ndarray, " n"]) -> float:
    """Spearman's correlation; 0 where one of the two does not vary."""
    if np.ptp(values) == 0 or np.ptp(predicted) == 0:
        return 0.0
    return float(stats.spearmanr(values, predicted).statistic)


def exchanged_blocks(
    values: Float64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    generator: np.random.Generator,
) -> Float64[np.ndarray, " n"]:
    """Numbers with the blocks' means exchanged at random: a text keeps its distance from the mean
    of its block, and the block stands elsewhere."""
    counts = np.bincount(blocks)
    means = np.bincount(blocks, values) / counts
    return values - means[blocks] + generator.permutation(means)[blocks]


def line_null(
    held: HeldOut,
    values: Float64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    draws: int,
    generator: np.random.Generator,
    methods: Sequence[LineMethod] = METHODS,
) -> dict[LineMethod, Float64[np.ndarray, " draws"]]:
    """Held-out r2 where the numbers of blocks are exchanged, per method."""
    drawn = [exchanged_blocks(values, blocks, generator) for _ in range(draws)]
    return {
        method: np.array([each.r2 for each in own])
        for method, own in held.of_many(drawn, methods).items()
    }


def block_interval(
    values: Float64[np.ndarray, " n"],
    predicted: Float64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    draws: int,
    level: float,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """An interval of r2 over draws of blocks."""
    count, error = int(blocks.max()) + 1, (values - predicted) ** 2
    centred = values - values.mean()  # else squares of large numbers leave nothing of differences
    weights = (np.ones_like(values), centred, centred**2, error)
    sums = np.stack([np.bincount(blocks, each, count) for each in weights])
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=draws) @ sums.T
    n, first, second, error = drawn.T
    total = second - first**2 / n
    kept = total > 0
    low, high = np.quantile(1 - error[kept] / total[kept], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def beyond(
    points: Float64[np.ndarray, "n d"],
    values: Float64[np.ndarray, " n"],
    confounds: Float64[np.ndarray, "n c"],
    blocks: Int64[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"] | None = None,
) -> tuple[float, float]:
    """What confounds alone say of held-out blocks, and what points say beyond them.

    In each fold the confounds are regressed, by least squares on the texts that are fitted, out of
    numbers and points alike, and ridge is fitted to what is left.

    Returns:
        r2 of the confounds; r2 of ridge for what they leave of the numbers.
    """
    said, rest, explained = (np.empty_like(values) for _ in range(3))
    design = np.column_stack([np.ones(len(values)), confounds])
    for out, fitted in folds_of(blocks, groups):
        of_values = np.linalg.lstsq(design[fitted], values[fitted], rcond=None)[0]
        of_points = np.linalg.lstsq(design[fitted], points[fitted], rcond=None)[0]
        said[out] = design[out] @ of_values
        left = points - design @ of_points
        residual = values - design @ of_values
        rest[out] = residual[out]
        explained[out] = fit_line(left[fitted], residual[fitted], "ridge").numbers(left[out])
    return r_squared(values, said), r_squared(rest, explained)


def angles(
    direction: Float64[np.ndarray, " d"], points: Float64[np.ndarray, "n d"], components: int
) -> Float64[np.ndarray, " k"]:
    """|cosine| of a unit direction with each of the points' first principal components."""
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    return np.abs(axes[:components] @ direction)


def random_cosine(d: int, level: float, components: int = 1) -> float:
    """The largest |cosine| with so many orthogonal directions that at least so many random
    directions in d dimensions stay below (Bonferroni)."""
    return float(np.sqrt(stats.beta.ppf(1 - (1 - level) / components, 0.5, (d - 1) / 2)))
