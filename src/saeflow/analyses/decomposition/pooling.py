"""What SAEs keep of directions, by training: SAEs that differ in their seed alone are one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from scipy import stats

KEPT = ("cosine", "error")
BESIDE = (
    *("repeated_cosine", "best_cosine", "null_cosine", "best_density"),
    *("concept_share", "concept_per_thousand"),
)
POOLED = {
    "saes": pl.String,
    "direction": pl.String,
    "seeds": pl.Int32,
    "over": pl.String,
    **{name: pl.Float64 for each in KEPT for name in (each, f"{each}_low", f"{each}_high")},
    **dict.fromkeys(BESIDE, pl.Float64),
}
"""Means over the SAEs of a training (`fidelity.FIDELITY`), of ``best_cosine`` without its sign.
``over``: intervals are over ``seeds``, by Student's t, or of one SAE over ``texts``."""
DIFFERENCES = {
    "direction": pl.String,
    "first": pl.String,
    "second": pl.String,
    "measure": pl.String,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "seeds": pl.Int32,
}
"""The mean of the ``first`` training less that of the ``second``, with Welch's interval over seeds;
of trainings that have two seeds at least."""
ALONG = {
    "saes": pl.String,
    "direction": pl.String,
    "k": pl.Int32,
    "error": pl.Float64,
    "error_low": pl.Float64,
    "error_high": pl.Float64,
    "seeds": pl.Int32,
}
"""The error by orthogonal matching pursuit with so many latents, with intervals over seeds; of one
seed there is none."""


def pooled(
    fidelity: Mapping[str, pl.DataFrame], pools: Mapping[str, Sequence[str]], level: float
) -> pl.DataFrame:
    """The columns of `POOLED`.

    Args:
        fidelity: by SAE, `fidelity.FIDELITY`.
        pools: the SAEs of each training, by its name.
        level: of the intervals.
    """
    rows: list[Mapping[str, object]] = []
    for pool, direction, own in _parts(fidelity, pools):
        row: dict[str, object] = {"saes": pool, "direction": direction, "seeds": len(own)}
        row["over"] = "seeds" if len(own) > 1 else "texts"
        for measure in KEPT:
            ends = own.select(f"{measure}_low", f"{measure}_high").row(0)
            if len(own) > 1:
                ends = _interval(own[measure].to_numpy(), level)
            row |= {measure: own[measure].mean(), **_ends(measure, ends)}
        rows.append(row | {name: own[name].abs().mean() for name in BESIDE})
    return pl.DataFrame(rows, schema=POOLED)


def differences(
    fidelity: Mapping[str, pl.DataFrame], pools: Mapping[str, Sequence[str]], level: float
) -> pl.DataFrame:
    """The columns of `DIFFERENCES`; arguments as of `pooled`."""
    parts = [part for part in _parts(fidelity, pools) if len(part[2]) > 1]
    rows = []
    for (first, direction, mine), (second, other, its) in combinations(parts, 2):
        for measure in KEPT if direction == other else ():
            sides = mine[measure].to_numpy(), its[measure].to_numpy()
            interval = stats.ttest_ind(*sides, equal_var=False).confidence_interval(level)
            apart = float(sides[0].mean() - sides[1].mean())
            ends = float(interval.low), float(interval.high)
            seeds = min(map(len, sides))
            rows.append((direction, first, second, measure, apart, *ends, seeds))
    return pl.DataFrame(rows, schema=DIFFERENCES, orient="row")


def along(
    curves: Mapping[str, pl.DataFrame], pools: Mapping[str, Sequence[str]], level: float
) -> pl.DataFrame:
    """The columns of `ALONG`.

    Args:
        curves: by SAE, `curves.CURVES`.
        pools: the SAEs of each training, by its name.
        level: of the intervals.
    """
    rows = []
    own = {
        name: table.filter(kind="direction", method="orthogonal") for name, table in curves.items()
    }
    for pool, direction, part in _parts(own, pools):
        for (k,), at in part.group_by(["k"], maintain_order=True):
            errors = at["error"].to_numpy()
            ends = _interval(errors, level) if len(at) > 1 else (None, None)
            rows.append((pool, direction, k, float(errors.mean()), *ends, len(at)))
    return pl.DataFrame(rows, schema=ALONG, orient="row")


def _parts(
    tables: Mapping[str, pl.DataFrame], pools: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """The rows of every training and direction."""
    for pool, names in pools.items():
        whole = pl.concat([tables[name] for name in names])
        for (direction,), own in whole.group_by(["direction"], maintain_order=True):
            yield pool, str(direction), own


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Student's, of a mean."""
    around, half = values.mean(), stats.sem(values) * stats.t.ppf((1 + level) / 2, len(values) - 1)
    return float(around - half), float(around + half)


def _ends(measure: str, ends: tuple[object, ...]) -> dict[str, object]:
    return dict(zip((f"{measure}_low", f"{measure}_high"), ends, strict=True))
