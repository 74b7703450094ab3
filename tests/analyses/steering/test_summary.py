"""The tables of scores: pairing, halves, intervals, tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats
from scored_study import scored_study

from saeflow.analyses.steering.comparisons import AVERAGE
from saeflow.analyses.steering.pairs import pair_scores
from saeflow.analyses.steering.resampling import bootstrap_weights, contrast, exchanged, means
from saeflow.analyses.steering.settings import Summary
from saeflow.analyses.steering.summary import Summaries, summarise
from saeflow.analyses.steering.summary_io import SCHEMAS, read_summaries, write_summaries
from saeflow.errors import SaeflowError
from saeflow.judging.io import read_scores, write_scores

SETTINGS = Summary(bootstrap=200)


def row(table: pl.DataFrame, **where: str | int) -> dict[str, object]:
    return table.row(
        by_predicate=pl.all_horizontal(pl.col(key) == value for key, value in where.items()),
        named=True,
    )


def test_pairs_stay_together_when_scores_are_missing() -> None:
    completions, scores = scored_study(lost=0.1, prompts=("I think", "Last night"))
    summary = summarise(completions, scores, SETTINGS, 0).summary
    by_id = {(name, criterion): score for name, criterion, score, _ in scores.iter_rows()}
    for row in summary.filter(pl.col("split") == "all").iter_rows(named=True):
        pairs = [
            (by_id[c["completion_id"], "behaviour"], by_id[c["completion_id"], "coherence"])
            for c in completions.iter_rows(named=True)
            if (c["goal"], c["method"], c["scale_index"])
            == (row["goal"], row["method"], row["scale_index"])
        ]
        both = [pair for pair in pairs if None not in pair]
        assert row["n"] == len(both)
        assert row["missing"] == len(pairs) - len(both)
        assert row["behaviour"] == pytest.approx(np.mean([pair[0] for pair in both]))
        assert row["coherence"] == pytest.approx(np.mean([pair[1] for pair in both]))
        assert row["product"] == pytest.approx(
            np.mean([pair[0] for pair in both]) * np.mean([pair[1] for pair in both])
        )
        lost = {
            kind: sum(pair[i] is None for pair in pairs)
            for i, kind in enumerate(("behaviour", "coherence"))
        }
        for criterion, count in lost.items():
            assert (f"{criterion}: timeout ({count})" in row["reasons"]) == (count > 0)


def test_halves_are_disjoint_exhaustive_and_the_same_for_every_group() -> None:
    completions, scores = scored_study(samples=15)
    summary = summarise(completions, scores, Summary(bootstrap=100, selection=0.4), 0).summary
    counts = summary.pivot("split", index=["goal", "method", "scale"], values="n")
    assert set(counts["all"]) == {15}
    assert set(counts["selection"]) == {6}
    assert set(counts["report"]) == {9}
    of_one = (
        completions.filter(pl.col("goal") == "goal1"),
        scores.filter(pl.col("completion_id").str.starts_with("1/")),
    )
    alone = summarise(*of_one, Summary(bootstrap=100, selection=0.4), 0)
    assert_frame_equal(alone.summary, summary.filter(pl.col("goal") == "goal1"))


def test_a_prompt_named_twice_has_twice_the_samples() -> None:
    completions, scores = scored_study(samples=8, prompts=("I think", "Last night"))
    twice = completions.with_columns(prompt=pl.lit("I think"))
    summary = summarise(twice, scores, SETTINGS, 0).summary
    assert set(summary.filter(pl.col("split") == "all")["n"]) == {16}
    expected = summarise(completions, scores, SETTINGS, 0).summary
    columns = ["goal", "method", "scale_index", "behaviour", "coherence", "product"]
    of_all = pl.col("split") == "all"
    assert_frame_equal(
        summary.filter(of_all).select(columns), expected.filter(of_all).select(columns)
    )


def test_both_halves_hold_every_prompt_and_change_with_the_seed() -> None:
    completions, scores = scored_study(
        goals=1, methods=1, samples=32, prompts=("I think", "Last night", "One day")
    )
    paired, other = (pair_scores(completions, scores, 0.5, seed) for seed in (0, 1))
    for split in ("selection", "report"):
        assert set(paired.samples[paired.columns(split)]["prompt"]) == set(completions["prompt"])
    chosen = [set(each.samples[each.columns("selection")].iter_rows()) for each in (paired, other)]
    assert len(chosen[0]) == len(chosen[1]) == 48
    assert 10 < len(chosen[0] & chosen[1]) < 38


def test_the_order_of_rows_does_not_matter() -> None:
    completions, scores = scored_study(lost=0.1)
    first = summarise(completions, scores, SETTINGS, 0)
    shuffled = completions.sample(fraction=1, shuffle=True, seed=1)
    second = summarise(shuffled, scores.sample(fraction=1, shuffle=True, seed=2), SETTINGS, 0)
    keys = ["goal", "method", "scale_index"]
    assert_frame_equal(first.summary.sort(*keys, "split"), second.summary.sort(*keys, "split"))
    assert_frame_equal(first.best.sort(*keys), second.best.sort(*keys))


def test_the_chosen_scale_never_sees_the_report_half() -> None:
    completions, scores = scored_study(goals=3, methods=3, scales=6, samples=20)
    before = summarise(completions, scores, SETTINGS, 0)
    for trial in range(5):
        changed = _with_report_scores_redrawn(completions, scores, trial)
        after = summarise(completions, changed, SETTINGS, 0)
        columns = ["goal", "method", "scale_index", "selection_product"]
        assert_frame_equal(before.best.select(columns), after.best.select(columns))
        assert not before.best["product"].equals(after.best["product"])


def _with_report_scores_redrawn(
    completions: pl.DataFrame, scores: pl.DataFrame, seed: int
) -> pl.DataFrame:
    paired = pair_scores(completions, scores, 0.5, 0)
    report = paired.samples[paired.columns("report")]
    ids = completions.join(report, on=["prompt", "sample"], how="semi")["completion_id"]
    drawn = pl.Series(np.random.default_rng(seed).random(len(scores)))
    redrawn = (
        pl.when(pl.col("completion_id").is_in(ids.to_list())).then(drawn).otherwise(pl.col("score"))
    )
    return scores.with_columns(redrawn.alias("score"))


def test_the_in_sample_maximum_is_optimistic_on_noise_and_the_report_half_is_not() -> None:
    completions, scores = scored_study(goals=40, methods=1, scales=10, samples=16)
    best = summarise(completions, scores, Summary(bootstrap=100), 0).best.filter(
        pl.col("goal") != AVERAGE
    )
    truth = 0.25  # the product of two means of uniform scores, at every scale
    assert best["in_sample_product"].mean() > truth + 0.05
    assert best["in_sample_product"].mean() > best["product"].mean()
    assert best["selection_product"].mean() > truth + 0.05
    error = best["product"].std() / np.sqrt(len(best))
    assert abs(best["product"].mean() - truth) < 3 * error


def test_exchanging_labels_equals_a_loop_over_samples() -> None:
    rng = np.random.default_rng(8)
    first, second = (
        (rng.random((2, 7)), rng.random((2, 7))),
        (rng.random((2, 7)), rng.random((2, 7))),
    )
    for scores in (*first, *second):
        scores[1, 3] = np.nan
    exchange = rng.integers(0, 2, size=(50, 7)).astype(bool)
    differences = exchanged(first, second, exchange)
    for pair in range(2):
        kept = [sample for sample in range(7) if not np.isnan(second[0][pair, sample])]
        for permutation in range(50):
            sides: list[list[tuple[float, float]]] = [[], []]
            for sample in kept:
                ours, theirs = (
                    (group[0][pair, sample], group[1][pair, sample]) for group in (first, second)
                )
                swapped = int(exchange[permutation, sample])
                sides[swapped].append(ours)
                sides[1 - swapped].append(theirs)
            products = [np.prod(np.mean(side, axis=0)) for side in sides]
            assert differences[permutation, pair] == pytest.approx(products[0] - products[1])


def test_a_comparison_has_the_p_value_of_scipys_exact_permutation_test() -> None:
    rng = np.random.default_rng(9)
    first, second = (
        (rng.random((3, 10)), np.ones((3, 10))),
        (rng.random((3, 10)) ** 2, np.ones((3, 10))),
    )
    unit = np.arange(10)
    weights = bootstrap_weights(10, 100, rng)
    compared = contrast(first, second, weights, unit, rng, averages=[np.arange(3)])
    assert compared.units.tolist() == [10] * 4
    for pair in range(3):
        theirs = stats.permutation_test(
            (first[0][pair], second[0][pair]),
            lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
            permutation_type="samples", n_resamples=np.inf, vectorized=True,
        )  # fmt: skip
        assert compared.p_value[pair] == pytest.approx(theirs.pvalue)
    averaged = stats.permutation_test(
        (first[0].mean(axis=0), second[0].mean(axis=0)),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        permutation_type="samples", n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert compared.p_value[3] == pytest.approx(averaged.pvalue)
    assert compared.first[3] == pytest.approx(first[0].mean())


def test_several_prompts_are_the_units_of_intervals_and_of_exchanges() -> None:
    completions, scores = scored_study(
        goals=1, methods=2, scales=2, samples=16, prompts=("I think", "Last night", "One day")
    )
    units = summarise(completions, scores, SETTINGS, 0).comparisons["units"]
    assert units.to_list() == [3, 3]
    of_one = completions.with_columns(
        prompt=pl.lit("I think"), sample=pl.int_range(pl.len()).over("method", "scale")
    )
    assert summarise(of_one, scores, SETTINGS, 0).comparisons["units"].to_list() == [24, 24]


def test_comparisons_find_the_better_method_and_average_over_goals() -> None:
    def better(rng: np.random.Generator, method: int, scale: int) -> float:
        return float(np.clip(rng.normal(0.3 + 0.4 * (method == 1 and scale == 2), 0.1), 0, 1))

    completions, scores = scored_study(goals=3, methods=3, samples=32, draw=better)
    summaries = summarise(completions, scores, SETTINGS, 0)
    assert set(
        summaries.best.filter((pl.col("method") == "method1") & (pl.col("goal") != AVERAGE))[
            "scale_index"
        ]
    ) == {2}
    average = row(summaries.comparisons, goal=AVERAGE, method="method0", other="method1")
    of_goals = summaries.comparisons.filter(
        (pl.col("goal") != AVERAGE)
        & (pl.col("method") == "method0")
        & (pl.col("other") == "method1")
    )
    assert len(of_goals) == 3
    assert average["difference"] == pytest.approx(of_goals["difference"].mean())
    assert average["difference_low"] < average["difference"] < average["difference_high"] < 0
    assert average["p_value"] < 1e-3
    assert (
        row(summaries.comparisons, goal=AVERAGE, method="method0", other="method2")["p_value"]
        > 0.01
    )
    best = row(summaries.best, goal=AVERAGE, method="method1")
    goals = summaries.best.filter((pl.col("goal") != AVERAGE) & (pl.col("method") == "method1"))
    for column in (
        "product",
        "behaviour",
        "in_sample_product",
        "unsteered_product",
        "selection_product",
    ):
        assert best[column] == pytest.approx(goals[column].mean())
    assert best["product_low"] < best["product"] < best["product_high"]
    assert (
        best["unsteered_product_low"] < best["unsteered_product"] < best["unsteered_product_high"]
    )
    assert (
        best["product_high"] - best["product_low"]
        < (goals["product_high"] - goals["product_low"]).mean()
    )


def test_methods_with_planted_latents_make_no_claim_of_the_others_weaker() -> None:
    def better(rng: np.random.Generator, method: int, scale: int) -> float:
        return float(np.clip(rng.normal(0.3 + 0.12 * (method == 0), 0.2), 0, 1))

    completions, scores = scored_study(goals=2, methods=4, samples=32, draw=better)
    columns = ["goal", "method", "other"]

    def corrected(called: str) -> pl.DataFrame:
        named = completions.with_columns(pl.col("method").replace("method3", called))
        summaries = summarise(named, scores, SETTINGS, 0).comparisons
        own = ~pl.any_horizontal(pl.col("method", "other").is_in(["method3", "sae_planted"]))
        return summaries.filter(own).select(*columns, "p_value", "p_holm")

    apart, together = corrected("sae_planted"), corrected("method3")
    assert apart["p_value"].equals(together["p_value"])
    assert (apart["p_holm"] < together["p_holm"]).any()
    assert apart["p_holm"].min() == pytest.approx(min(1.0, len(apart) * apart["p_value"].min()))


def test_the_best_rows_are_rows_of_the_summary() -> None:
    summaries = summarise(*scored_study(scales=5, lost=0.1), SETTINGS, 0)
    for best in summaries.best.filter(pl.col("goal") != AVERAGE).iter_rows(named=True):
        where = {"goal": best["goal"], "method": best["method"]}
        report = row(summaries.summary, **where, scale_index=best["scale_index"], split="report")
        assert report["selected"]
        assert all(
            best[column] == report[column]
            for column in ("scale", "product", "product_low", "behaviour_high", "n")
        )
        of_all = summaries.summary.filter(
            (pl.col("goal") == best["goal"]) & (pl.col("method") == best["method"])
        )
        chosen_among = of_all.filter("eligible")
        assert (
            best["in_sample_product"]
            == chosen_among.filter(pl.col("split") == "all")["product"].max()
        )
        assert (
            best["selection_product"]
            == chosen_among.filter(pl.col("split") == "selection")["product"].max()
        )
        assert (
            best["unsteered_product"]
            == row(summaries.summary, **where, scale_index=0, split="report")["product"]
        )


def test_a_group_without_a_pair_has_null_values_and_is_never_chosen() -> None:
    completions, scores = scored_study(goals=2, methods=2, scales=3)
    gone = pl.col("completion_id").str.starts_with("0/1/") | pl.col(
        "completion_id"
    ).str.starts_with("1/1/2/")
    scores = scores.with_columns(
        score=pl.when(gone & (pl.col("criterion") == "coherence"))
        .then(None)
        .otherwise(pl.col("score")),
        reason=pl.when(gone & (pl.col("criterion") == "coherence"))
        .then(pl.lit("refused"))
        .otherwise(pl.col("reason")),
    )
    summaries = summarise(completions, scores, SETTINGS, 0)
    empty = row(summaries.summary, goal="goal0", method="method1", scale_index=1, split="all")
    assert (empty["n"], empty["missing"], empty["product"], empty["product_low"]) == (
        0,
        16,
        None,
        None,
    )
    assert empty["reasons"] == "coherence: refused (16)"
    best = row(summaries.best, goal="goal0", method="method1")
    assert (
        best["scale"],
        best["product"],
        best["in_sample_product"],
        best["unsteered_product"],
    ) == (None,) * 4
    assert row(summaries.best, goal="goal1", method="method1")["scale_index"] != 2
    assert row(summaries.best, goal=AVERAGE, method="method1")["product"] is None
    assert row(summaries.best, goal=AVERAGE, method="method0")["product"] is not None
    comparison = row(summaries.comparisons, goal="goal0", method="method0", other="method1")
    assert (comparison["n"], comparison["difference"], comparison["p_value"]) == (0, None, None)
    assert (
        row(summaries.comparisons, goal=AVERAGE, method="method0", other="method1")["difference"]
        is None
    )


def test_completions_without_any_score_are_missing_with_a_reason() -> None:
    completions, scores = scored_study(goals=1, methods=1, scales=2)
    summaries = summarise(
        completions, scores.filter(~pl.col("completion_id").str.starts_with("0/0/1/")), SETTINGS, 0
    )
    unjudged = row(summaries.summary, goal="goal0", method="method0", scale_index=1, split="all")
    assert unjudged["reasons"] == "behaviour: not judged (16); coherence: not judged (16)"
    nothing = summarise(completions, scores.clear(), SETTINGS, 0)
    assert nothing.best["product"].is_null().all()


def test_a_scale_whose_completions_are_mostly_without_scores_is_not_chosen() -> None:
    """The judge answers for a few lucky completions of the largest scale, which all score 1."""
    completions, scores = scored_study(
        goals=2, methods=1, scales=3, samples=32, draw=lambda rng, _m, _s: rng.random() / 2
    )
    at_largest = completions.filter(scale_index=2).with_columns(
        rank=pl.int_range(pl.len()).over("goal")
    )

    def judged(share: float) -> pl.DataFrame:
        lost = at_largest.filter(pl.col("rank") >= share * 32)["completion_id"].implode()
        kept = at_largest.filter(pl.col("rank") < share * 32)["completion_id"].implode()
        return scores.with_columns(
            score=pl.when(pl.col("completion_id").is_in(lost))
            .then(None)
            .when(pl.col("completion_id").is_in(kept))
            .then(1.0)
            .otherwise("score")
        )

    few, most = (summarise(completions, judged(share), SETTINGS, 0) for share in (0.25, 0.9))
    for goal in ("goal0", "goal1"):
        chosen = row(few.best, goal=goal, method="method0")
        assert chosen["scale_index"] != 2
        assert chosen["in_sample_scale_index"] != 2
        largest = row(few.summary, goal=goal, method="method0", scale_index=2, split="all")
        assert (largest["eligible"], largest["selected"], largest["product"]) == (False, False, 1.0)
        assert row(most.best, goal=goal, method="method0")["scale_index"] == 2
    anything = summarise(completions, judged(0.25), Summary(bootstrap=100, least_scored=0.0), 0)
    assert row(anything.best, goal="goal0", method="method0")["scale_index"] == 2
    nothing = summarise(
        completions.filter(scale_index=2),
        judged(0.25).join(at_largest, "completion_id", "semi"),
        SETTINGS,
        0,
    )
    assert nothing.best["scale"].is_null().all()
    assert nothing.best.filter(goal="goal0")["product"].is_null().all()


def test_a_scale_is_judged_by_the_half_that_has_fewer_scores() -> None:
    completions, scores = scored_study(goals=1, methods=1, scales=2, samples=32)
    paired = pair_scores(completions, scores, 0.5, 0)
    report = paired.samples[paired.columns("report")]
    lost = completions.filter(scale_index=1).join(report, on=["prompt", "sample"], how="semi")[
        "completion_id"
    ]
    without = scores.with_columns(
        score=pl.when(pl.col("completion_id").is_in(lost.implode())).then(None).otherwise("score")
    )
    assert pair_scores(completions, without, 0.5, 0).scored(0.5).tolist() == [True, False]


def test_one_method_makes_no_comparison_and_one_sample_leaves_a_wide_interval() -> None:
    summaries = summarise(*scored_study(goals=1, methods=1, samples=1), SETTINGS, 0)
    assert summaries.comparisons.is_empty()
    first = row(summaries.summary, goal="goal0", method="method0", scale_index=0, split="all")
    assert 0 <= first["product_low"] < first["product"] < first["product_high"] <= 1
    assert first["behaviour_high"] - first["behaviour_low"] > 0.9
    assert row(summaries.best, goal="goal0", method="method0")["product"] is None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c, s: (pl.concat([c, c[:1]]), s), "same completion_id"),
        (lambda c, s: (c, pl.concat([s, s[:1]])), "two scores"),
        (lambda c, s: (c[1:], s), "other completions"),
        (lambda c, s: (c.with_columns(goal=pl.lit("average")), s), "'average'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    spoil: Callable[..., tuple[pl.DataFrame, pl.DataFrame]], says: str
) -> None:
    with pytest.raises(SaeflowError, match=says):
        summarise(*spoil(*scored_study(goals=1)), SETTINGS, 0)


def test_tables_survive_the_disk(tmp_path: Path) -> None:
    folder = tmp_path
    completions, scores = scored_study(lost=0.1)
    full = scores.with_columns(judge=pl.lit("planted"), attempt=pl.lit(1), cached=pl.lit(False))
    write_scores(folder / "scores.parquet", full)
    assert_frame_equal(read_scores(folder / "scores.parquet"), full, check_dtypes=False)
    summaries = summarise(completions, scores, SETTINGS, 0)
    write_summaries(folder, summaries)
    for name, table, read in zip(Summaries._fields, summaries, read_summaries(folder), strict=True):
        assert dict(table.schema) == SCHEMAS[name]
        assert_frame_equal(read, table)
        assert_frame_equal(pl.read_csv(folder / f"{name}.csv", schema=SCHEMAS[name]), table)
    with pytest.raises(SaeflowError, match="other columns"):
        read_scores(folder / "best.parquet")
    (folder / "scores.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(SaeflowError, match="no whole Parquet table"):
        read_scores(folder / "scores.parquet")
    with pytest.raises(SaeflowError, match="no such file"):
        read_scores(folder / "absent.parquet")


def test_a_study_of_the_papers_size_takes_seconds() -> None:
    completions, scores = scored_study(goals=9, methods=6, scales=8, samples=64)
    start = time.perf_counter()
    summaries = summarise(completions, scores, Summary(bootstrap=1000), 0)
    assert time.perf_counter() - start < 20
    assert len(summaries.summary) == 9 * 6 * 8 * 3
    assert len(summaries.comparisons) == (9 + 1) * 15


def test_means_are_the_same_to_the_last_bit_in_whatever_order_samples_are_added() -> None:
    draw = np.random.default_rng(0)
    scores, weights = draw.random((2, 50, 64)), bootstrap_weights(64, 200, draw)
    plain, drawn = means(*scores), means(*scores, weights)
    for _ in range(5):
        order = draw.permutation(64)
        assert all(map(np.array_equal, means(*scores[:, :, order]), plain))
        assert all(
            map(np.array_equal, means(*scores[:, :, order], weights[:, [*order, 64]]), drawn)
        )
