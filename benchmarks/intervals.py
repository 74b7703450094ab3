"""Coverage and width of intervals of a mean score, for few samples and rare scores: the table of
docs/statistics.md.

    python benchmarks/intervals.py [studies]

Of each kind of score and each number of samples, many studies are drawn. An interval is as good as
its coverage of the kind of score that it covers least; its width is the mean over all kinds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy import stats

from saeflow.statistics.means import interval, mean_draws, random_weights

LEVEL, DRAWS, SIZES = 0.95, 999, (2, 4, 8, 16, 32, 64)
TAIL = (1 - LEVEL) / 2
RATINGS = np.array([0.5, 0.2, 0.1, 0.05, 0.05, 0.04, 0.03, 0.01, 0.01, 0.01])
Generator = np.random.Generator
Ends = tuple[np.ndarray, np.ndarray]
SCORES: dict[str, tuple[Callable[[Generator, tuple[int, int]], np.ndarray], float]] = {
    "one in ten, uniform": (lambda rng, shape: (rng.random(shape) < 0.1) * rng.random(shape), 0.05),
    "one in forty": (lambda rng, shape: (rng.random(shape) < 0.025) * 1.0, 0.025),
    "one in ten": (lambda rng, shape: (rng.random(shape) < 0.1) * 1.0, 0.1),
    "even": (lambda rng, shape: (rng.random(shape) < 0.5) * 1.0, 0.5),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "high": (lambda rng, shape: 1 - 0.3 * rng.random(shape) ** 3, 1 - 0.3 / 4),
    "ratings": (
        lambda rng, shape: rng.choice(10, shape, p=RATINGS) / 9,
        float(RATINGS @ np.arange(10)) / 9,
    ),
    "all 0": (lambda _, shape: np.zeros(shape), 0.0),
    "all 1": (lambda _, shape: np.ones(shape), 1.0),
}


def resampled(n: int, rng: Generator) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS) / n


def percentile(x: np.ndarray, rng: Generator) -> Ends:
    low, high = np.quantile(resampled(x.shape[1], rng) @ x.T, [TAIL, 1 - TAIL], axis=0)
    return low, high


def bca(x: np.ndarray, rng: Generator) -> Ends:
    """Bias-corrected and accelerated."""
    means, draws = x.mean(axis=1), np.sort(resampled(x.shape[1], rng) @ x.T, axis=0)
    below = ((draws < means).mean(axis=0) + (draws <= means).mean(axis=0)) / 2
    bias = stats.norm.ppf(np.clip(below, 0.5 / DRAWS, 1 - 0.5 / DRAWS))
    off = x - means[:, None]
    cubes, squares = (off**3).sum(axis=1), (off**2).sum(axis=1)
    acceleration = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > 0)

    def end(tail: float) -> np.ndarray:
        z = bias + stats.norm.ppf(tail)
        share = stats.norm.cdf(bias + z / (1 - acceleration * z))
        return draws[
            np.clip((share * (DRAWS + 1)).astype(int) - 1, 0, DRAWS - 1), np.arange(len(x))
        ]

    return end(TAIL), end(1 - TAIL)


def studentised(x: np.ndarray, rng: Generator) -> Ends:
    weights, means = resampled(x.shape[1], rng), x.mean(axis=1)
    draws = weights @ x.T
    spread = np.sqrt(np.maximum(weights @ (x**2).T - draws**2, 1e-12))
    high, low = np.quantile((draws - means) / spread, [TAIL, 1 - TAIL], axis=0)
    return np.clip(means - low * x.std(axis=1), 0, 1), np.clip(means - high * x.std(axis=1), 0, 1)


def student(x: np.ndarray, rng: Generator) -> Ends:
    n, means = x.shape[1], x.mean(axis=1)
    half = stats.t.ppf(1 - TAIL, n - 1) * x.std(axis=1, ddof=1) / np.sqrt(n)
    return np.clip(means - half, 0, 1), np.clip(means + half, 0, 1)


def hoeffding(x: np.ndarray, rng: Generator) -> Ends:
    half, means = np.sqrt(np.log(1 / TAIL) / 2 / x.shape[1]), x.mean(axis=1)
    return np.clip(means - half, 0, 1), np.clip(means + half, 0, 1)


def betting(x: np.ndarray, rng: Generator) -> Ends:
    """The hedged capital process of Waudby-Smith and Ramdas (J. R. Stat. Soc. B 86, 2024), on a
    grid of 201 means."""
    grid, n = np.linspace(0, 1, 201), x.shape[1]
    up, down, largest = (np.zeros((len(x), len(grid))) for _ in range(3))
    total, squares, variance = np.full(len(x), 0.5), np.full(len(x), 0.25), np.full(len(x), 0.25)
    for t in range(n):
        bet = np.sqrt(2 * np.log(2 / (1 - LEVEL)) / (variance * n))[:, None]
        off = x[:, t : t + 1] - grid
        up += np.log1p(np.minimum(bet, 0.5 / np.maximum(grid, 1e-9)) * off)
        down += np.log1p(-np.minimum(bet, 0.5 / np.maximum(1 - grid, 1e-9)) * off)
        largest = np.maximum(largest, np.maximum(up, down) + np.log(0.5))
        total = total + x[:, t]
        squares = squares + (x[:, t] - total / (t + 2)) ** 2
        variance = squares / (t + 2)
    kept = largest < np.log(1 / (1 - LEVEL))
    return grid[np.maximum(kept.argmax(axis=1) - 1, 0)], grid[
        np.minimum(201 - kept[:, ::-1].argmax(axis=1), 200)
    ]


def unseen_unit(x: np.ndarray, rng: Generator) -> Ends:
    return interval(mean_draws(x, random_weights(np.arange(x.shape[1]), DRAWS, rng)), LEVEL)


INTERVALS: dict[str, Callable[[np.ndarray, Generator], Ends]] = {
    "percentile bootstrap": percentile,
    "BCa bootstrap": bca,
    "studentised bootstrap": studentised,
    "Student's t": student,
    "Hoeffding": hoeffding,
    "betting": betting,
    "one unseen unit (here)": unseen_unit,
}


def main() -> None:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    print("| interval |", " | ".join(f"n = {n}" for n in SIZES), "|")
    print("|---|" + "---|" * len(SIZES))
    for name, ends in INTERVALS.items():
        cells = []
        for n in SIZES:
            rng = np.random.default_rng(n)
            coverages, widths = [], []
            for draw, truth in SCORES.values():
                low, high = ends(draw(rng, (studies, n)), rng)
                coverages.append(np.mean((low <= truth + 1e-6) & (truth - 1e-6 <= high)))
                widths.append(np.mean(high - low))
            cells.append(f"{min(coverages):.1%}, {np.mean(widths):.2f}".replace("%", " %"))
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
