"""Results of all sets: means over seeds with intervals, differences across sets, and the quiver.

Splits of one set share rows, so their spread is smaller than that of new data: variances over seeds
are corrected by Nadeau and Bengio's factor (2003), ``1/seeds + test rows/training rows``. A
difference whose interval holds 0 is smaller than what drawing the splits anew makes, and is called
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64
from scipy import stats

from saeflow.analyses.probing import WITH, WITHOUT
from saeflow.analyses.probing.design import RESULTS
from saeflow.analyses.probing.settings import Comparison
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

CASE = ("set", "regime", "level", "test_set")
METHOD = ("kind", "of", "method", "k")
BASELINE = {"kind": "activations", "method": "logistic_ridge"}
_NUMBERS: Schema = dict.fromkeys(
    ("auc", "low", "high", "spread", "validation", "optimism"), pl.Float64
)
SUMMARY: Schema = {
    **{key: RESULTS[key] for key in (*CASE, *METHOD)},
    **_NUMBERS,
    "seeds": pl.Int32,
    "train_rows": pl.Int32,
    "test_rows": pl.Int32,
}
"""`spread` is the standard deviation over seeds; `optimism` validation less test."""
DIFFERENCES: Schema = {
    "regime": pl.String,
    "level": pl.Float64,
    "shifted": pl.Boolean,
    **{key: RESULTS[key] for key in METHOD},
    "than": pl.String,
    "sets": pl.Int32,
    "auc": pl.Float64,
    "baseline": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "wilcoxon_p": pl.Float64,
    "better": pl.Int32,
    "worse": pl.Int32,
    "none": pl.Int32,
}
"""`difference` is the mean over sets of a method's area less that of `than`, with its bootstrap
interval; `better`, `worse` and `none` count sets by their own interval over seeds."""
QUIVER: Schema = {
    **{key: RESULTS[key] for key in ("set", "regime", "level", "seed")},
    "arrows": pl.String,
    **{key: RESULTS[key] for key in METHOD},
    "validation": pl.Float64,
    "auc": pl.Float64,
}
ON_ACTIVATIONS = "logistic_ridge on activations"


def summarise(results: pl.DataFrame, level: float) -> pl.DataFrame:
    """Means over seeds with intervals.

    Args:
        results: `RESULTS` of all sets.
        level: of the intervals.
    """
    rows = []
    for key, part in results.group_by(*CASE, *METHOD, maintain_order=True):
        areas = part["auc"].drop_nulls().to_numpy()
        train, test = int(part["train_rows"][0]), int(part["test_rows"][0])
        mean, half = corrected_interval(areas, train, test, level)
        validation = part["validation"].mean()
        rows.append(
            {
                **dict(zip((*CASE, *METHOD), key, strict=True)),
                "auc": mean,
                "low": None if half is None else max(0.0, mean - half),  # type: ignore[operator]
                "high": None if half is None else min(1.0, mean + half),  # type: ignore[operator]
                "spread": float(areas.std(ddof=1)) if len(areas) > 1 else None,
                "validation": validation,
                "optimism": None if validation is None or mean is None else validation - mean,  # type: ignore[operator]
                "seeds": len(areas),
                "train_rows": train,
                "test_rows": test,
            }
        )
    return pl.DataFrame(rows, schema=SUMMARY)


def corrected_interval(
    values: Float64[np.ndarray, " seeds"], train: int, test: int, level: float
) -> tuple[float | None, float | None]:
    """The mean of values over splits, and half of its interval's width; None where there are none.

    Args:
        values: one per split.
        train: rows that each was trained on.
        test: rows that each was tested on.
        level: of the interval.

    Source: Nadeau and Bengio 2003, "Inference for the generalization error".
    """
    if not len(values):
        return None, None
    if len(values) < 2:
        return float(values.mean()), None
    variance = (1 / len(values) + test / train) * values.var(ddof=1)
    return float(values.mean()), float(
        stats.t.ppf((1 + level) / 2, len(values) - 1) * np.sqrt(variance)
    )


def quiver(results: pl.DataFrame) -> pl.DataFrame:
    """For each set, regime and seed the method that validation chooses: among those on activations,
    and among those on latents, too."""
    able = results.filter(
        pl.col("test_set") == "",
        pl.col("kind").is_in(["activations", "latents"]),
        pl.col("validation").is_not_null(),
        pl.col("regime") != "shuffled",
    )
    case = ["set", "regime", "level", "seed"]
    tables = []
    for arrows, part in ((WITHOUT, able.filter(kind="activations")), (WITH, able)):
        best = part.sort("validation", descending=True, maintain_order=True)
        chosen = best.unique(case, keep="first", maintain_order=True).sort(case)
        tables.append(chosen.with_columns(arrows=pl.lit(arrows)).select(list(QUIVER)))
    return pl.concat(tables) if tables else pl.DataFrame(schema=QUIVER)


def compare(
    results: pl.DataFrame,
    quivers: pl.DataFrame,
    settings: Comparison,
    seed: int,
    controls: Sequence[tuple[str, str]] = (),
) -> pl.DataFrame:
    """Every method against logistic regression on activations, latents of an SAE against those of
    its controls, and the quiver with latents against that without, across sets.

    Args:
        results: `RESULTS` of all sets.
        quivers: from `quiver`.
        settings: level and draws.
        seed: of the study.
        controls: SAEs, each with a control of it.
    """
    case = [*CASE, "seed"]
    itself = pl.all_horizontal(pl.col(key) == value for key, value in BASELINE.items())
    base = results.filter(itself)
    first = base["of"][0] if len(base) else ""
    base = base.filter(of=first).select(*case, than=pl.col("auc"))
    paired = results.join(base, on=case, how="inner").filter(~(itself & (pl.col("of") == first)))
    rows = _compared(paired, ON_ACTIVATIONS, settings, seed)
    latents = results.filter(kind="latents")
    for sae, control in controls:
        same = [*case, "method", "k"]
        base = latents.filter(of=control).select(*same, than=pl.col("auc"))
        paired = latents.filter(of=sae).join(base, on=same, how="inner")
        rows += _compared(paired, f"the same on latents of {control}", settings, seed)
    key = ["set", "regime", "level", "seed"]
    sizes = results.filter(test_set="").unique(key).select(*key, "train_rows", "test_rows")
    without = quivers.filter(arrows=WITHOUT).select(*key, than=pl.col("auc"))
    both = quivers.filter(arrows=WITH).join(without, on=key).join(sizes, on=key)
    both = both.with_columns(
        kind=pl.lit("quiver"),
        of=pl.lit(WITH),
        method=pl.lit("chosen"),
        k=pl.lit(0, pl.Int32),
        test_set=pl.lit(""),
    )
    rows += _compared(both, f"quiver of {WITHOUT}", settings, seed)
    return pl.DataFrame(rows, schema=DIFFERENCES)


def _compared(
    paired: pl.DataFrame, than: str, settings: Comparison, seed: int
) -> list[dict[str, Any]]:
    rows = []
    paired = paired.with_columns(shifted=pl.col("test_set") != "").drop_nulls(["auc", "than"])
    case = ("regime", "level", "shifted", *METHOD)
    for key, part in paired.group_by(*case, maintain_order=True):
        of_sets = []
        verdicts = {"better": 0, "worse": 0, "none": 0}
        for _, own in part.group_by("set", "test_set", maintain_order=True):
            change = (own["auc"] - own["than"]).to_numpy()
            train, test = int(own["train_rows"][0]), int(own["test_rows"][0])
            mean, half = corrected_interval(change, train, test, settings.level)
            of_sets.append((float(own["auc"].mean()), float(own["than"].mean()), mean))  # type: ignore[arg-type]
            verdicts[verdict(mean, half)] += 1
        areas, baseline, differences = np.array(of_sets, float).T
        low, high = bootstrap(differences, settings, seed)
        rows.append(
            {
                **dict(zip(case, key, strict=True)),
                "than": than,
                "sets": len(of_sets),
                "auc": float(areas.mean()),
                "baseline": float(baseline.mean()),
                "difference": float(differences.mean()),
                "low": low,
                "high": high,
                "wilcoxon_p": wilcoxon_p(differences),
                **verdicts,
            }
        )
    return rows


def verdict(mean: float | None, half: float | None) -> str:
    """Whether a difference is larger than what reseeding makes."""
    if mean is None or half is None or abs(mean) <= half:
        return "none"
    return "better" if mean > 0 else "worse"


def bootstrap(
    differences: Float64[np.ndarray, " sets"], settings: Comparison, seed: int
) -> tuple[float | None, float | None]:
    """The percentile interval of a mean over sets, which are drawn with replacement."""
    n = len(differences)
    if n < 2:
        return None, None
    draws = numpy_generator(seed, "probing", "bootstrap", n).integers(0, n, (settings.draws, n))
    means = differences[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - settings.level) / 2, (1 + settings.level) / 2])
    return float(low), float(high)


def wilcoxon_p(differences: Float64[np.ndarray, " sets"]) -> float | None:
    """Two-sided, of Wilcoxon's signed ranks; None for fewer than two sets that differ."""
    if np.count_nonzero(differences) < 2:
        return None
    return float(stats.wilcoxon(differences).pvalue)


def joined(tables: Sequence[pl.DataFrame], schema: Schema) -> pl.DataFrame:
    """Tables of all sets."""
    return pl.concat([pl.DataFrame(schema=schema), *tables])
