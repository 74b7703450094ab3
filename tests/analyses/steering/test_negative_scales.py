"""Scales below zero steer away from a behaviour; the unsteered control is where the scale is zero,
not the first."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scored_study import scored_study
from steered import HOOK, tiny_lm, unit_rows
from tiny_models import save_tiny_model
from typer.testing import CliRunner

from saeflow.analyses.steering.completions import absolute_scales, complete
from saeflow.analyses.steering.figures.behaviour import steered_behaviour
from saeflow.analyses.steering.figures.scales import (
    along_scale,
    goal_detail,
    pareto,
    product_by_scale,
)
from saeflow.analyses.steering.io import SteeringVector, save_vector
from saeflow.analyses.steering.settings import Completions, Summary
from saeflow.analyses.steering.summary import Summaries, summarise
from saeflow.cli.main import app
from saeflow.config.goal import Goal
from saeflow.config.sections import Judge
from saeflow.judging.losses import model_losses
from saeflow.judging.scores import score_completions

SETTINGS = Summary(bootstrap=100)
GOAL = Goal(
    title="t", criterion="c", positive=["a", "b"], negative=["c", "d"], words=["cat", "dog"]
)


def completions(scales: list[float], sign: float = 1.0) -> pl.DataFrame:
    settings = Completions(prompts=["the cat", ""], samples=5, new_tokens=8, scales=scales)
    absolute = absolute_scales(settings, mean_norm=8.0)
    return complete(tiny_lm(), HOOK, sign * unit_rows(1)[0], absolute, settings, 1, "love", "caa")


def shifted(steps: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A study of five scales, of which the one after some steps is 0."""
    done, scores = scored_study(goals=2, methods=2, scales=5, samples=12)
    return done.with_columns(scale=(pl.col("scale_index") - steps) * 0.5), scores


def summaries(steps: int) -> Summaries:
    done, scores = shifted(steps)
    kl = done.select("completion_id", kl=pl.col("scale").abs())
    return summarise(done, scores, SETTINGS, 0, kl)


def test_a_negative_scale_subtracts_what_a_positive_one_adds() -> None:
    away, towards = completions([-2.0, 0.0, 1.0]), completions([0.0, 2.0], sign=-1.0)
    subtracted = away.filter(scale=-16.0)["continuation_ids"]
    assert subtracted.equals(towards.filter(scale=16.0)["continuation_ids"])
    unsteered = away.filter(scale=0.0)["continuation_ids"]
    assert unsteered.equals(towards.filter(scale=0.0)["continuation_ids"])
    assert not subtracted.equals(unsteered)


def test_what_unsteered_text_is_compared_with_is_that_of_scale_zero() -> None:
    table = completions([-2.0, 0.0, 1.0])
    losses = model_losses(tiny_lm())
    scores = score_completions(table, GOAL, Judge(kind="lexical"), 0, losses)
    named = score_completions(
        table, GOAL, Judge(kind="lexical"), 0, losses, table.filter(scale=0.0)
    )
    assert_frame_equal(scores, named)


def test_summaries_take_the_control_from_scale_zero_wherever_it_stands() -> None:
    summary = summaries(2)
    at_zero = summary.summary.filter(scale=0.0, split="report").select(
        "goal", "method", unsteered_product="product"
    )
    of_goals = summary.best.filter(pl.col("goal") != "average").select(
        "goal", "method", "unsteered_product"
    )
    assert_frame_equal(of_goals, at_zero)


def test_methods_are_matched_along_the_scales_above_zero_where_there_are_any() -> None:
    done, scores = shifted(2)
    upper = done.filter(pl.col("scale") >= 0)
    only = summarise(upper, scores.join(upper, on="completion_id", how="semi"), SETTINGS, 0)
    columns = ["goal", "method", "cost", "level", "scale", "behaviour", "n"]
    both = summarise(done, scores, SETTINGS, 0).matched.select(columns)
    assert_frame_equal(both, only.matched.select(columns))
    assert both["behaviour"].drop_nulls().len()


def test_where_all_scales_are_negative_methods_are_matched_along_them() -> None:
    kl = summaries(4).matched.filter(cost="kl").drop_nulls("scale")
    assert len(kl)
    assert kl["scale"].to_list() == pytest.approx([-level for level in kl["level"]])


def test_of_equal_products_that_of_the_scale_nearer_to_zero_is_chosen() -> None:
    done, scores = shifted(3)
    even = scores.with_columns(score=pl.lit(0.5))
    assert set(
        summarise(done, even, SETTINGS, 0).best.filter(pl.col("goal") != "average")["scale"]
    ) == {0.0}
    away = done.filter(pl.col("scale") != 0)
    left = even.join(away, on="completion_id", how="semi")
    assert set(
        summarise(away, left, SETTINGS, 0).best.filter(pl.col("goal") != "average")["scale"]
    ) == {-0.5}


def test_figures_run_from_negative_scales_to_positive_ones_and_control_with_zero() -> None:
    summary = summaries(2)
    rows = along_scale(summary.summary)
    figure = product_by_scale(rows)
    left, right = figure.axes[0].get_xlim()
    assert left < -0.9
    assert right > 0.9
    for draw in (goal_detail, pareto):
        draw(rows)
    control = steered_behaviour(summary.summary).filter(method="unsteered")
    assert set(control["scale"]) == {0.0}


def test_a_vector_is_tried_backwards_at_the_terminal(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "llama")
    vector = tmp_path / "vector.safetensors"
    save_vector(
        vector,
        SteeringVector(
            unit_rows(1)[0], {"hook": HOOK, "goal": "love", "method": "caa", "targets": {}}
        ),
    )
    steered = CliRunner().invoke(
        app,
        [
            "steer",
            "the cat",
            "--vector",
            str(vector),
            "--scale",
            "-12.5",
            "--model",
            str(model),
            "--samples",
            "2",
        ],
    )
    assert steered.exit_code == 0, steered.output
    assert "love by caa, scale -12.5" in steered.output
