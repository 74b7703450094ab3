"""Scores to tables: every scale with its interval, the best scale chosen and reported on different
samples.

The published figure of merit of a method is the largest product of mean behaviour and mean
coherence over all scales. Taken on the samples that chose the scale it is optimistic: it grows with
the number of scales even where none does anything. So one half of the samples chooses the scale and
the other half reports it; the published number stands beside it, named ``in_sample_product``. A
scale whose completions are mostly without scores is not considered: the few that could be judged
are no fair sample of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from saeflow.analyses.steering.capability_costs import COLUMNS, Costs, capability_costs
from saeflow.analyses.steering.comparisons import AVERAGE, COMPARISONS_SCHEMA, ScaleChoice, compare
from saeflow.analyses.steering.diversity import Bigrams, Diversity, bigrams, diversity
from saeflow.analyses.steering.matched import MATCHED_SCHEMA, match
from saeflow.analyses.steering.pairs import SPLITS, PairedScores, on_grid, pair_scores
from saeflow.analyses.steering.resampling import Means, bootstrap_weights, interval, means
from saeflow.analyses.steering.settings import Summary
from saeflow.analyses.steering.three_way import THREE_WAY_SCHEMA, three_way
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

_INTERVALS: dict[str, type[pl.DataType]] = {
    f"{quantity}{end}": pl.Float64
    for quantity in (*Means._fields, *Diversity._fields, *COLUMNS)
    for end in ("", "_low", "_high")
}
SUMMARY_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String, "scale": pl.Float64, "scale_index": pl.Int64,
    "split": pl.String,
    **_INTERVALS,
    "n": pl.Int64, "missing": pl.Int64, "reasons": pl.String, "eligible": pl.Boolean,
    "selected": pl.Boolean,
}  # fmt: skip
BEST_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String, "scale": pl.Float64, "scale_index": pl.Int64,
    **_INTERVALS,
    "n": pl.Int64, "missing": pl.Int64, "selection_product": pl.Float64,
    "in_sample_product": pl.Float64, "in_sample_scale": pl.Float64,
    "in_sample_scale_index": pl.Int64,
    "unsteered_product": pl.Float64, "unsteered_product_low": pl.Float64,
    "unsteered_product_high": pl.Float64,
}  # fmt: skip


class Summaries(NamedTuple):
    """The tables of a study's scores."""

    summary: pl.DataFrame
    """`SUMMARY_SCHEMA`: one row per goal, method, scale and split (all, selection, report)."""
    best: pl.DataFrame
    """`BEST_SCHEMA`: one row per goal and method at its chosen scale, then one per method with goal
    `AVERAGE`."""
    comparisons: pl.DataFrame
    """`COMPARISONS_SCHEMA`: one row per goal and pair of methods at their chosen scales, then their
    `AVERAGE`."""
    matched: pl.DataFrame
    """`MATCHED_SCHEMA`: methods at equal coherence and at equal KL divergence, then their
    `AVERAGE`."""
    three_way: pl.DataFrame
    """`THREE_WAY_SCHEMA`: the second protocol; without rows where it was not asked for."""


def summarise(
    completions: pl.DataFrame,
    scores: pl.DataFrame,
    settings: Summary,
    seed: int,
    divergences: pl.DataFrame | None = None,
    capabilities: pl.DataFrame | None = None,
) -> Summaries:
    """Summarise the scores of a study; a completion counts only with both scores.

    Args:
        completions: of all goals and methods; columns goal, method, scale, scale_index, prompt,
            sample, completion_id; and continuation, without which diversity is null.
        scores: columns completion_id, criterion, score (null when missing), reason.
        settings: resamples, level of the intervals, share of the samples that choose the scale.
        seed: the study's seed.
        divergences: columns completion_id, kl; None where they were not measured.
        capabilities: `saeflow.analyses.steering.schemas.CAPABILITY_SCHEMA`; None where they were
            not measured.

    Raises:
        SaeflowError: a completion or score is there twice, a score has no completion, or a goal is
            called average.
    """
    if AVERAGE in completions["goal"]:
        raise SaeflowError(
            f"steering.goals.names: '{AVERAGE}' is the name of the row over all goals; rename the "
            "goal's file"
        )
    paired = pair_scores(completions, scores, settings.selection, seed)
    weights = {
        split: bootstrap_weights(
            len(paired.columns(split)),
            settings.bootstrap,
            numpy_generator(seed, "summary", "bootstrap", split),
            paired.units(split),
            [numpy_generator(seed, "summary", "unseen", split, goal) for goal in paired.unseen],
        )
        for split in SPLITS
    }
    texts = bigrams(paired, completions)
    of_report = _measured(paired, texts, "report", weights["report"])
    estimates = {
        split: _estimate(
            paired,
            split,
            of_report if split == "report" else _measured(paired, texts, split, weights[split]),
            settings.level,
        )
        for split in SPLITS
    }
    costs = None
    if capabilities is not None:
        costs = capability_costs(paired.groups, capabilities, settings, seed)
        columns = pl.DataFrame(costs.table())
        estimates = {split: table.hstack(columns) for split, table in estimates.items()}
    cells = paired.groups.select("goal", "method").unique(maintain_order=True)
    eligible = paired.scored(settings.least_scored)
    may_be_chosen = eligible & paired.candidates
    choice = ScaleChoice(
        cells, _largest(paired.groups, cells, _of(may_be_chosen, estimates["selection"]))
    )
    in_sample = _largest(paired.groups, cells, _of(may_be_chosen, estimates["all"]))
    best = _typed(_best(paired, choice, in_sample, estimates), BEST_SCHEMA)
    averages = _typed(
        _averages(paired, choice, best, of_report, costs, settings.level), BEST_SCHEMA
    )
    comparisons = compare(paired, choice, weights["report"], settings.level, seed)
    kl = (
        None
        if divergences is None
        else on_grid(paired, completions, divergences.rename({"kl": "value"}))
    )
    return Summaries(
        summary=_typed(_summary(paired, estimates, eligible, choice), SUMMARY_SCHEMA),
        best=pl.concat([best, _typed(averages, BEST_SCHEMA)]),
        comparisons=_typed(comparisons, COMPARISONS_SCHEMA),
        matched=_typed(match(paired, kl, weights["all"], settings), MATCHED_SCHEMA),
        three_way=_typed(
            three_way(paired, completions, scores, weights, settings), THREE_WAY_SCHEMA
        ),
    )


class _Measured(NamedTuple):
    """One quantity of every group."""

    value: Float[np.ndarray, " groups"]
    draws: Float[np.ndarray, "2 draws groups"]
    """For the two ends of its interval."""


def _measured(
    paired: PairedScores,
    texts: Bigrams | None,
    split: str,
    weights: Float[np.ndarray, "draws samples_and_unseen"],
) -> dict[str, _Measured]:
    """Every quantity that has an interval, over the samples of a split."""
    columns = paired.columns(split)
    scores = paired.behaviour[:, columns], paired.coherence[:, columns]
    pairs: list[tuple[Means | Diversity, Means | Diversity]] = [
        (means(*scores), means(*scores, weights, paired.unseen_of))
    ]
    if texts is not None:
        pairs.append(diversity(texts, paired, split, weights))
    return {
        name: _Measured(getattr(plain, name), getattr(drawn, name))
        for plain, drawn in pairs
        for name in plain._fields
    }


def _estimate(
    paired: PairedScores, split: str, measured: dict[str, _Measured], level: float
) -> pl.DataFrame:
    """Means, intervals and counts of every group over the samples of a split, one row per group."""
    columns = paired.columns(split)
    n = paired.observed[:, columns].sum(axis=1)
    counts = {"n": n, "missing": paired.present[:, columns].sum(axis=1) - n}
    return pl.DataFrame(_with_intervals(measured, level) | counts)


def _with_intervals(
    measured: dict[str, _Measured], level: float
) -> dict[str, Float[np.ndarray, " groups"]]:
    """Each mean with its interval."""
    table: dict[str, Float[np.ndarray, " groups"]] = {}
    for quantity, (value, draws) in measured.items():
        low, high = interval(draws, level)
        table |= {quantity: value, f"{quantity}_low": low, f"{quantity}_high": high}
    return table


def _of(
    may_be_chosen: Bool[np.ndarray, " groups"], estimate: pl.DataFrame
) -> Float[np.ndarray, " groups"]:
    """The products among which a scale may be chosen; NaN for the others."""
    return np.where(may_be_chosen, estimate["product"].to_numpy(), np.nan)


def _largest(
    groups: pl.DataFrame, cells: pl.DataFrame, product: Float[np.ndarray, " groups"]
) -> Int[np.ndarray, " cells"]:
    """The group with the largest product of each goal and method, the scale nearer to 0 in a tie;
    -1 if none."""
    ranked = (
        groups.with_row_index("group")
        .with_columns(product=pl.Series(product).fill_nan(None))
        .drop_nulls("product")
        .sort("product", pl.col("scale").abs(), "scale_index", descending=[True, False, False])
        .unique(["goal", "method"], keep="first", maintain_order=True)
    )
    joined = cells.join(ranked, on=["goal", "method"], how="left", maintain_order="left")
    return joined["group"].cast(pl.Int64).fill_null(-1).to_numpy()


def _unsteered(groups: pl.DataFrame, cells: pl.DataFrame) -> Int[np.ndarray, " cells"]:
    """The group of scale 0 of each goal and method; -1 where there is none."""
    zero = groups.with_row_index("group").filter(pl.col("scale") == 0)
    joined = cells.join(zero, on=["goal", "method"], how="left", maintain_order="left")
    return joined["group"].cast(pl.Int64).fill_null(-1).to_numpy()


def _summary(
    paired: PairedScores,
    estimates: dict[str, pl.DataFrame],
    eligible: Bool[np.ndarray, " groups"],
    choice: ScaleChoice,
) -> pl.DataFrame:
    groups = paired.groups.with_row_index("group").with_columns(
        eligible=pl.Series(eligible),
        selected=pl.Series(np.isin(np.arange(len(paired.groups)), choice.groups)),
    )
    tables = [
        pl.concat([groups, estimates[split]], how="horizontal").with_columns(split=pl.lit(split))
        for split in SPLITS
    ]
    return (
        pl.concat(tables)
        .join(_reasons(paired), on=["group", "split"], how="left")
        .with_columns(pl.col("reasons").fill_null(""))
        .sort("group", pl.col("split").cast(pl.Enum(SPLITS)))
    )


def _reasons(paired: PairedScores) -> pl.DataFrame:
    """Why scores are missing, with counts, as one text per group and split."""
    half = np.where(paired.selection, "selection", "report")
    missing = paired.missing.with_columns(
        split=pl.Series(half[paired.missing["sample"].to_numpy()], dtype=pl.String)
    )
    return (
        pl.concat([missing, missing.with_columns(split=pl.lit("all"))])
        .group_by("group", "split", "criterion", "reason")
        .len()
        .sort(["len", "criterion", "reason"], descending=[True, False, False])
        .group_by("group", "split", maintain_order=True)
        .agg(reasons=pl.format("{}: {} ({})", "criterion", "reason", "len").str.join("; "))
    )


def _rows(table: pl.DataFrame, indices: Int[np.ndarray, " cells"]) -> pl.DataFrame:
    """Rows of a table by index, all null for -1."""
    return table[np.maximum(indices, 0)].select(pl.when(pl.Series(indices >= 0)).then(pl.all()))


def _best(
    paired: PairedScores,
    choice: ScaleChoice,
    in_sample: Int[np.ndarray, " cells"],
    estimates: dict[str, pl.DataFrame],
) -> pl.DataFrame:
    cells, chosen = choice
    unsteered = _unsteered(paired.groups, cells)
    product = pl.col("product")
    return pl.concat(
        [
            cells,
            _rows(paired.groups.select("scale", "scale_index"), chosen),
            _rows(estimates["report"], chosen),
            _rows(estimates["selection"].select(selection_product=product), chosen),
            _rows(
                paired.groups.select(in_sample_scale="scale", in_sample_scale_index="scale_index"),
                in_sample,
            ),
            _rows(estimates["all"].select(in_sample_product=product), in_sample),
            _rows(
                estimates["report"].select(pl.col("^product.*$").name.prefix("unsteered_")),
                unsteered,
            ),
        ],
        how="horizontal",
    )


def _averages(
    paired: PairedScores,
    choice: ScaleChoice,
    best: pl.DataFrame,
    measured: dict[str, _Measured],
    costs: Costs | None,
    level: float,
) -> pl.DataFrame:
    """Each method's mean over the goals; null where one has no value, as goals differ in
    difficulty."""
    unsteered = _unsteered(paired.groups, choice.cells)
    rows = []
    for (method,), of_method in best.group_by("method", maintain_order=True):
        row = {
            "goal": AVERAGE,
            "method": method,
            "n": of_method["n"].sum(),
            "missing": of_method["missing"].sum(),
        }
        if len(of_method) == best["goal"].n_unique():
            own = (choice.cells["method"] == method).to_numpy()
            at_zero = _over_goals(measured, unsteered[own], level)
            row |= _over_goals(measured, choice.groups[own], level)
            if costs and (choice.groups[own] >= 0).all():
                row |= costs.over_goals(choice.groups[own])
            row |= {
                f"unsteered_{name}": value
                for name, value in at_zero.items()
                if name.startswith("product")
            }
            for column in ("selection_product", "in_sample_product"):
                row[column] = None if of_method[column].has_nulls() else of_method[column].mean()
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _over_goals(
    measured: dict[str, _Measured], groups: Int[np.ndarray, " goals"], level: float
) -> dict[str, float]:
    """Means over one group of each goal on the report half, with intervals; nothing where a goal
    has no group.

    Samples are drawn for all goals together, which keeps what goals share (prompts, random
    numbers).
    """
    if (groups < 0).any():
        return {}
    averaged = {
        name: _Measured(*(_mean_over(values, groups) for values in each))
        for name, each in measured.items()
    }
    return {name: float(value[0]) for name, value in _with_intervals(averaged, level).items()}


def _mean_over(
    values: Float[np.ndarray, "*draws groups"], groups: Int[np.ndarray, " goals"]
) -> Float[np.ndarray, "*draws 1"]:
    # contiguous, so that goals are added in one order
    return np.ascontiguousarray(values[..., groups]).mean(axis=-1, keepdims=True)


def _typed(table: pl.DataFrame, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """The table with exactly the schema's columns; absent columns and NaN become null."""
    absent = [
        pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in table.columns
    ]
    return (
        table.with_columns(absent)
        .select(pl.col(name).cast(kind) for name, kind in schema.items())
        .fill_nan(None)
    )
