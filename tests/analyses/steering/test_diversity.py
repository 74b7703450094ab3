"""How much completions differ: distinct bigrams, and how alike two completions are."""

from __future__ import annotations

from itertools import combinations, pairwise
from statistics import mean

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scored_study import scored_study

from saeflow.analyses.steering.diversity import pair_draws
from saeflow.analyses.steering.resampling import bootstrap_weights
from saeflow.analyses.steering.settings import Summary
from saeflow.analyses.steering.summary import Summaries, summarise
from saeflow.statistics.means import interval, mean_draws

SETTINGS = Summary(bootstrap=200)
WORDS = ("the", "sea", "was", "calm", "and", "grey", "!")


def written(prompts: tuple[str, ...] = ("I think",)) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A scored study whose completions are random words; some are empty or one word."""
    completions, scores = scored_study(samples=8, prompts=prompts)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 9))) for _ in range(len(completions))]
    return completions.with_columns(continuation=pl.Series(texts)), scores


def pairs_of_words(text: str) -> list[tuple[str, str]]:
    split = text.split()
    return list(pairwise(split))


def dice(first: str, second: str) -> float:
    own, other = set(pairs_of_words(first)), set(pairs_of_words(second))
    return 2 * len(own & other) / (len(own) + len(other))


def alike(texts: list[str]) -> float:
    return mean(dice(*pair) for pair in combinations(texts, 2))


def with_bigrams(table: pl.DataFrame) -> list[str]:
    return [text for text in table["continuation"] if len(pairs_of_words(text)) > 0]


def all_samples(summaries: Summaries) -> pl.DataFrame:
    return summaries.summary.filter(pl.col("split") == "all")


def test_distinct_bigrams_and_similarity_equal_a_count_by_hand() -> None:
    completions, scores = written()
    for row in all_samples(summarise(completions, scores, SETTINGS, 0)).iter_rows(named=True):
        texts = with_bigrams(
            completions.filter(
                pl.col("goal") == row["goal"],
                pl.col("method") == row["method"],
                pl.col("scale_index") == row["scale_index"],
            )
        )
        bigrams = [pairs_of_words(text) for text in texts]
        distinct = mean(len(set(own)) / len(own) for own in bigrams)
        assert row["distinct_2"] == pytest.approx(distinct, abs=1e-6)
        assert row["self_similarity"] == pytest.approx(alike(texts), abs=1e-6)
        assert row["distinct_2_low"] <= row["distinct_2"] <= row["distinct_2_high"]
        assert row["self_similarity_low"] < row["self_similarity"] < row["self_similarity_high"]


def test_only_completions_of_one_prompt_are_held_against_each_other() -> None:
    prompts = ("I think", "Last night", "The")
    completions, scores = written(prompts)
    for row in all_samples(summarise(completions, scores, SETTINGS, 0)).iter_rows(named=True):
        own = completions.filter(
            pl.col("goal") == row["goal"],
            pl.col("method") == row["method"],
            pl.col("scale_index") == row["scale_index"],
        )
        expected = mean(alike(with_bigrams(own.filter(prompt=prompt))) for prompt in prompts)
        assert row["self_similarity"] == pytest.approx(expected, abs=1e-6)
        assert row["self_similarity_low"] < expected < row["self_similarity_high"]


def test_diversity_of_the_chosen_scale_is_that_of_the_report_half() -> None:
    completions, scores = written()
    summaries = summarise(completions, scores, SETTINGS, 0)
    columns = [f"{name}{end}" for name in ("distinct_2", "self_similarity") for end in ("", "_low")]
    for row in summaries.best.filter(pl.col("goal") != "average").iter_rows(named=True):
        report = summaries.summary.filter(
            pl.col("goal") == row["goal"],
            pl.col("method") == row["method"],
            pl.col("scale_index") == row["scale_index"],
            pl.col("split") == "report",
        )
        assert report.select(columns).row(0) == tuple(row[name] for name in columns)
    for (_,), own in summaries.best.group_by("method"):
        averages = own.filter(goal="average")
        goals = own.filter(pl.col("goal") != "average")
        for name in ("distinct_2", "self_similarity"):
            assert averages[name][0] == pytest.approx(goals[name].mean())


def test_a_loop_and_a_text_said_by_all_are_seen() -> None:
    completions, scores = written()
    one_index = pl.col("scale_index") == 1
    texts = pl.when(one_index).then(pl.lit("la la la la la")).otherwise("continuation")
    rows = all_samples(
        summarise(completions.with_columns(continuation=texts), scores, SETTINGS, 0)
    ).filter(one_index)
    assert rows["distinct_2"].to_list() == pytest.approx([0.25] * len(rows), abs=1e-6)
    assert rows["self_similarity"].to_list() == [1.0] * len(rows)
    assert rows["self_similarity_high"].to_list() == [1.0] * len(rows)


def test_completions_without_scores_count_and_texts_without_bigrams_do_not() -> None:
    completions, scores = written()
    unscored = scores.with_columns(score=pl.lit(None, pl.Float64), reason=pl.lit("timeout"))
    columns = ["distinct_2", "self_similarity"]
    first, second = (
        all_samples(summarise(completions, judged, SETTINGS, 0)).select(columns)
        for judged in (scores, unscored)
    )
    assert first.equals(second)
    silent = completions.with_columns(continuation=pl.lit("Yes"))
    assert all_samples(summarise(silent, scores, SETTINGS, 0)).select(columns).null_count().row(
        0
    ) == (len(first), len(first))


@pytest.mark.parametrize("n", [4, 8, 32])
@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.5, 0.5), (0.6, 0.2, 0.2), (0.05,) * 20])
def test_intervals_of_similarity_cover_where_its_true_value_is_known(
    n: int, shares: tuple[float, ...]
) -> None:
    # each completion is one of a few texts, so that two are alike with the sum of squared shares
    studies = 400
    rng = np.random.default_rng(n)
    drawn = rng.choice(len(shares), (studies, n), p=shares)
    first, second = np.triu_indices(n, 1)
    similar = (drawn[:, first] == drawn[:, second]).astype(float)
    low, high = interval(pair_draws(similar, bootstrap_weights(n, 400, rng), n), 0.95)
    truth = sum(share**2 for share in shares)
    covered = ((low <= truth) & (truth <= high)).sum()
    assert stats.binom.cdf(covered, studies, 0.95) > 0.001
    assert similar.mean() == pytest.approx(truth, abs=0.05)


def test_an_interval_of_pairs_taken_for_units_would_cover_too_rarely() -> None:
    n, studies, rng = 8, 400, np.random.default_rng(0)
    drawn = rng.choice(2, (studies, n), p=(0.8, 0.2))
    first, second = np.triu_indices(n, 1)
    similar = (drawn[:, first] == drawn[:, second]).astype(float)
    weights = bootstrap_weights(len(first), 400, rng)
    low, high = interval(mean_draws(similar, weights), 0.95)
    assert ((low <= 0.68) & (high >= 0.68)).mean() < 0.9
