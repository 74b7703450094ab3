"""Whether points lie in a circle in the order of their words.

The points are centred, and the circle (cos, sin) of their order is regressed on each pair of their
first principal components. The components' scores are orthogonal, so the explained share of a pair
is the sum of the shares of its two members, and the best pair is that of the two largest shares. A
few points fit some pair well in whatever order; so the null repeats the search over pairs for other
orders of the same points.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from saeflow.statistics.means import as_wide_as_students, seen_weights

EXACT = 7
"""Up to so many points all orders are tried: 5,040 of seven."""
_CHUNK = 2_048


class Plane(NamedTuple):
    """The plane of the best pair of principal components.

    Attributes:
        r2: the share of the circle that it explains, of cosine and sine together.
        pair: numbers of the two components, from 0.
        axes: unit vectors, orthogonal.
        spread: length of all points' coordinates along each (their singular value), which places
            are divided by: points on an ellipse so lie on a circle.
        centre: mean of the points.
        turn: +1 where the order runs from the first axis to the second, else -1.
    """

    r2: float
    pair: tuple[int, int]
    axes: Float64[np.ndarray, "2 d"]
    spread: Float64[np.ndarray, " 2"]
    centre: Float64[np.ndarray, " d"]
    turn: int

    def places(self, points: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n 2"]:
        """Where points lie in the plane, of equal spread in both directions."""
        return (points - self.centre) @ self.axes.T / self.spread

    def turned(
        self, points: Float64[np.ndarray, "n d"], angle: float
    ) -> Float64[np.ndarray, "n d"]:
        """What moves each point round the circle by an angle, in the sense of the order.

        Returns:
            Differences from the points.
        """
        cos, sin = math.cos(angle), math.sin(angle) * self.turn
        places = self.places(points)
        rotated = places @ np.array([[cos, sin], [-sin, cos]])
        return (rotated - places) * self.spread @ self.axes

    def removed(self, points: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
        """What moves each point to the centre of the circle; differences from the points."""
        return -(self.places(points) * self.spread) @ self.axes


class CircleNull(NamedTuple):
    """What other orders of the same points give.

    Attributes:
        p: share of orders that fit as well; no less than the share of those that are the same
            circle, turned or read backwards.
        high: the upper quantile of their r2.
    """

    p: float
    high: float


def circle_of(n: int, present: Int64[np.ndarray, " m"] | None = None) -> Float64[np.ndarray, "m 2"]:
    """Cosine and sine of n equal steps, or of those that are present: centred, and scaled so that
    all squares sum to one."""
    angles = 2 * np.pi * np.arange(n) / n
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(n)
    if present is None or len(present) == n:
        return circle
    part = circle[present] - circle[present].mean(axis=0)
    return part / max(float(np.linalg.norm(part)), 1e-300)


def flat(points: Float64[np.ndarray, "n d"]) -> bool:
    """Whether points lie on one line, or in one place, and so in no plane of their own."""
    sizes = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(sizes[1] <= 1e-6 * max(float(sizes[0]), 1e-12))


def best_plane(
    points: Float64[np.ndarray, "n d"],
    components: int,
    circle: Float64[np.ndarray, "n 2"] | None = None,
) -> Plane:
    """The pair of principal components that explains the circle of the points' order best.

    Args:
        points: in the order of the circle.
        components: among which the pair is sought.
        circle: where points stand in it, from `circle_of`; None: in equal steps.
    """
    centre = points.mean(axis=0)
    scores, sizes, axes = _components(points - centre, components)
    onto = scores.T @ (circle_of(len(points)) if circle is None else circle)
    shares = (onto**2).sum(axis=1)
    first, second = sorted(np.argsort(-shares, kind="stable")[:2].tolist())
    pair = [first, second]
    turn = 1 if np.linalg.det(onto[pair]) >= 0 else -1
    return Plane(float(shares[pair].sum()), (first, second), axes[pair], sizes[pair], centre, turn)


def circle_null(
    points: Float64[np.ndarray, "n d"],
    components: int,
    draws: int,
    level: float,
    generator: np.random.Generator,
    circle: Float64[np.ndarray, "n 2"] | None = None,
) -> CircleNull:
    """The best pair's share of the circle for other orders of the points.

    Args:
        points: in the order of the circle.
        components: among which a pair is sought.
        draws: random orders, where there are too many for all of them.
        level: of the upper quantile.
        generator: of random orders.
        circle: where points stand in it, as for `best_plane`.
    """
    scores, _, _ = _components(points - points.mean(axis=0), components)
    n = len(points)
    circle = circle_of(n) if circle is None else circle
    if n <= EXACT:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = np.stack([generator.permutation(n) for _ in range(draws)])
    best = np.concatenate(
        [
            _best_share(scores, circle[orders[first : first + _CHUNK]])
            for first in range(0, len(orders), _CHUNK)
        ]
    )
    own = float(_best_share(scores, circle[None])[0])
    as_good = int((best >= own - 1e-9).sum())
    p = as_good / len(orders) if n <= EXACT else (as_good + 1) / (len(orders) + 1)
    return CircleNull(p, float(np.quantile(best, level)))


def circle_interval(
    points: Float64[np.ndarray, "texts n d"],
    components: int,
    draws: int,
    level: float,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """An interval of r2 over the texts that points are means over, weighed at random.

    Noise of the texts lowers r2, and once more where they are weighed at random: the quantiles of
    what draws lose are therefore given back to r2, not taken from it (the basic bootstrap). Where
    the noise of the means exceeds the circle itself, r2 and the interval are too low, never too
    high.

    Args:
        points: of every text.
        components: as for `best_plane`.
        draws: of weights of the texts.
        level: of the interval.
        generator: of the draws.
    """
    texts = len(points)
    # All that a draw needs of the points are their products.
    flat = points - points.mean(axis=1, keepdims=True)
    products = np.einsum("and,bmd->abnm", flat, flat, optimize=True)
    circle, values = circle_of(points.shape[1]), []
    for weights in seen_weights(texts, draws, generator):
        gram = np.einsum("a,b,abnm->nm", weights, weights, products, optimize=True)
        values.append(_best_share(_scores_of(gram, components), circle[None])[0])
    own = best_plane(points.mean(axis=0), components).r2
    drawn = as_wide_as_students(np.array(values)[:, None], np.array([own]), texts, level)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return max(0.0, float(2 * own - high)), min(1.0, float(2 * own - low))


def neighbours_kept(places: Float64[np.ndarray, "n 2"]) -> int:
    """How many of the n neighbours of the order stand beside each other round the origin, too."""
    n = len(places)
    around = np.argsort(np.arctan2(places[:, 1], places[:, 0]), kind="stable")
    rank = np.empty(n, np.int64)
    rank[around] = np.arange(n)
    steps = (rank - np.roll(rank, 1)) % n
    return int(((steps == 1) | (steps == n - 1)).sum())


def _components(
    centred: Float64[np.ndarray, "n d"], components: int
) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, " k"], Float64[np.ndarray, "k d"]]:
    """Orthonormal scores, singular values and axes of the first principal components."""
    scores, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    kept = min(components, int((sizes > sizes.max(initial=0) * 1e-9).sum()))
    return scores[:, :kept], sizes[:kept], axes[:kept]


def _scores_of(gram: Float64[np.ndarray, "n n"], components: int) -> Float64[np.ndarray, "n k"]:
    """Orthonormal scores from the products of the points."""
    values, vectors = np.linalg.eigh(gram)
    kept = min(components, int((values > values.max(initial=0) * 1e-12).sum()))
    return vectors[:, ::-1][:, :kept]


def _best_share(
    scores: Float64[np.ndarray, "n k"], circles: Float64[np.ndarray, "orders n 2"]
) -> Float64[np.ndarray, " orders"]:
    """The sum of the two largest shares of each circle."""
    shares = (np.einsum("nk,onc->okc", scores, circles, optimize=True) ** 2).sum(axis=2)
    if shares.shape[1] <= 2:
        return np.asarray(shares.sum(axis=1))
    return -np.partition(-shares, 1, axis=1)[:, :2].sum(axis=1)
