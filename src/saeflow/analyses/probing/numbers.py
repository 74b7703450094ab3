"""Probes of numbers, such as a year: ridge regressions on activations and on few latents.

What they are judged by is the share of pairs of test rows that they put in the order of their
numbers, which for two classes is the area under the ROC curve: so tables hold both in one column,
with one half where nothing is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64
from scipy import stats

from saeflow.analyses.probing.design import FULL, RESULTS, SCARCITY, SHUFFLED, Source
from saeflow.analyses.probing.logistic import Scaling
from saeflow.analyses.probing.probes import Rows
from saeflow.analyses.probing.settings import Fitting, Regimes
from saeflow.analyses.probing.sparse_columns import Latents, columns, sums
from saeflow.corpora.labelled import LabelledSet, folds_by_group, split_by_group
from saeflow.seeds import numpy_generator

LEAST_TRAINED = 8
"""Rows that a regression is fitted to."""
Tests = Mapping[str, tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]]


class Choice(NamedTuple):
    """Which columns of rows a regression sees, and in how many variants.

    Attributes:
        method: its name in results.
        counts: of columns, the first of those that are ranked; 0 stands for all.
        dense: gives the columns, ranked by the training rows, of these and of other rows.
    """

    method: str
    counts: Sequence[int]
    dense: Callable[[Rows, Float64[np.ndarray, " n"], Sequence[Rows]], list[Any]]


def concordance(scores: Float64[np.ndarray, " n"], numbers: Float64[np.ndarray, " n"]) -> float:
    """The share of pairs of unequal numbers that scores put in their order, ties counting half; NaN
    where all numbers are one."""

    def tied(values: Float64[np.ndarray, " n"]) -> int:
        counts = np.unique(values, return_counts=True)[1]
        return int((counts * (counts - 1) // 2).sum())

    pairs = len(numbers) * (len(numbers) - 1) // 2
    unequal, apart = pairs - tied(numbers), pairs - tied(scores)
    if not unequal:
        return float("nan")
    if not apart:
        return 0.5
    tau = float(stats.kendalltau(scores, numbers).statistic)  # over √(unequal · apart)
    return (1 + tau * float(np.sqrt(apart / unequal))) / 2


def ridge_numbers(
    x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, " n"], strengths: Sequence[float]
) -> tuple[Float64[np.ndarray, "d strengths"], float]:
    """Minima of ``C Σ (y - ȳ - x w)² + ½ |w|²`` for every C, and ȳ; ``x`` is scaled, ``y`` too."""
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    seen = left.T @ (y - y.mean())
    shrunk = [2 * c * sizes / (2 * c * sizes**2 + 1) * seen for c in strengths]
    return right.T @ np.stack(shrunk, axis=1), float(y.mean())


def correlations(latents: Latents, y: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " d_sae"]:
    """Of every latent with numbers; 0 where it is the same in all rows."""
    n = latents.shape[0]
    values, centred = latents.data.astype(np.float64), y - y.mean()
    rows = np.repeat(np.arange(n), np.diff(latents.indptr))
    mean, square = sums(latents, values) / n, sums(latents, values**2) / n
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    product = sums(latents, values * centred[rows]) / n
    size = spread * max(float(centred.std()), 1e-300)
    return np.divide(product, size, out=np.zeros_like(product), where=size > 1e-12)


def _whole(x: Any, y: Any, others: Sequence[Any]) -> list[Any]:
    return [x, *others]


def _strongest(count: int) -> Callable[[Any, Any, Sequence[Any]], list[Any]]:
    def dense(x: Latents, y: Float64[np.ndarray, " n"], others: Sequence[Latents]) -> list[Any]:
        which = np.argsort(-np.abs(correlations(x, y)), kind="stable")[:count]
        return [columns(each, which) for each in (x, *others)]

    return dense


def choice_of(kind: str, counts: Sequence[int]) -> Choice:
    """What is regressed on rows of a kind: all of them, or some latents or projections."""
    if kind in ("activations", "surface"):
        return Choice("ridge", [0], _whole)
    if kind == "random_projections":
        return Choice("projections", counts, _whole)
    return Choice("sparse", counts, _strongest(max(counts)))


def probe_numbers(
    texts: LabelledSet,
    shifted: Tests,
    listed: Sequence[Source],
    fitting: Fitting,
    regimes: Regimes,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> pl.DataFrame:
    """Fit and test regressions of every source on all training rows, on few, and on shuffled
    numbers; as `saeflow.analyses.probing.design.probe_set` does of classes.

    Returns:
        `RESULTS`, with concordance for the area.
    """
    results: list[dict[str, Any]] = []
    for draw in range(fitting.seeds):
        split = split_by_group(texts, fitting.test, seed, draw)
        own = (split.test, texts.targets[split.test])
        for regime, level, rows, numbers in _trainings(
            texts, split.train, fitting, regimes, seed, draw
        ):
            tests = {"": own, **(shifted if regime == FULL else {})}
            part = texts.part(rows)
            folds = folds_by_group(part, min(fitting.folds, len(rows)), seed, draw, regime)
            for source in listed:
                if regime != FULL and source.kind not in ("activations", "latents"):
                    continue
                choice = choice_of(source.kind, fitting.k if regime == FULL else regimes.k)
                case = {"set": texts.name, "regime": regime, "level": level, "seed": draw}
                case |= {"kind": source.kind, "of": source.of, "train_rows": len(rows)}
                outcomes = _outcomes(
                    choice, source.rows, rows, numbers, folds, tests, fitting.strengths
                )
                results += [case | outcome for outcome in outcomes]
        progress(draw + 1, fitting.seeds)
    table = pl.DataFrame(results, schema=RESULTS)
    return table.with_columns(pl.col("option", "validation", "auc").fill_nan(None))


def _trainings(
    texts: LabelledSet,
    train: Int64[np.ndarray, " n"],
    fitting: Fitting,
    regimes: Regimes,
    seed: int,
    draw: int,
) -> Iterator[tuple[str, float, Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]]:
    """Regime, level, rows and the numbers that training sees."""
    random = numpy_generator(seed, "probing", texts.name, draw)
    rows = random.permutation(train)[: fitting.train_rows]
    yield FULL, 0.0, rows, texts.targets[rows]
    for size in regimes.scarcity:
        if LEAST_TRAINED <= size <= len(rows):
            yield SCARCITY, float(size), rows[:size], texts.targets[rows[:size]]
    if "shuffled_labels" in fitting.controls:
        yield SHUFFLED, 0.0, rows, random.permutation(texts.targets[rows])


def _outcomes(
    choice: Choice,
    source: Rows,
    rows: Int64[np.ndarray, " n"],
    numbers: Float64[np.ndarray, " n"],
    folds: Int64[np.ndarray, " n"],
    tests: Tests,
    strengths: Sequence[float],
) -> Iterator[dict[str, Any]]:
    """For every count of columns what validation chooses, and how it does on each test set."""
    x = source[rows]
    of_folds = []
    for fold in np.unique(folds):
        held = folds == fold
        places, others = np.flatnonzero(~held), np.flatnonzero(held)
        of_fold = _said(choice, x[places], numbers[places], [x[others]], strengths)[0]
        of_folds.append(_agreement(of_fold, numbers[others]))
    validation = np.nanmean(of_folds, axis=0)
    names = list(tests)
    said = _said(choice, x, numbers, [source[tests[name][0]] for name in names], strengths)
    for place, count in enumerate(choice.counts):
        best = int(np.argmax(np.nan_to_num(validation[place], nan=-1.0)))
        for name, scores in zip(names, said, strict=True):
            yield {
                "test_set": name,
                "method": choice.method,
                "k": count,
                "option": float(strengths[best]),
                "validation": float(validation[place, best]),
                "auc": concordance(scores[:, place, best], tests[name][1]),
                "test_rows": len(tests[name][0]),
            }


def _said(
    choice: Choice,
    x: Rows,
    y: Float64[np.ndarray, " n"],
    others: Sequence[Rows],
    strengths: Sequence[float],
) -> list[Float64[np.ndarray, "m counts strengths"]]:
    """What regressions fitted to some rows say of others."""
    dense, *held = choice.dense(x, y, others)
    scaling = Scaling.of(dense)
    scaled, moved = scaling.scaled(dense), [scaling.scaled(each) for each in held]
    unit = (y - y.mean()) / max(float(y.std()), 1e-300)
    said: list[list[Any]] = [[] for _ in held]
    for count in choice.counts:
        columns_of = slice(0, count or None)
        weights, _ = ridge_numbers(scaled[:, columns_of], unit, strengths)
        for place, each in enumerate(moved):
            said[place].append(each[:, columns_of] @ weights)
    return [np.stack(each, axis=1) for each in said]


def _agreement(
    scores: Float64[np.ndarray, "n counts strengths"], y: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, "counts strengths"]:
    return np.array(
        [[concordance(column, y) for column in part.T] for part in scores.transpose(1, 0, 2)]
    )
