"""Pursuits of many directions in a wide dictionary: time and memory beside the floor (the products
alone), a straightforward implementation and, where it is installed, scikit-learn.

    python benchmarks/pursuits.py [directions] [width] [atoms] [k] [directions for the others]

All in one run. Seconds of processors tell what is needed on a machine that does nothing else; those
of the clock what was waited for on this one.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import torch

from saeflow.pursuits.dictionary import Dictionary
from saeflow.pursuits.greedy import gradient, gradient_positive, matching, orthogonal
from saeflow.pursuits.lasso import lasso

Tensor = torch.Tensor


def straightforward(directions: Tensor, atoms: Tensor, k: int) -> Tensor:
    """Orthogonal matching pursuit, a direction at a time; the squared errors after k atoms."""
    errors = []
    for direction in directions:
        chosen: list[int] = []
        remaining = direction
        for _ in range(k):
            chosen.append(int((atoms @ remaining).abs().argmax()))
            picked = atoms[chosen]
            weights = torch.linalg.lstsq(picked.T, direction.unsqueeze(1)).solution[:, 0]
            remaining = direction - weights @ picked
        errors.append(remaining.square().sum())
    return torch.stack(errors)


def scikit_learn(directions: Tensor, atoms: Tensor, k: int) -> Tensor:
    from sklearn.linear_model import orthogonal_mp

    weights = torch.from_numpy(
        orthogonal_mp(atoms.numpy().T, directions.numpy().T, n_nonzero_coefs=k)
    )
    weights = weights.reshape(len(atoms), -1).T.float()
    return (directions - weights @ atoms).square().sum(1)


def timed(work: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """Seconds of the clock, of all processors together, and what was made."""
    start, used = time.perf_counter(), time.process_time()
    made = work()
    return time.perf_counter() - start, time.process_time() - used, made


def main() -> None:
    n, width, n_atoms, k, few = (
        int(given)
        for given in [*sys.argv[1:], *("100", "2304", "65536", "64", "4")[len(sys.argv) - 1 :]]
    )
    draws = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(n_atoms, width, generator=draws), dim=1)
    directions = torch.nn.functional.normalize(torch.randn(n, width, generator=draws), dim=1)
    dictionary = Dictionary(atoms)
    dictionary.cosines(directions)
    gigabytes = atoms.numel() * atoms.element_size() / 1e9
    print(f"{n} directions, {n_atoms} atoms of width {width} ({gigabytes:.2f} GB), k = {k}")
    print(f"{torch.get_num_threads()} threads; seconds, CPU seconds, times the floor's, error at k")

    def products() -> Tensor:
        for _ in range(k):
            made = dictionary.cosines(directions)
        return made

    seconds, floor, _ = timed(products)
    rate = 2 * n * width * n_atoms * k / floor / 1e9
    print(f"{'floor: k products':<24}{seconds:8.1f}{floor:8.1f}{1:8.2f}   ({rate:.0f} GFLOP/CPU s)")
    own = 0.0
    for pursuit in (matching, gradient, gradient_positive, orthogonal, lasso):
        seconds, used, error = timed(
            lambda pursuit=pursuit: pursuit(directions, dictionary, k).error[:, -1]
        )
        ratio = used / floor
        print(f"{pursuit.__name__:<24}{seconds:8.1f}{used:8.1f}{ratio:8.2f}   {error.mean():.4f}")
        if pursuit is orthogonal:
            own, expected = used / n, error[:few]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"memory at most {peak:.2f} GB, the dictionary and its making among it")
    for other in (straightforward, scikit_learn):
        try:
            _, used, error = timed(lambda other=other: other(directions[:few], atoms, k))
        except ImportError:
            print(f"{other.__name__}: not installed")
            continue
        off = (error - expected).abs().max()
        print(
            f"{other.__name__}, {few} directions: {used / few:.2f} CPU s each, "
            f"{used / few / own:.1f} times the {own:.3f} s of orthogonal; errors within {off:.0e}"
        )


if __name__ == "__main__":
    main()
