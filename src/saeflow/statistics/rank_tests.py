"""P-values of rank sums and of Kolmogorov-Smirnov statistics, many at a time."""

from __future__ import annotations

from math import lcm

import numpy as np
from jaxtyping import Float64
from scipy import interpolate, special, stats

_EXACT_PAIRS = 10_000  # members × others up to which the exact distribution is computed
_EXACT_MEMBERS = 8  # smaller side up to which the rank sum's exact distribution is computed
_TAIL_FROM, _TAIL_TO = 1.6, 18.3  # √n D where p is about 1 % and 1e-290
_FEW = 20  # numbers below which more nodes are needed, and are cheap
Values = Float64[np.ndarray, "..."]


def ks_p_values(ks: Values, members: int, others: int) -> Values:
    """Two-sided p-values of two-sample Kolmogorov-Smirnov statistics, if members were drawn at
    random.

    Exact for small sets, else from the one-sample distribution at the effective size, as scipy
    does; none is below the share of the two most extreme orders.

    Args:
        ks: signed or not.
        members, others: sizes of the two samples.

    Source: Hodges 1958, "The significance probability of the Smirnov two-sample test", for the
        exact ones.
    """
    size = np.abs(ks)
    if members * others <= _EXACT_PAIRS:
        return _exact_ks(size, members, others)
    least = 2 * np.exp(
        special.gammaln(members + 1)
        + special.gammaln(others + 1)
        - special.gammaln(members + others + 1)
    )
    return np.clip(_one_sample_ks(size, round(members * others / (members + others))), least, 1.0)


def _one_sample_ks(size: Values, n: int) -> Values:
    """P-values of one-sample statistics of n numbers, many at a time: scipy computes them one by
    one.

    Below 2 % twice the one-sided probability, which is exact but for a part in 10,000, is
    interpolated between nodes in its logarithm. Above, it is the limiting distribution at a
    corrected statistic, to within 0.001, and for few numbers an interpolation.

    Source: Vrbik 2018, "Small-sample corrections to Kolmogorov-Smirnov test statistic", for the
        correction.
    """
    root = np.sqrt(n)
    start, top = _TAIL_FROM / root, min(1.0, _TAIL_TO / root)
    count = 65 if n >= _FEW else 257
    if n < _FEW:
        grid = np.linspace(0, start, count)
        body = np.interp(size, grid, stats.kstwo.sf(grid, n))
    else:
        x = root * size
        body = special.kolmogorov(x + 1 / (6 * root) + (x - 1) / (4 * n))
    if start >= top or not (size > start).any():
        return body
    nodes = np.linspace(start, min(top, float(size.max()) + 1e-9), count)
    tail = special.smirnov(n, nodes)
    nodes, tail = nodes[tail > 0], tail[tail > 0]
    fit = interpolate.PchipInterpolator(nodes, np.log(2 * tail), extrapolate=False)
    return np.where(size <= start, body, np.exp(np.nan_to_num(fit(size), nan=-np.inf)))


def _exact_ks(size: Values, members: int, others: int) -> Values:
    """1 - the share of lattice paths that stay closer to the diagonal than each statistic."""
    unit = lcm(members, others)
    steps, places = np.unique(np.rint(size * unit).astype(np.int64), return_inverse=True)
    along, across = unit // members, unit // others
    columns = np.arange(others + 1, dtype=np.int64) * across
    # The chance to be at column j after i members, along paths that have stayed inside; each row
    # from the one before.
    inside = np.zeros((len(steps), others + 1))
    for i in range(members + 1):
        near = np.abs(i * along - columns)[None, :] < steps[:, None]
        inside = _next_row(inside, near, i, members, others)
    return np.clip(1.0 - inside[:, -1], 0.0, 1.0)[places].reshape(size.shape)


def _next_row(
    inside: Float64[np.ndarray, "steps columns"],
    near: np.ndarray,
    i: int,
    members: int,
    others: int,
) -> Float64[np.ndarray, "steps columns"]:
    """Shares of all paths to (i, j) that stay inside, from those to (i - 1, j).

    A path that ends at (i, j) came from (i - 1, j) with chance i / (i + j), else from (i, j - 1).
    """
    row = np.empty_like(inside)
    before = np.ones(len(inside)) if i == 0 else np.zeros(len(inside))
    for j in range(others + 1):
        total = i + j
        value = (
            before
            if total == 0
            else inside[:, j] * (i / total) + (before * (j / total) if j else 0.0)
        )
        before = value * near[:, j]
        row[:, j] = before
    return row


def rank_sum_p_values(
    auc: Values, members: int, others: int, tie_terms: Values | float = 0.0
) -> Values:
    """Two-sided p-values of rank sums (Mann-Whitney), if members were drawn at random.

    Exact where either side has at most 8 and no weights are tied, else from the normal distribution
    with corrections for continuity and ties.

    Args:
        auc: the statistic divided by members × others.
        members, others: sizes of the two samples.
        tie_terms: sum of t³ - t over runs of equal weights, for each statistic.
    """
    pairs, total = members * others, members + others
    far = np.abs(auc - 0.5) * pairs
    variance = pairs / 12 * (total + 1 - np.asarray(tie_terms) / (total * (total - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.maximum(far - 0.5, 0.0) / np.sqrt(variance)
    normal = np.where(variance > 0, np.minimum(1.0, 2 * special.ndtr(-z)), 1.0)
    if min(members, others) > _EXACT_MEMBERS:
        return normal
    return np.where(np.asarray(tie_terms) == 0, _exact_rank_sum(far, members, others), normal)


def _exact_rank_sum(far: Values, members: int, others: int) -> Values:
    """From the number of orders that give each rank sum: the Gaussian binomial coefficients, as
    shares."""
    few, many = sorted((members, others))
    counts = np.zeros(few * many + 1)
    counts[0] = 1.0
    for i in range(
        1, few + 1
    ):  # times (1 - q^(many + i)) / (1 - q^i), times i / (many + i) to keep shares
        counts[many + i :] -= counts[: len(counts) - many - i].copy()
        for start in range(i):
            counts[start::i] = np.cumsum(counts[start::i])
        counts *= i / (many + i)
    below = np.floor(few * many / 2 - far + 1e-6).astype(np.int64)
    return np.minimum(1.0, 2 * np.cumsum(counts)[below])


def separation(auc: Values, members: int, others: int) -> Values:
    """How far a set's mean lies above the others', in standard deviations, if both were normal: √2
    Φ⁻¹(AUC).

    Along a random direction of the residual stream it is normal with mean 0, however much the
    tokens of the set have in common, because logit weights along random directions are jointly
    normal.
    """
    end = 0.5 / (members * others)
    return np.sqrt(2) * special.ndtri(np.clip(auc, end, 1 - end))


def direction_p_values(auc: Values, null: Values, members: int, others: int) -> Values:
    """Two-sided p-values of rank sums, if the latent's direction were random in the residual
    stream.

    Args:
        auc: of latents.
        null: of random directions, for the same set.
        members, others: sizes of the set and of the rest.
    """
    spread = np.sqrt(np.mean(separation(null, members, others) ** 2))
    if spread == 0:
        return np.ones_like(auc)
    return 2 * special.stdtr(len(null), -np.abs(separation(auc, members, others)) / spread)
