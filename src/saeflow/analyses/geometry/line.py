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
from jaxtyping import Float64, Int64
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
            high = values > np.median(values)
            weights = self.points[high].mean(axis=0) - self.points[~high].mean(axis=0)
        norm = float(np.linalg.norm(weights)) or 1.0
        direction = weights / norm
        if method == "ridge":
            slope = norm
        else:
            along = self.points @ direction
            slope = float(along @ centred / max(along @ along, 1e-300))
        return Fitted(direction, slope, self.mean, float(values.mean()))

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
) -> dict[LineMethod, Held]:
    """Numbers of every block by lines that were fitted without it.

    Args:
        points: of the texts.
        values: their numbers.
        blocks: of each text.
        methods: of fitting.
    """
    return HeldOut(points, blocks).numbers(values, methods)


class HeldOut:
    """Points with each block left out once, taken apart for all numbers that they are fitted to."""

    def __init__(self, points: Float64[np.ndarray, "n d"], blocks: Int64[np.ndarray, " n"]) -> None:
        self._points = points
        self._out = [blocks == block for block in range(int(blocks.max()) + 1)]
        self._fitting = [LineFitting(points[~out]) for out in self._out]

    def numbers(
        self, values: Float64[np.ndarray, " n"], methods: Sequence[LineMethod] = METHODS
    ) -> dict[LineMethod, Held]:
        """What lines say of the blocks that they were fitted without."""
        result: dict[LineMethod, Held] = {}
        for method in methods:
            predicted = np.empty_like(values)
            for out, fitting in zip(self._out, self._fitting, strict=True):
                predicted[out] = fitting.fit(values[~out], method).numbers(self._points[out])
            result[method] = Held(predicted, r_squared(values, predicted), rank(values, predicted))
        return result


def r_squared(values: Float64[np.ndarray, " n"], predicted: Float64[np.ndarray, " n"]) -> float:
    """1 less the squared error over that of the mean; below 0 where the mean says more."""
    total = ((values - values.mean()) ** 2).sum()
    return float(1 - ((values - predicted) ** 2).sum() / max(total, 1e-300))


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
    drawn: dict[LineMethod, list[float]] = {method: [] for method in methods}
    for _ in range(draws):
        numbers = exchanged_blocks(values, blocks, generator)
        for method, each in held.numbers(numbers, methods).items():
            drawn[method].append(each.r2)
    return {method: np.array(each) for method, each in drawn.items()}


def block_interval(
    values: Float64[np.ndarray, " n"],
    predicted: Float64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    draws: int,
    level: float,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """An interval of r2 over draws of blocks."""
    count = int(blocks.max()) + 1
    sums = np.stack(
        [
            np.bincount(blocks, weights, count)
            for weights in (np.ones_like(values), values, values**2, (values - predicted) ** 2)
        ]
    )
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
) -> tuple[float, float]:
    """What confounds alone say of held-out blocks, and what points say beyond them.

    In each fold the confounds are regressed, by least squares on the texts that are fitted, out of
    numbers and points alike, and ridge is fitted to what is left.

    Returns:
        r2 of the confounds; r2 of ridge for what they leave of the numbers.
    """
    said, rest, explained = (np.empty_like(values) for _ in range(3))
    for block in range(int(blocks.max()) + 1):
        out = blocks == block
        design = np.column_stack([np.ones(len(values)), confounds])
        of_values = np.linalg.lstsq(design[~out], values[~out], rcond=None)[0]
        of_points = np.linalg.lstsq(design[~out], points[~out], rcond=None)[0]
        said[out] = design[out] @ of_values
        left = points - design @ of_points
        residual = values - design @ of_values
        rest[out] = residual[out]
        explained[out] = fit_line(left[~out], residual[~out], "ridge").numbers(left[out])
    return r_squared(values, said), r_squared(rest, explained)


def angles(
    direction: Float64[np.ndarray, " d"], points: Float64[np.ndarray, "n d"], components: int
) -> Float64[np.ndarray, " k"]:
    """|cosine| of a unit direction with each of the points' first principal components."""
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    return np.abs(axes[:components] @ direction)


def random_cosine(d: int, level: float) -> float:
    """The |cosine| that so many random directions in d dimensions stay below."""
    return float(np.sqrt(stats.beta.ppf(level, 0.5, (d - 1) / 2)))
