"""How much a method's completions differ: whether each repeats itself, and how alike they are.

A vector that makes every text say the same few words may still score well in behaviour and
coherence. Both measures count bigrams of words and punctuation marks in what the model wrote, and
neither needs a judge, so that completions without scores count, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from saeflow.analyses.steering.pairs import PairedScores, placed
from saeflow.judging.words import distinct_bigram_share, units
from saeflow.statistics.means import SCORE_GRID, WEIGHT_GRID, mean_draws, on_grid

WEIGHTS_AT_ONCE = 2**19
"""Of pairs of samples: 4 MB."""


class Diversity(NamedTuple):
    """Of groups of completions: ``[groups]``, or draws for the two ends of their intervals."""

    distinct_2: Float[np.ndarray, "*draws groups"]
    """Share of the bigrams of a completion that are distinct, the mean over completions: 1 where
    none says anything twice, towards 0 in a loop."""
    self_similarity: Float[np.ndarray, "*draws groups"]
    """Sørensen-Dice coefficient of the sets of bigrams of two completions of one prompt, the mean
    over all pairs: 1 where all say the same."""


class Bigrams(NamedTuple):
    """Of every group's completions, in the columns of the scores."""

    distinct: Float[np.ndarray, "groups samples"]
    """NaN where a completion has no bigram, or there is none."""
    present: Sequence[csr_array]
    """``[samples, bigrams]`` of each group, 1 where a completion has the bigram."""


def bigrams(paired: PairedScores, completions: pl.DataFrame) -> Bigrams | None:
    """Count the bigrams of what the model wrote; None where the table does not hold it apart from
    the prompt.

    Args:
        paired: the scores of these completions.
        completions: columns goal, method, scale_index, prompt, sample, continuation.
    """
    if "continuation" not in completions.columns:
        return None
    distinct = np.full(paired.behaviour.shape, np.nan)
    rows: list[list[tuple[int, set[tuple[str, str]]]]] = [[] for _ in range(len(distinct))]
    for group, column, text in (
        placed(paired, completions)
        .select("group", "column", pl.col("continuation").fill_null(""))
        .iter_rows()
    ):
        sequence = units(text)
        if len(sequence) > 1:
            distinct[group, column] = distinct_bigram_share(sequence)
            rows[group].append((column, set(pairwise(sequence))))
    return Bigrams(distinct, [_incidence(of_group, len(paired.samples)) for of_group in rows])


def _incidence(rows: list[tuple[int, set[tuple[str, str]]]], samples: int) -> csr_array:
    numbers: dict[tuple[str, str], int] = {}
    places = [
        (column, numbers.setdefault(bigram, len(numbers))) for column, own in rows for bigram in own
    ]
    where = np.array(places, dtype=np.int64).reshape(-1, 2)
    return csr_array(
        (np.ones(len(where)), (where[:, 0], where[:, 1])), shape=(samples, max(len(numbers), 1))
    )


def diversity(
    texts: Bigrams,
    paired: PairedScores,
    split: str,
    weights: Float[np.ndarray, "draws samples_and_unseen"],
) -> tuple[Diversity, Diversity]:
    """Both measures of every group over the samples of a split: the means, and draws ``[2, draws,
    groups]`` for the lower and the upper end of their intervals; NaN where a group has too few
    texts.

    Args:
        weights: of the samples, from `saeflow.analyses.steering.resampling.bootstrap_weights`.
    """
    columns = paired.columns(split)
    distinct = texts.distinct[:, columns]
    similar = _by_prompt if paired.by_prompt else _of_all_pairs
    alike, alike_draws = similar(texts, paired, columns, weights)
    return (
        Diversity(_mean(distinct), alike),
        Diversity(mean_draws(distinct, weights, paired.unseen_of), alike_draws),
    )


def pair_similarities(present: csr_array) -> Float[np.ndarray, " pairs"]:
    """Dice coefficients of every two texts; NaN of pairs with a text that has no bigram."""
    size = present.sum(axis=1)
    with np.errstate(invalid="ignore"):
        dice = 2 * (present @ present.T).toarray() / (size[:, None] + size)
    dice[size == 0] = np.nan
    dice[:, size == 0] = np.nan
    return on_grid(dice[np.triu_indices(len(size), 1)], SCORE_GRID)


def pair_draws(
    similar: Float[np.ndarray, "groups pairs"],
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    samples: int,
    unseen: Int[np.ndarray, " groups"] | None = None,
) -> Float[np.ndarray, "2 draws groups"]:
    """Weighted means over pairs of samples, with one more sample that is like none, then with one
    that is like all.

    A sample is in many pairs, so that pairs are no sample of their own: a pair weighs the product
    of its samples' weights.

    Args:
        similar: of each pair, in the order of `numpy.triu_indices`.
        weights: of the samples, and of those that were not seen.
        samples: how many were seen.
        unseen: which of those that were not seen is each group's; None is the first for all.
    """
    first, second = np.triu_indices(samples, 1)
    at_once = max(WEIGHTS_AT_ONCE // max(len(first), 1), 1)
    draws = []
    for start in range(0, len(weights), at_once):
        own, other = np.split(weights[start : start + at_once], [samples], axis=1)
        of_pairs = [own[:, first] * own[:, second], other * own.sum(axis=1, keepdims=True)]
        on_one_grid = on_grid(np.concatenate(of_pairs, axis=1), WEIGHT_GRID)
        draws.append(mean_draws(similar, on_one_grid, unseen))
    return np.concatenate(draws, axis=1)


def _of_all_pairs(
    texts: Bigrams,
    paired: PairedScores,
    columns: Int[np.ndarray, " members"],
    weights: Float[np.ndarray, "draws samples_and_unseen"],
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, "2 draws groups"]]:
    """With one prompt the completions are the units."""
    similar = np.stack([pair_similarities(present[columns]) for present in texts.present])
    return _mean(similar), pair_draws(similar, weights, len(columns), paired.unseen_of)


def _by_prompt(
    texts: Bigrams,
    paired: PairedScores,
    columns: Int[np.ndarray, " members"],
    weights: Float[np.ndarray, "draws samples_and_unseen"],
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, "2 draws groups"]]:
    """With several prompts these are the units: each counts once, with the mean over its pairs."""
    unit = paired.samples["prompt"].gather(columns).rank("dense").to_numpy()
    prompts, first, size = np.unique(unit, return_index=True, return_counts=True)
    members = [columns[unit == prompt] for prompt in prompts]
    of_prompts = np.stack(
        [
            _mean(np.stack([pair_similarities(present[own]) for present in texts.present]))
            for own in members
        ],
        axis=1,
    )
    # the samples of a prompt share its weight
    of_units = on_grid(weights[:, first] * size.mean(), WEIGHT_GRID)
    drawn = np.concatenate([of_units, weights[:, len(columns) :]], axis=1)
    return _mean(of_prompts), mean_draws(of_prompts, drawn, paired.unseen_of)


def _mean(values: Float[np.ndarray, "groups samples"]) -> Float[np.ndarray, " groups"]:
    """The mean of what there is; NaN where there is nothing."""
    observed = (~np.isnan(values)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.nansum(on_grid(values, SCORE_GRID), axis=1) / observed
