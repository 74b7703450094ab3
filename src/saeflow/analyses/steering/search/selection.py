"""The layer and the scale of each goal and method, chosen on one half of the completions within a
budget of divergence and reported on the other.

The largest of many products is optimistic on the completions that made it the largest, the more so
the more layers and scales are tried; so is its divergence, where a budget had to be kept. Both are
read again on completions that chose nothing. Completions without a vector are among what every
method may choose: where no vector does better within the budget, none is added. What is chosen at
the study's own layer alone stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from saeflow.analyses.steering.comparisons import AVERAGE
from saeflow.analyses.steering.pairs import SPLITS, PairedScores, on_grid, pair_scores
from saeflow.analyses.steering.resampling import Means, bootstrap_weights, interval, means
from saeflow.analyses.steering.search import RANDOM, UNSTEERED
from saeflow.analyses.steering.settings import Search, Summary
from saeflow.seeds import numpy_generator
from saeflow.statistics.means import as_wide_as_students, seen_draws
from saeflow.tables import Schema, write_table

ALL, OWN = "all", "own"
"""Layers that a choice is made among: all that were tried, or the study's own."""


def _with_ends(*quantities: str) -> dict[str, type[pl.DataType]]:
    return {f"{name}{end}": pl.Float64 for name in quantities for end in ("", "_low", "_high")}


SEARCH_SCHEMA: Schema = {
    "goal": pl.String, "method": pl.String, "layer": pl.Int64, "scale_index": pl.Int64,
    "multiple": pl.Float64, "scale": pl.Float64,
    **_with_ends(*Means._fields, "kl"),
    "n": pl.Int64, "missing": pl.Int64, "eligible": pl.Boolean,
    "selection_product": pl.Float64, "selection_kl": pl.Float64, "within_budget": pl.Boolean,
    "chosen": pl.Boolean, "chosen_of_own": pl.Boolean,
}  # fmt: skip
BEST_SCHEMA: Schema = {
    "goal": pl.String, "method": pl.String, "layers": pl.String,
    "layer": pl.Int64, "scale_index": pl.Int64, "multiple": pl.Float64, "scale": pl.Float64,
    **_with_ends(*Means._fields, "kl", "over_own", "over_random"),
    "n": pl.Int64, "missing": pl.Int64,
    "selection_product": pl.Float64, "selection_kl": pl.Float64,
    **_with_ends("unsteered_product"),
}  # fmt: skip


class Choices(NamedTuple):
    """The tables of a search."""

    search: pl.DataFrame
    """`SEARCH_SCHEMA`: one row per goal, method, layer and scale, over all completions; the
    unsteered ones are a method of their own."""
    search_best: pl.DataFrame
    """`BEST_SCHEMA`: one row per goal, method and ``layers`` (`ALL`, `OWN`) with what was chosen,
    over the half that chose nothing; then one per method and ``layers`` with goal `AVERAGE`."""


class _Split(NamedTuple):
    """Every group over the completions of one split: means, and draws for the ends of intervals."""

    scores: Means
    draws: Means
    kl: Float[np.ndarray, " groups"]
    kl_draws: Float[np.ndarray, "2 draws groups"]


class _Choice(NamedTuple):
    """What one method chose of one goal."""

    goal: str
    method: str
    layers: str
    group: int
    """-1 where nothing could be chosen."""
    unsteered: int


def choose_within(
    completions: pl.DataFrame,
    scores: pl.DataFrame,
    divergences: pl.DataFrame,
    search: Search,
    settings: Summary,
    own_layer: int,
    seed: int,
) -> Choices:
    """Choose and report; a completion counts only with both scores.

    Args:
        completions: of all goals; columns goal, method, layer, scale, scale_index (0 is unsteered),
            prompt, sample, completion_id.
        scores: columns completion_id, criterion, score (null when missing), reason.
        divergences: columns completion_id, kl (nats per token; null without continuation).
        search: scales, and the budget.
        settings: resamples, level of the intervals, share of the completions that choose, least
            share of them that must have scores.
        own_layer: of the study's hook.
        seed: the study's seed.

    Raises:
        SaeflowError: a completion or a score is there twice, or a score has no completion.
    """
    places = completions.select("layer", "scale_index").unique().sort("layer", "scale_index")
    places = places.with_row_index("place")
    # To be paired, a layer and a scale are one scale of a longer list.
    numbered = completions.join(places, on=["layer", "scale_index"], maintain_order="left")
    numbered = numbered.drop("scale_index").rename({"place": "scale_index"})
    paired = pair_scores(numbered, scores, settings.selection, seed)
    kl = on_grid(paired, numbered, divergences.rename({"kl": "value"}))
    groups = paired.groups.rename({"scale_index": "place"}).join(
        places, on="place", maintain_order="left"
    )
    multiples = pl.Series([0.0, *search.scales])
    groups = groups.with_columns(
        multiple=multiples.gather(groups["scale_index"]),
        layer=pl.when(pl.col("method") != UNSTEERED).then("layer"),
    ).drop("place")
    splits = {split: _measure(paired, kl, split, settings, seed) for split in SPLITS}
    selection, report = splits["selection"], splits["report"]
    eligible = paired.scored(settings.least_scored)
    within = selection.kl <= search.kl_budget
    choices = _choose(groups, eligible & within, selection, own_layer)
    return Choices(
        _all_candidates(paired, groups, splits, settings.level, eligible, within, choices),
        _report(paired, groups, choices, selection, report, settings.level),
    )


def write_choices(folder: Path, choices: Choices) -> None:
    """Write the tables, each as .parquet and .csv."""
    schemas = {"search": SEARCH_SCHEMA, "search_best": BEST_SCHEMA}
    for name, table in choices._asdict().items():
        for suffix in ("parquet", "csv"):
            write_table(folder / f"{name}.{suffix}", table, schemas[name])


def _measure(
    paired: PairedScores,
    kl: Float[np.ndarray, "groups samples"],
    split: str,
    settings: Summary,
    seed: int,
) -> _Split:
    columns = paired.columns(split)
    units = paired.units(split)
    weights = bootstrap_weights(
        len(columns),
        settings.bootstrap,
        numpy_generator(seed, "search", "bootstrap", split),
        units,
        [numpy_generator(seed, "search", "unseen", split, goal) for goal in paired.unseen],
    )
    scores = paired.behaviour[:, columns], paired.coherence[:, columns]
    moved = kl[:, columns]
    seen = ~np.isnan(moved)
    with np.errstate(invalid="ignore"):
        mean_kl = np.nansum(moved, axis=1) / seen.sum(axis=1)
    observed = np.array([len(np.unique(units[row])) for row in seen])
    drawn = as_wide_as_students(seen_draws(moved, weights), mean_kl, observed, settings.level)
    drawn = drawn.clip(min=0)
    return _Split(
        means(*scores),
        means(*scores, weights, paired.unseen_of),
        mean_kl,
        np.stack([drawn, drawn]),
    )


def _choose(
    groups: pl.DataFrame, may: Bool[np.ndarray, " groups"], selection: _Split, own_layer: int
) -> list[_Choice]:
    """Of every goal and method the largest product; of equal ones that which moves the model
    least."""
    product = np.where(may, selection.scores.product, np.nan)
    rows = groups.with_row_index("group").with_columns(
        product=pl.Series(product).fill_nan(None), kl=pl.Series(selection.kl)
    )
    unsteered = pl.col("method") == UNSTEERED
    choices = []
    for (goal,), of_goal in rows.group_by("goal", maintain_order=True):
        bare = of_goal.filter(unsteered)["group"].item()
        for method in of_goal.filter(~unsteered)["method"].unique(maintain_order=True):
            own = of_goal.filter(unsteered | (pl.col("method") == method))
            for layers, among in (
                (ALL, own),
                (OWN, own.filter(unsteered | (pl.col("layer") == own_layer))),
            ):
                ranked = among.drop_nulls("product").sort(
                    "product", "kl", "group", descending=[True, False, False]
                )
                group = ranked["group"][0] if len(ranked) else -1
                choices.append(_Choice(str(goal), method, layers, group, bare))
    return choices


def _all_candidates(
    paired: PairedScores,
    groups: pl.DataFrame,
    splits: dict[str, _Split],
    level: float,
    eligible: Bool[np.ndarray, " groups"],
    within: Bool[np.ndarray, " groups"],
    choices: Sequence[_Choice],
) -> pl.DataFrame:
    observed = paired.observed.sum(axis=1)
    number = np.arange(len(groups))
    return groups.with_columns(
        pl.Series(name, values, nan_to_null=True)
        for name, values in {
            **_quantities(splits["all"], level),
            "selection_product": splits["selection"].scores.product,
            "selection_kl": splits["selection"].kl,
        }.items()
    ).with_columns(
        n=pl.Series(observed),
        missing=pl.Series(paired.present.sum(axis=1) - observed),
        eligible=pl.Series(eligible),
        within_budget=pl.Series(within),
        chosen=pl.Series(np.isin(number, [each.group for each in choices if each.layers == ALL])),
        chosen_of_own=pl.Series(
            np.isin(number, [each.group for each in choices if each.layers == OWN])
        ),
    )


def _quantities(split: _Split, level: float) -> dict[str, Float[np.ndarray, " groups"]]:
    """Means with their intervals."""
    measured = {
        **{
            name: (getattr(split.scores, name), getattr(split.draws, name))
            for name in Means._fields
        },
        "kl": (split.kl, split.kl_draws),
    }
    columns: dict[str, Float[np.ndarray, " groups"]] = {}
    for name, (value, draws) in measured.items():
        low, high = interval(draws, level)
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return columns


def _report(
    paired: PairedScores,
    groups: pl.DataFrame,
    choices: Sequence[_Choice],
    selection: _Split,
    report: _Split,
    level: float,
) -> pl.DataFrame:
    """A row per choice, then one per method and layers over the goals."""
    columns = paired.columns("report")
    observed = paired.observed[:, columns].sum(axis=1)
    missing = paired.present[:, columns].sum(axis=1) - observed
    group_of = {each[:3]: each.group for each in choices}
    rows = []
    for each in choices:
        row: dict[str, object] = {"goal": each.goal, "method": each.method, "layers": each.layers}
        if each.group >= 0:
            row |= groups.select("layer", "scale_index", "multiple", "scale").row(
                each.group, named=True
            )
            row |= {"n": observed[each.group], "missing": missing[each.group]}
        rows.append(row | _over_goals([each], group_of, selection, report, level))
    goals = groups["goal"].n_unique()
    for method, layers in dict.fromkeys((each.method, each.layers) for each in choices):
        own = [each for each in choices if each[1:3] == (method, layers)]
        row = {"goal": AVERAGE, "method": method, "layers": layers}
        if len(own) == goals:
            chosen = [each.group for each in own if each.group >= 0]
            row |= {"n": observed[chosen].sum(), "missing": missing[chosen].sum()}
            row |= _over_goals(own, group_of, selection, report, level)
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None, schema=BEST_SCHEMA).with_columns(
        pl.col(pl.Float64).fill_nan(None)
    )


def _over_goals(
    choices: Sequence[_Choice],
    group_of: dict[tuple[str, str, str], int],
    selection: _Split,
    report: _Split,
    level: float,
) -> dict[str, float]:
    """Means over what one method chose of some goals, with intervals; nothing where of one of them
    nothing could be chosen.

    Samples are drawn for all goals together, which keeps what goals share (prompts, random
    numbers); differences are of the same samples.
    """
    groups = [each.group for each in choices]
    if min(groups) < 0:
        return {}
    unsteered = [each.unsteered for each in choices]
    measured = {
        **{
            name: (value[groups], drawn[..., groups])
            for name, value, drawn in zip(Means._fields, report.scores, report.draws, strict=True)
        },
        "kl": (report.kl[groups], report.kl_draws[..., groups]),
        "unsteered_product": (
            report.scores.product[unsteered],
            report.draws.product[..., unsteered],
        ),
    }
    rivals = {
        OWN: [group_of.get((each.goal, each.method, OWN), -1) for each in choices],
        RANDOM: [group_of.get((each.goal, RANDOM, each.layers), -1) for each in choices],
    }
    for rival, others in rivals.items():
        if min(others) >= 0:
            same = np.array(groups) == others
            product, draws = report.scores.product, report.draws.product
            apart = draws[..., groups] - draws[::-1][..., others]
            measured[f"over_{rival}"] = (
                product[groups] - product[others],
                np.where(same, 0.0, apart),
            )
    row = {
        "selection_product": float(selection.scores.product[groups].mean()),
        "selection_kl": float(selection.kl[groups].mean()),
    }
    for name, (value, drawn) in measured.items():
        low, high = interval(drawn.mean(axis=-1, keepdims=True), level)
        row |= {name: float(value.mean()), f"{name}_low": float(low[0])}
        row[f"{name}_high"] = float(high[0])
    return row
