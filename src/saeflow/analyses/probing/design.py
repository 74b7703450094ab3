"""What is fitted to which rows: splits, regimes, sources and their probes.

A split is drawn anew for every seed. Within it all methods have the same training rows, folds,
strengths and test rows; regimes change the training rows and leave the tests as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

from saeflow.analyses.probing.controls import random_latents, random_projections
from saeflow.analyses.probing.nested import HeldOut, Outcome, evaluate
from saeflow.analyses.probing.probes import (
    Probe,
    Rows,
    lasso_probe,
    on_activations,
    projection_probe,
    sparse_probe,
)
from saeflow.analyses.probing.rows import Representations, surface_columns
from saeflow.analyses.probing.settings import Fitting, Regimes
from saeflow.corpora.labelled import LabelledSet, Split, folds_by_group, split_by_group
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

FULL, SCARCITY, IMBALANCE, NOISE, SHUFFLED = "full", "scarcity", "imbalance", "noise", "shuffled"
RESULTS: Schema = {
    "set": pl.String,
    "regime": pl.String,
    "level": pl.Float64,
    "seed": pl.Int32,
    "test_set": pl.String,
    "kind": pl.String,
    "of": pl.String,
    "method": pl.String,
    "k": pl.Int32,
    "option": pl.Float64,
    "validation": pl.Float64,
    "auc": pl.Float64,
    "train_rows": pl.Int32,
    "test_rows": pl.Int32,
}
"""`kind` is what the rows are (activations, latents, random_latents, …), `of` the hook or the SAE;
`level` the regime's: rows, share of the second class, share of flipped labels."""


class Source(NamedTuple):
    """Rows of one kind with the probes that are fitted to them."""

    kind: str
    of: str
    rows: Rows
    probes: list[Probe]


class Training(NamedTuple):
    """Rows that are trained on, with the labels that training sees."""

    regime: str
    level: float
    rows: Int64[np.ndarray, " n"]
    targets: Float64[np.ndarray, " n"]


def sources(
    name: str,
    represented: Representations,
    table: pl.DataFrame,
    fitting: Fitting,
    hook_of: Mapping[str, str],
    seed: int,
) -> list[Source]:
    """All that is probed on all training rows.

    Args:
        name: of the set.
        represented: activations and latents of all rows of the set.
        table: of these rows, with what a glance tells.
        fitting: which probes and controls.
        hook_of: where each SAE reads.
        seed: of the study.
    """
    c = fitting.strengths
    of_latents = [sparse_probe(fitting.k, c)]
    of_latents += [sparse_probe(fitting.binarised, c, binarised=True)] if fitting.binarised else []
    of_latents += [lasso_probe(c)] if fitting.lasso else []
    dense = [on_activations(name, c) for name in fitting.activations]
    listed = [Source("activations", hook, x, dense) for hook, x in represented.activations.items()]
    listed += [Source("latents", sae, z, of_latents) for sae, z in represented.latents.items()]
    if "random_latents" in fitting.controls:
        for sae, latents in represented.latents.items():
            x = represented.activations[hook_of[sae]]
            drawn = random_latents(x, latents, seed, f"{sae} {name}")
            listed.append(Source("random_latents", sae, drawn, [sparse_probe(fitting.k, c)]))
    if "random_projections" in fitting.controls:
        for hook, x in represented.activations.items():
            drawn = random_projections(x, max(fitting.k), seed, f"{hook} {name}")
            listed.append(
                Source("random_projections", hook, drawn, [projection_probe(fitting.k, c)])
            )
    if "surface" in fitting.controls:
        ridge = [on_activations("logistic_ridge", c)]
        listed.append(Source("surface", "", surface_columns(table), ridge))
    return listed


def for_regimes(listed: Sequence[Source], regimes: Regimes, c: Sequence[float]) -> list[Source]:
    """Those of the sources that are probed in other regimes, by fewer probes, at strengths `c`."""
    probes = {
        "activations": [on_activations(name, c) for name in regimes.activations],
        "latents": [sparse_probe(regimes.k, c)],
    }
    return [
        source._replace(probes=probes[source.kind]) for source in listed if source.kind in probes
    ]


def trainings(
    texts: LabelledSet, split: Split, fitting: Fitting, regimes: Regimes, seed: int, draw: int
) -> Iterator[Training]:
    """All training rows, then those of every regime that the set is large enough for.

    Args:
        texts: rows of the set, as many of each class.
        split: of this draw.
        fitting: how many rows at most, and whether labels are shuffled, too.
        regimes: what else is asked for.
        seed: of the study.
        draw: which of the seeds.
    """
    random = numpy_generator(seed, "probing", texts.name, draw)
    rows = random.permutation(split.train)
    by_class = [rows[texts.targets[rows] == label] for label in range(len(texts.classes))]

    def of_each(counts: Sequence[int]) -> Int64[np.ndarray, " n"]:
        drawn = [own[:count] for own, count in zip(by_class, counts, strict=True)]
        return np.sort(np.concatenate(drawn))

    fewest = min(map(len, by_class))
    n_classes = len(by_class)
    each = min(fewest, fitting.train_rows // n_classes)
    whole = of_each([each] * n_classes)
    yield Training(FULL, 0.0, whole, texts.targets[whole])
    for size in regimes.scarcity:
        if n_classes <= size <= n_classes * fewest:
            few = of_each([size // n_classes] * n_classes)
            yield Training(SCARCITY, float(size), few, texts.targets[few])
    for share in regimes.imbalance if n_classes == 2 else []:
        second = round(share * each)
        if 0 < second < each:
            uneven = of_each([each - second, second])
            yield Training(IMBALANCE, share, uneven, texts.targets[uneven])
    for share in regimes.noise:
        targets = texts.targets[whole].copy()
        flipped = random.permutation(len(whole))[: round(share * len(whole))]
        targets[flipped] += random.integers(1, n_classes, len(flipped))
        targets %= n_classes
        yield Training(NOISE, share, whole, targets)
    if "shuffled_labels" in fitting.controls:
        yield Training(SHUFFLED, 0.0, whole, random.permutation(texts.targets[whole]))


def probe_set(
    texts: LabelledSet,
    shifted: Mapping[str, tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]],
    listed: Sequence[Source],
    fitting: Fitting,
    regimes: Regimes,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> pl.DataFrame:
    """Fit and test every probe of every source in every regime, for every seed.

    Args:
        texts: rows of the set, which open those of the sources.
        shifted: by name, rows of other test sets among those of the sources, and their classes.
        listed: what is probed.
        fitting: how.
        regimes: on which rows beside all.
        seed: of the study.
        progress: is told how many seeds are done, and of how many.

    Returns:
        `RESULTS`.
    """
    few = for_regimes(listed, regimes, fitting.strengths)
    results: list[dict[str, Any]] = []
    for draw in range(fitting.seeds):
        split = split_by_group(texts, fitting.test, seed, draw)
        for training in trainings(texts, split, fitting, regimes, seed, draw):
            tests = {"": (split.test, texts.targets[split.test])}
            if training.regime == FULL:
                tests |= shifted
            if training.regime == SHUFFLED:  # true labels would be told or missed all together
                random = numpy_generator(seed, "probing", "shuffled", texts.name, draw)
                tests[""] = (split.test, random.permutation(texts.targets[split.test]))
            part = texts.part(training.rows)
            folds = _folds(part, training, fitting.folds, seed, draw)
            for source in listed if training.regime == FULL else few:
                for probe in source.probes:
                    outcomes = _over_classes(probe, source.rows, training, folds, tests, part)
                    results += [
                        {
                            "set": texts.name,
                            "regime": training.regime,
                            "level": training.level,
                            "seed": draw,
                            "test_set": test_set,
                            "kind": source.kind,
                            "of": source.of,
                            "method": probe.name,
                            "k": k,
                            "option": outcome.option,
                            "validation": outcome.validation,
                            "auc": outcome.areas[place],
                            "train_rows": len(training.rows),
                            "test_rows": len(tests[test_set][0]),
                        }
                        for k, outcome in zip(probe.variants, outcomes, strict=True)
                        for place, test_set in enumerate(tests)
                    ]
        progress(draw + 1, fitting.seeds)
    return pl.DataFrame(results, schema=RESULTS).with_columns(
        pl.col("option", "validation", "auc").fill_nan(None)
    )


def _folds(
    part: LabelledSet, training: Training, most: int, seed: int, draw: int
) -> Int64[np.ndarray, " n"]:
    """As many folds as every class has rows for; one where there are too few to validate."""
    seen = LabelledSet(part.name, part.prompts, part.classes, training.targets, part.groups)
    counts = np.bincount(training.targets.astype(int), minlength=len(part.classes))
    folds = min(most, int(counts.min()))
    if folds < 2:
        return np.zeros(len(part), np.int64)
    return folds_by_group(seen, folds, seed, draw, training.regime)


def _over_classes(
    probe: Probe,
    rows: Rows,
    training: Training,
    folds: Int64[np.ndarray, " n"],
    tests: Mapping[str, tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]],
    part: LabelledSet,
) -> list[Outcome]:
    """Of two classes the second; of more the mean over each against the others."""
    labels = [1] if len(part.classes) == 2 else list(range(len(part.classes)))
    train = rows[training.rows]
    held = {name: rows[where] for name, (where, _) in tests.items()}
    by_class = [
        evaluate(
            probe,
            train,
            training.targets == label,
            folds,
            [HeldOut(held[name], targets == label) for name, (_, targets) in tests.items()],
        )
        for label in labels
    ]
    if len(labels) == 1:
        return by_class[0]
    return [
        Outcome(
            float("nan"),
            float(np.mean([outcome.validation for outcome in outcomes])),
            np.mean([outcome.areas for outcome in outcomes], axis=0).tolist(),
        )
        for outcomes in zip(*by_class, strict=True)
    ]
