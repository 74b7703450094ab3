"""How often intervals of areas hold the truth, and p-values of chance lie below a level, where
positions come in games.

Worlds are those of the tests: labels and numbers that last for stretches of some games. The truth
is one half where numbers know nothing, else the mean area of four times as many draws.

    python benchmarks/area_coverage.py [--draws 2000]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from clustered_numbers import CHANCE, KNOWING, Drawn, World

from saeflow.statistics.areas import Error, area_error, area_interval, placements
from saeflow.statistics.rotation import Rotations


def errors(draws: Iterable[Drawn]) -> list[Error]:
    """The area of every draw and its error."""
    return [
        area_error(placements(drawn.values, drawn.label), drawn.label, drawn.games)
        for drawn in draws
    ]


def line(name: str, world: World, truth: float, draws: int) -> str:
    """A row of the table."""
    generator = np.random.default_rng(0)
    areas = np.array([area_interval(error, 0.95) for error in errors(world.draws(draws))])
    covered = ((areas[:, 1] <= truth) & (truth <= areas[:, 2])).mean()
    width = np.median(areas[:, 2] - areas[:, 1])
    shares = []
    if truth == 0.5:
        p = np.array([
            Rotations(drawn.starts, 1000, generator)
            .chances(drawn.label, stats.rankdata(drawn.values)[:, None], 0.95)[0]
            .p
            for drawn in world.draws(draws)
        ])  # fmt: skip
        shares = [f"{100 * (p <= level).mean():.1f} %" for level in (0.05, 0.01)]
    return " | ".join(
        [
            "",
            name,
            f"{truth:.3f}",
            f"{100 * covered:.1f} %",
            f"{width:.2f}",
            *(shares or ["", ""]),
            "",
        ]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print("| world | area | 95 % interval holds it | median width | p ≤ 0.05 | p ≤ 0.01 |")
    print("|---|---|---|---|---|---|")
    for name, world in CHANCE.items():
        print(line(name, world, 0.5, draws).strip(), flush=True)
    for name, world in KNOWING.items():
        truth = float(np.mean([error.value for error in errors(world.draws(4 * draws, seed=1))]))
        print(line(name, world, truth, draws).strip(), flush=True)


if __name__ == "__main__":
    main()
