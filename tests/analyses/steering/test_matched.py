"""Methods at equal coherence and at equal divergence, and the second protocol's table."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from scored_study import scored_study
from steered import HOOK, tiny_lm

from saeflow.analyses.steering.comparisons import AVERAGE
from saeflow.analyses.steering.divergence import divergences
from saeflow.analyses.steering.matched import first_fall
from saeflow.analyses.steering.settings import Summary
from saeflow.analyses.steering.summary import summarise
from saeflow.analyses.steering.three_way import harmonic_mean
from saeflow.models.hooks import attach

SETTINGS = Summary(bootstrap=100, coherence_levels=[0.75, 0.2], divergence_levels=[0.5, 3.0])


def planted(goals: int = 2) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Coherence falls by 0.3, divergence rises by 1 and behaviour by 0.1 or 0.2 (method 1) at each
    of four scales."""
    completions, _ = scored_study(goals=goals, scales=4, samples=12)
    step = completions["scale_index"]
    faster = completions["method"] == "method1"
    behaviour = step * (0.1 + 0.1 * faster.cast(pl.Float64))
    scores = pl.concat(
        completions.select(
            "completion_id", criterion=pl.lit(name), score=pl.Series(values), reason=pl.lit(None)
        )
        for name, values in (("behaviour", behaviour), ("coherence", 1.0 - 0.3 * step))
    )
    return (
        completions,
        scores,
        completions.select("completion_id", kl=pl.Series(step, dtype=pl.Float64)),
    )


def test_behaviour_is_read_between_scales_where_a_planted_curve_has_the_level() -> None:
    completions, scores, kl = planted()
    matched = summarise(completions, scores, SETTINGS, 0, kl).matched
    expected = {
        ("coherence", 0.75): 0.25 / 0.3,
        ("coherence", 0.2): 0.8 / 0.3,
        ("kl", 0.5): 0.5,
        ("kl", 3.0): 3.0,
    }
    for (cost, level), steps in expected.items():
        rows = matched.filter(cost=cost, level=level)
        assert len(rows) == 6
        for row in rows.iter_rows(named=True):
            rate = 0.2 if row["method"] == "method1" else 0.1
            assert row["behaviour"] == pytest.approx(rate * steps)
            assert row["behaviour_low"] < row["behaviour"] < row["behaviour_high"]
            assert row["scale"] == (None if row["goal"] == AVERAGE else pytest.approx(0.5 * steps))
            assert row["n"] == 12


def test_a_method_that_never_comes_so_far_has_no_value_and_neither_has_its_average() -> None:
    completions, scores, kl = planted()
    short = completions.filter((pl.col("goal") != "goal1") | (pl.col("scale_index") < 3))
    left = scores.join(short, on="completion_id", how="semi")
    matched = summarise(short, left, SETTINGS, 0, kl).matched.filter(
        cost="coherence", level=0.2, method="method0"
    )
    assert matched.select("goal", pl.col("behaviour").is_null()).rows() == [
        ("goal0", False), ("goal1", True), (AVERAGE, True),
    ]  # fmt: skip


def test_without_divergences_methods_are_matched_by_coherence_alone() -> None:
    completions, scores, _ = planted()
    assert summarise(completions, scores, SETTINGS, 0).matched["cost"].unique().to_list() == [
        "coherence"
    ]


def test_intervals_at_a_level_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        completions, scores, _ = planted(goals=1)
        noisy = scores.with_columns(pl.col("score") + pl.Series(rng.normal(0, 0.05, len(scores))))
        row = summarise(completions, noisy, SETTINGS, 0).matched.row(0, named=True)
        held += row["behaviour_low"] <= 0.1 * 0.25 / 0.3 <= row["behaviour_high"]
    assert 50 <= held <= 60


def test_a_curve_that_starts_below_a_level_never_falls_to_it() -> None:
    place = first_fall(np.array([[0.5, 0.2], [1.0, 0.2], [1.0, 0.9]]), np.array([0.6, 0.6, 0.6]))
    assert place.share == pytest.approx([np.nan, 0.5, np.nan], nan_ok=True)


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("long_prompt", [1, 1000], ids=["prompts run once", "whole passes"])
def test_divergence_is_that_of_two_whole_passes_and_zero_without_steering(
    monkeypatch: pytest.MonkeyPatch, long_prompt: int
) -> None:
    monkeypatch.setattr("saeflow.judging.losses.LONG_PROMPT", long_prompt)
    lm = tiny_lm()
    vector = torch.nn.functional.normalize(
        torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0)), dim=0
    )
    prompt = lm.tokenizer.decode(lm.tokenize("the cat", bos=False))
    texts = [f"{prompt} sat", f"{prompt} ran under the tree .", prompt, None]
    table = pl.DataFrame(
        {
            "completion_id": list("abcd"),
            "prompt": [prompt] * 4,
            "text": texts,
            "scale": [0.0, 2.5, 2.5, 2.5],
        }
    )
    measured = divergences(lm, HOOK, vector, table, batch=3)["kl"].to_list()
    tokens = torch.tensor([lm.tokenize(texts[1])])
    with torch.no_grad():
        plain = lm.model(tokens).logits[0].double().log_softmax(-1)
        with attach(lm, [(HOOK, lambda resid: resid + 2.5 * vector)]):
            steered = lm.model(tokens).logits[0].double().log_softmax(-1)
    first = len(lm.tokenize(prompt))
    kl = (steered.exp() * (steered - plain)).sum(-1)[first - 1 : -1].mean().item()
    assert measured[0] == 0.0
    assert measured[1] == pytest.approx(kl, rel=1e-4)
    assert kl > 1e-4
    assert measured[2:] == [None, None]


# --- the second protocol --------------------------------------------------------------------------


def test_ratings_meet_in_their_harmonic_mean() -> None:
    ratings = np.array([[[2.0, 1.0, 2.0, 2.0]], [[2.0, 2.0, 0.0, np.nan]], [[2.0, 2.0, 2.0, 2.0]]])
    assert harmonic_mean(ratings)[0] == pytest.approx([2.0, 1.5, 0.0, np.nan], nan_ok=True)


def test_second_protocol_counts_a_completion_with_all_three_ratings_and_chooses_by_overall() -> (
    None
):
    completions, scores, _ = planted()
    step = completions["scale_index"]
    planned = {
        "concept": step / 4,
        "instruction": pl.Series([1.0] * len(step)),
        "fluency": 1.0 - 0.5 * (step > 2),
    }
    extra = pl.concat(
        completions.select(
            "completion_id",
            criterion=pl.lit(name),
            score=values.cast(pl.Float64),
            reason=pl.lit(None),
        )
        for name, values in planned.items()
    )
    lost = completions["completion_id"][0]
    extra = extra.with_columns(
        score=pl.when((pl.col("completion_id") == lost) & (pl.col("criterion") == "fluency"))
        .then(None)
        .otherwise("score")
    )
    three_way = summarise(completions, pl.concat([scores, extra]), SETTINGS, 0).three_way
    whole = three_way.filter(split="all", goal="goal0", method="method0")
    assert whole["n"].to_list() == [11, 12, 12, 12]
    assert whole["missing"].to_list() == [1, 0, 0, 0]
    assert whole["concept"].to_list() == [0.0, 0.5, 1.0, 1.5]
    assert whole["overall"].to_list() == pytest.approx(
        [0.0, 3 / (2 + 0.5 + 0.5), 3 / (1 + 0.5 + 0.5), 3 / (1 / 1.5 + 0.5 + 1)]
    )
    assert whole["selected"].to_list() == [False, False, True, False]
    assert summarise(completions, scores, SETTINGS, 0).three_way.is_empty()
