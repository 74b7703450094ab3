"""How long sparse probes take over k and C, beside a plain loop over scikit-learn.

    python benchmarks/probing.py [--rows 10000] [--latents 65536] [--active 64] [--peer-rows 10000]

The plain loop holds latents as a dense matrix, ranks them in numpy, and fits scikit-learn's
LogisticRegression once per fold, k and C. It is timed on one fold and two sizes of k, and its share
of the whole work is said beside.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from saeflow.analyses.probing.logistic import Scaling
from saeflow.analyses.probing.nested import validated
from saeflow.analyses.probing.probes import sparse_probe

KS = [1, 2, 4, 8, 16, 32, 64, 128]
STRENGTHS = [0.001, 0.01, 0.1, 1.0, 10.0]
FOLDS = 5
PEER_KS = [16, 128]


def planted(rows: int, latents: int, active: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Latents of which so many are active per row, and a label that some of them tell."""
    random = np.random.default_rng(0)
    popularity = random.pareto(1.5, latents) + 0.05
    popularity /= popularity.sum()
    indices = np.sort(random.choice(latents, (rows, active), p=popularity), axis=1)
    data = random.exponential(1.0, rows * active).astype(np.float32)
    matrix = sparse.csr_array(
        (data, indices.ravel(), np.arange(0, rows * active + 1, active)), shape=(rows, latents)
    )
    matrix.sum_duplicates()
    common = np.argsort(-popularity)[:200]
    odds = matrix[:, common] @ random.normal(0, 1.5, 200)
    return matrix, random.random(rows) < 1 / (1 + np.exp(np.median(odds) - odds))


def peer(matrix: sparse.csr_array, y: np.ndarray, folds: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds of one core of the plain loop on one fold and `PEER_KS`, and the areas that it finds."""
    dense = matrix.toarray()
    begun = time.process_time()
    train, held = folds != 0, folds == 0
    x, z = dense[train], dense[held]
    active = np.maximum((x != 0).sum(axis=0), 1)
    apart = x[y[train]].mean(axis=0) - x[~y[train]].mean(axis=0)
    size = x.sum(axis=0) / active
    order = np.argsort(-np.abs(apart / np.where(size > 0, size, np.inf)), kind="stable")
    areas = np.empty((len(PEER_KS), len(STRENGTHS)))
    for a, k in enumerate(PEER_KS):
        scale = Scaling.of(x[:, order[:k]])
        for b, strength in enumerate(STRENGTHS):
            model = LogisticRegression(C=strength, max_iter=1000).fit(
                scale.scaled(x[:, order[:k]]), y[train]
            )
            areas[a, b] = roc_auc_score(
                y[held], model.decision_function(scale.scaled(z[:, order[:k]]))
            )
    return time.process_time() - begun, areas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--active", type=int, default=64)
    asked = parser.parse_args()
    matrix, y = planted(asked.rows, asked.latents, asked.active)
    folds = np.arange(asked.rows) % FOLDS
    begun = time.process_time()
    ours = validated(sparse_probe(KS, STRENGTHS), matrix, y, folds)
    seconds = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"ours: {len(KS)} k x {FOLDS} folds x {len(STRENGTHS)} C in {seconds:.1f} s of one core, {memory:.2f} GB at most"
    )
    begun = time.process_time()
    fold = sparse_probe(PEER_KS, STRENGTHS)
    train, held = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    fold.scores(matrix[train], y[train], [matrix[held]], STRENGTHS)
    part = time.process_time() - begun
    others, areas = peer(matrix, y, folds)
    print(
        f"one fold, k {PEER_KS}: ours {part:.2f} s, scikit-learn in a loop {others:.1f} s, {others / part:.0f} times"
    )
    print(
        f"areas over k and C, ours over all folds: {np.round(ours[[4, 7]].max(axis=1), 4)}, the loop's fold: {np.round(areas.max(axis=1), 4)}"
    )


if __name__ == "__main__":
    main()
