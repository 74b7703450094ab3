"""Comparisons side by side, and ratings from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from judge_server import KEY, score_of, serving
from scipy.optimize import minimize
from scored_study import scored_study

from saeflow.analyses.steering.comparisons import AVERAGE
from saeflow.analyses.steering.preferences import PREFERENCES_SCHEMA, judge_pairs, pair_up
from saeflow.analyses.steering.ratings import RATINGS_SCHEMA, bradley_terry, elo, rate
from saeflow.analyses.steering.settings import Summary
from saeflow.analyses.steering.summary import summarise
from saeflow.config.sections import Calls, Judge
from saeflow.endpoint.ledger import Ledger
from saeflow.endpoint.service import Service

STRENGTH = {"a": 1200.0, "b": 1050.0, "c": 950.0, "d": 800.0}


def met(
    strength: dict[str, float], samples: int, seed: int = 0, goals: Sequence[str] = ("goal",)
) -> pl.DataFrame:
    """Preferences drawn from planted strengths."""
    rng = np.random.default_rng(seed)
    rows = [
        (
            goal,
            first,
            other,
            "I think",
            sample,
            0,
            float(rng.random() < 1 / (1 + 10 ** ((theirs - ours) / 400))),
        )
        for goal in goals
        for sample in range(samples)
        for (first, ours), (other, theirs) in combinations(strength.items(), 2)
    ]
    return pl.DataFrame(
        rows,
        schema=["goal", "method", "other", "prompt", "sample", "repeat", "preference"],
        orient="row",
    )


def test_bradley_terry_is_the_maximum_of_the_likelihood() -> None:
    wins = np.random.default_rng(0).integers(1, 20, (4, 4)).astype(float) * (1 - np.eye(4))

    def loss(strength: np.ndarray) -> float:
        odds = strength[:, None] - strength[None, :]
        return float(((wins + 0.5 * (1 - np.eye(4))) * np.log1p(np.exp(-odds))).sum())

    best = minimize(loss, np.zeros(4), tol=1e-12).x
    expected = 1000 + 400 / np.log(10) * (best - best.mean())
    assert bradley_terry(wins[None])[0] == pytest.approx(expected, abs=0.01)


def test_a_method_that_never_lost_has_a_finite_rating_and_one_that_never_played_the_mean() -> None:
    wins = np.zeros((1, 3, 3))
    wins[0, 0, 1] = 10.0
    ratings = bradley_terry(wins)[0]
    assert np.isfinite(ratings).all()
    assert ratings[0] > ratings[2] > ratings[1]


def test_elo_is_the_textbook_update_and_keeps_the_sum() -> None:
    first, second, preference = np.array([0, 1]), np.array([1, 2]), np.array([1.0, 0.5])
    rated = elo(first, second, preference, np.array([[0, 1], [1, 0]]), 3)
    assert rated[0] == pytest.approx(
        [
            1008,
            992 + 16 * (0.5 - 1 / (1 + 10 ** (8 / 400))),
            1000 + 16 * (0.5 - 1 / (1 + 10 ** (-8 / 400))),
        ]
    )
    assert rated.sum(axis=1) == pytest.approx([3000, 3000])


def test_planted_strengths_are_found() -> None:
    rating = rate(met(STRENGTH, samples=400), 100, 0.95, 0)
    assert dict(rating.schema) == RATINGS_SCHEMA
    assert rating["method"].to_list() == list(STRENGTH)
    assert rating["n"].to_list() == [1200] * 4
    assert rating["bradley_terry"].to_list() == pytest.approx(list(STRENGTH.values()), abs=40)
    assert rating["elo"].to_list() == pytest.approx(list(STRENGTH.values()), abs=80)
    assert (rating["elo_low"] < rating["elo"]).all()
    assert (rating["elo"] < rating["elo_high"]).all()


def test_intervals_hold_planted_strengths_as_often_as_they_say() -> None:
    held = []
    for seed in range(40):
        rating = rate(met(STRENGTH, samples=60, seed=seed), 100, 0.9, seed)
        truth = rating["method"].replace_strict(STRENGTH)
        held += (
            (rating["bradley_terry_low"] <= truth) & (truth <= rating["bradley_terry_high"])
        ).to_list()
    assert 0.83 < np.mean(held) < 0.97


def test_ratings_do_not_depend_on_the_order_of_rows_and_pool_the_goals() -> None:
    table = met(STRENGTH, samples=20, goals=("one", "two"))
    rating, again = (rate(rows, 100, 0.95, 0) for rows in (table, table))
    assert rating.equals(again)
    assert rating["goal"].unique(maintain_order=True).to_list() == ["one", "two", AVERAGE]
    assert rating.filter(goal=AVERAGE)["n"].to_list() == [120] * 4
    assert rate(table.clear(), 100, 0.95, 0).is_empty()


def test_pairs_are_held_out_samples_at_the_chosen_scales() -> None:
    completions, scores = scored_study(goals=2, methods=3, scales=3, samples=10)
    completions = completions.with_columns(text=pl.concat_str(pl.lit("I think "), "completion_id"))
    best = summarise(completions, scores, Summary(bootstrap=100), 0).best
    pairs = pair_up(completions, best, 4, 0.5, 0)
    assert pairs.group_by("goal", "method", "other").len()["len"].to_list() == [4] * 6
    chosen = {
        (row["goal"], row["method"]): row["scale_index"] for row in best.iter_rows(named=True)
    }
    for row in pairs.iter_rows(named=True):
        for method, text in ((row["method"], row["text"]), (row["other"], row["other_text"])):
            goal, number = row["goal"][-1], method[-1]
            scale = chosen[row["goal"], method]
            assert text == f"I think {goal}/{number}/{scale}/I think/{row['sample']}"
    # The same samples for all, none of which helped to choose a scale.
    assert pairs["sample"].n_unique() == 4
    everything = pair_up(completions, best, 100, 0.5, 0)
    changed = scores.filter(
        pl.col("completion_id")
        .str.extract(r"(\d+)$")
        .cast(pl.Int64)
        .is_in(everything["sample"].unique().to_list())
        .not_()
    )
    kept = best.filter(pl.col("goal") != AVERAGE)["scale_index"].to_list()
    again = summarise(completions, changed, Summary(bootstrap=100, least_scored=0.0), 0).best
    assert again.filter(pl.col("goal") != AVERAGE)["scale_index"].to_list() == kept


def test_a_judge_that_likes_what_stands_first_prefers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    pairs = pl.DataFrame(
        {
            "goal": ["sea"] * 30, "method": ["a"] * 30, "other": ["b"] * 30, "prompt": ["I"] * 30,
            "sample": range(30), "repeat": [0] * 30,
            "text": [f"I {i}" for i in range(30)], "other_text": [f"I not {i}" for i in range(30)],
        }
    )  # fmt: skip
    with serving() as url:
        judge = Judge(kind="openai", model="m")
        service = Service(judge, Calls(base_url=url), Ledger(tmp_path / "ledger.sqlite"))
        judged = judge_pairs(pairs, {"sea": "c"}, service)
        assert service.ledger.spent().calls == 60
    assert dict(judged.schema) == PREFERENCES_SCHEMA
    for row, text, other in zip(
        judged.iter_rows(named=True), pairs["text"], pairs["other_text"], strict=True
    ):
        ours, theirs = score_of("c", text), score_of("c", other)
        assert row["preference"] == (1.0 if ours > theirs else 0.5 if ours == theirs else 0.0)
    with serving(first="yes") as url:
        judge = Judge(kind="openai", model="partial")
        partial = judge_pairs(
            pairs,
            {"sea": "c"},
            Service(judge, Calls(base_url=url), Ledger(tmp_path / "ledger.sqlite")),
        )
    assert partial["preference"].to_list() == [0.5] * 30
    assert set(partial["shown_first"]) == set(partial["shown_second"]) == {"A"}


def test_a_comparison_with_one_answer_missing_has_a_reason_and_no_preference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    pairs = pl.DataFrame(
        {
            "goal": ["sea"], "method": ["a"], "other": ["b"], "prompt": ["I"], "sample": [0],
            "repeat": [0],
            "text": ["I am"], "other_text": ["I was"],
        }
    )  # fmt: skip
    with serving(rates='{"refusal": 1.0}') as url:
        judge = Judge(kind="openai", model="m")
        judged = judge_pairs(
            pairs,
            {"sea": "c"},
            Service(judge, Calls(base_url=url), Ledger(tmp_path / "ledger.sqlite")),
        )
    assert judged.select("preference", "reason").row(0) == (None, "refused: I would rather not.")
