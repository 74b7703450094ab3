"""Sparse probing as SAEBench scores SAEs by it: the accuracy of regressions on very few latents.

It differs from the sparse probes of `saeflow.analyses.probing.probes` in all that makes those
comparable with dense ones: latents are ranked by plain differences of means, columns are not
scaled, and nothing is chosen by validation. It is here so that numbers can be set beside others'.

Source: Karvonen et al. 2025, "SAEBench", arXiv 2503.09532, and its program 0.6. What is not as
there: its regression on whole activations stops where test rows are told best, which are not looked
at here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

from saeflow.analyses.probing.rows import Representations
from saeflow.analyses.probing.settings import Fitting
from saeflow.analyses.probing.sparse_columns import Latents, columns, rows_of, sums
from saeflow.corpora.labelled import LabelledSet, split_by_group
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

LATENTS = (1, 2, 5)
ACCURACY: Schema = {
    "set": pl.String,
    "kind": pl.String,
    "of": pl.String,
    "seed": pl.Int32,
    "k": pl.Int32,
    "accuracy": pl.Float64,
    "train_rows": pl.Int32,
    "test_rows": pl.Int32,
}
"""`kind` and `of` as in results; `k` is 0 for a regression on whole activations, and else their
channels are counted as latents are."""
ITERATIONS = 1000


def accuracies(
    texts: LabelledSet, represented: Representations, fitting: Fitting, seed: int
) -> pl.DataFrame:
    """Accuracy on the test rows of every split, by SAE and number of latents, and of activations.

    Args:
        texts: rows of the set, which open those that are represented.
        represented: activations and latents.
        fitting: how splits are drawn.
        seed: of the study.

    Returns:
        `ACCURACY`. Of several classes the mean over each against as many rows of the others.
    """
    labels = [1] if len(texts.classes) == 2 else list(range(len(texts.classes)))
    rows: list[dict[str, Any]] = []
    for draw in range(fitting.seeds):
        split = split_by_group(texts, fitting.test, seed, draw)
        random = numpy_generator(seed, "probing", "accuracy", texts.name, draw)
        drawn = [
            tuple(_as_many(texts.targets[part], label, part, random) for part in split)
            for label in labels
        ]
        said = {
            "train_rows": int(np.mean([len(train) for train, _ in drawn])),
            "test_rows": int(np.mean([len(test) for _, test in drawn])),
        }
        case = {"set": texts.name, "seed": draw, **said}
        for hook, x in represented.activations.items():
            of_each = [
                _accuracy(
                    x[train], texts.targets[train] == label, x[test], texts.targets[test] == label
                )
                for label, (train, test) in zip(labels, drawn, strict=True)
            ]
            mean = float(np.mean(of_each))
            rows.append({**case, "kind": "activations", "of": hook, "k": 0, "accuracy": mean})
        of_few = [
            *(
                ("activations", of, sparse.csr_array(x))
                for of, x in represented.activations.items()
            ),
            *(("latents", of, latents) for of, latents in represented.latents.items()),
        ]
        for kind, of, few in of_few:
            by_label = [
                sparse_accuracies(few, texts.targets == label, train, test)
                for label, (train, test) in zip(labels, drawn, strict=True)
            ]
            rows += [
                {**case, "kind": kind, "of": of, "k": k, "accuracy": float(accuracy)}
                for k, accuracy in zip(LATENTS, np.mean(by_label, axis=0), strict=True)
            ]
    return pl.DataFrame(rows, schema=ACCURACY)


def sparse_accuracies(
    latents: Latents,
    y: Bool[np.ndarray, " n"],
    train: Int64[np.ndarray, " m"],
    test: Int64[np.ndarray, " l"],
) -> list[float]:
    """Accuracy of a regression on the latents whose means differ most, for 1, 2 and 5 of them."""
    of_train, here = latents[train], y[train]
    positive = sums(of_train, of_train.data * here[rows_of(of_train)]) / max(here.sum(), 1)
    negative = sums(of_train, of_train.data * ~here[rows_of(of_train)]) / max((~here).sum(), 1)
    ranked = np.argsort(-np.abs(positive - negative), kind="stable")[: max(LATENTS)]
    x, held = columns(of_train, ranked), columns(latents[test], ranked)
    return [_accuracy(x[:, :k], here, held[:, :k], y[test]) for k in LATENTS]


def _as_many(
    targets: Float64[np.ndarray, " n"],
    label: int,
    rows: Int64[np.ndarray, " n"],
    random: np.random.Generator,
) -> Int64[np.ndarray, " m"]:
    """Rows of a class, and as many others, as many of each other class."""
    own = random.permutation(rows[targets == label])
    others = [rows[targets == other] for other in np.unique(targets) if other != label]
    each = -(-len(own) // max(len(others), 1))
    drawn = [random.permutation(other)[:each] for other in others]
    mixed = random.permutation(np.concatenate([rows[:0], *drawn]))
    fewest = min(len(own), len(mixed))
    return np.sort(np.concatenate([own[:fewest], mixed[:fewest]]))


def _accuracy(
    x: Float64[np.ndarray, "n k"],
    y: Bool[np.ndarray, " n"],
    held: Float64[np.ndarray, "m k"],
    held_y: Bool[np.ndarray, " m"],
) -> float:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large activations take long, and tell the same before
        model = LogisticRegression(max_iter=ITERATIONS).fit(x, y)
    return float((model.predict(held) == held_y).mean())
