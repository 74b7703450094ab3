"""A study judged by an OpenAI-compatible endpoint: what is asked, what is kept, what is not asked
again."""

import sqlite3

import polars as pl
import pytest
from judge_server import KEY, serving, stats
from studies import COMPLETIONS as WRITTEN
from studies import GOALS as GOAL_NAMES
from studies import METHODS as METHOD_NAMES

GOALS, METHODS = len(GOAL_NAMES), len(METHOD_NAMES)
COMPLETIONS = GOALS * METHODS * len(WRITTEN["scales"]) * WRITTEN["samples"]


def judged_by(url, **calls):
    judge = {
        "kind": "openai",
        "model": "loopback",
        "protocols": ["product", "three_way"],
    }
    price = {"input": 1000, "output": 1000}
    called = {"base_url": url, "backoff": 0.01, "price": price, **calls}
    return {"steering.judge": judge, "steering.pairs": 2, "calls": called}


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.slow
def test_a_study_is_judged_once_within_its_budget(copied, key):
    with serving() as url:
        done = copied.attempt("evaluate", config=judged_by(url, max_calls=100))
        assert done.returncode == 1
        assert "calls.max_calls: " in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert 100 - 2 * 16 <= stats(url)["answered"] <= 100 + 2 * 16

        # The summary of the judge before is no longer the study's, though the failed jobs left it
        # where it was.
        jobs = copied.run("evaluate", config=judged_by(url))
        assert jobs["summarise_scores"] == jobs["compare_pairs"] == 1
        asked = stats(url)["answered"]
        pairs = 2 * 2 * GOALS * METHODS * (METHODS - 1) // 2
        # Five questions per completion; the unsteered texts are the same for all methods, and asked
        # about once.
        assert asked <= 5 * COMPLETIONS + pairs
        assert asked < 0.9 * (5 * COMPLETIONS + pairs)

        assert copied.run("evaluate", config=judged_by(url, max_usd=1.0, concurrency=4)) == {}
        again = ("--cores", "2", "--forcerun", "judge_completions", "compare_pairs")
        jobs = copied.run("evaluate", config=judged_by(url, max_usd=1.0), args=again)
        assert jobs["judge_completions"] == GOALS
        assert stats(url)["answered"] == asked

    scores = pl.concat(
        [pl.read_parquet(file) for file in copied.results.glob("steering/*/*/scores.parquet")]
    )
    assert scores["cached"].all()
    assert scores["score"].null_count() == 0
    assert len(scores) == 5 * COMPLETIONS
    best = pl.read_parquet(copied.results / "steering/best.parquet")
    assert best["n"].drop_nulls().min() > 0
    assert (
        pl.read_parquet(copied.results / "steering/three_way.parquet").height
        == 3 * COMPLETIONS // 8
    )
    ratings = pl.read_parquet(copied.results / "steering/ratings.parquet")
    assert ratings.height == (GOALS + 1) * METHODS
    kept = [
        file
        for file in copied.directory.rglob("*")
        if file.is_file() and KEY.encode() in file.read_bytes()
    ]
    assert kept == []


def test_a_study_whose_judge_refuses_everything_fails_with_the_judges_words(copied, key):
    with serving(always="http_400") as url:
        done = copied.attempt("evaluate", config=judged_by(url))
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Unsupported parameter: 'max_tokens'" in output
    assert "change steering.judge.parameters" in output
    assert "Traceback" not in output
    with sqlite3.connect(copied.results / "judging/ledger.sqlite") as ledger:
        assert ledger.execute("SELECT count(*) FROM answers").fetchone() == (0,), (
            "no question is marked as failed"
        )
