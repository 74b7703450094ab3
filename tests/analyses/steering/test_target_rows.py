"""The report tells which latents a study aimed at, how sure that is, and what it cost where the
best are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import report_study
import yaml

from saeflow.analyses.steering.choice import TARGETS_SCHEMA
from saeflow.analyses.steering.tables import of_chosen_latents
from saeflow.analyses.steering.target_rows import Planted, sentences, target_rows

GOALS = ("anger", "love")
RECOVERY = pl.DataFrame(
    {
        "label": ["syntax", "topic", "topic"],
        "feature": ["anger", "anger", "love"],
        "detectors": [[1], [5, 9], [7, 5]],
        "detectors_f1": [[0.99], [0.6, 0.2], [0.7, 0.5]],
    }
)


def targets(**second: Any) -> pl.DataFrame:
    common = {"weight": 1.0, "source": "chosen", "score": 0.5, "shared_with": "", "rank": 1}
    held = {"held_out_neutral": 1.0, "held_out_others": 0.9, "runner_up": 3, "margin": 0.1}
    rows = [{"goal": goal, "latent": 5, "chosen": 0.9, **common, **held} for goal in GOALS]
    return pl.DataFrame([rows[0], rows[1] | second], schema=TARGETS_SCHEMA)


def best() -> pl.DataFrame:
    values = {"caa": 0.6, "sae": 0.4, "sae_planted": 0.5}
    rows = [
        {
            "goal": goal,
            "method": name,
            "product": value,
            "product_low": value - 0.1,
            "product_high": value + 0.1,
        }
        for goal in (*GOALS, "average")
        for name, value in values.items()
    ]
    return pl.DataFrame(rows)


def comparisons() -> pl.DataFrame:
    rows = [
        {
            "goal": goal,
            "method": "sae",
            "other": "sae_planted",
            "difference": -0.1,
            "difference_low": -0.15,
        }
        | {"difference_high": -0.05, "p_value": 0.001, "p_holm": 0.01, "units": 32}
        for goal in (*GOALS, "average")
    ]
    return pl.DataFrame(rows)


def test_targets_are_told_with_the_planted_latent_beside_them() -> None:
    first, second = target_rows(targets(chosen=0.4), RECOVERY, {})
    assert (first.latent, first.f1, first.planted, first.planted_f1, first.best) == (
        5,
        0.6,
        5,
        0.6,
        True,
    )
    assert (second.latent, second.f1, second.planted, second.planted_f1, second.best) == (
        5,
        0.5,
        7,
        0.7,
        False,
    )
    assert (first.chosen, first.sure, second.chosen, second.sure) == ("90 %", True, "40 %", False)
    assert sentences([first, second]) == [
        "Of 2 target latents 1 are chosen again in at least 80 % of resamples of the example "
        "texts; the others are love 40 %.",
        "1 of 2 targets detect their planted topic best of all latents, by F1.",
    ]
    other_topic = target_rows(targets(), RECOVERY, {"anger": "love"})[0]
    assert other_topic.planted == 7
    beyond = target_rows(targets(latent=88), RECOVERY, {})[1]
    assert (beyond.f1, beyond.planted, beyond.best) == (None, 7, False)


def test_shared_targets_and_those_that_goals_name_are_marked() -> None:
    named = {
        "source": "goal",
        "chosen": None,
        "held_out_neutral": None,
        "held_out_others": None,
        "runner_up": None,
    }
    rows = target_rows(targets(shared_with="anger", **named), pl.DataFrame(), {})
    assert rows[1].shared_with == ["anger"]
    assert (rows[1].chosen, rows[1].sure, rows[1].held_out, rows[1].runner_up) == (
        "–",
        False,
        "–",
        "",
    )
    lines = sentences(rows)
    assert lines[0].startswith("Of 1 target latents 1 are chosen again"), (
        "nothing was chosen for a goal that names its own"
    )
    assert lines[1].startswith("love share targets")
    assert len(lines) == 2, "nothing was planted"
    assert sentences([]) == []


def test_what_the_choice_of_latents_costs_is_told_apart_from_the_method() -> None:
    rows = target_rows(targets(), RECOVERY, {})
    planted = Planted.of(best(), comparisons(), rows)
    assert planted.methods == ["sae"]
    assert [row.goal for row in planted.rows] == ["average", *GOALS]
    average, anger, love = (row.cells[0] for row in planted.rows)
    assert average.difference == "0.10 [0.05, 0.15]"
    assert (anger.same, love.same) == (True, False)
    assert planted.sentences == [
        "With the latents that detect the planted topics best, sae has an average product of 0.50 "
        "[0.40, 0.60] in place of 0.40 [0.30, 0.50]: the choice of latents accounts for 0.10 "
        "[0.05, 0.15]."
    ]
    all_best = target_rows(targets(latent=7), RECOVERY, {})
    assert [row.best for row in all_best] == [True, True]
    assert Planted.of(best(), comparisons(), all_best).sentences == [
        "Every goal has the latent that detects its topic best, so what a method lacks is not "
        "lacking in the choice of latents."
    ]
    assert Planted.of(of_chosen_latents(best()), comparisons(), rows) == Planted()
    assert Planted.of(pl.DataFrame(), pl.DataFrame(), []) == Planted()


def test_methods_with_planted_latents_take_no_part_in_which_method_wins(tmp_path: Path) -> None:
    study = tmp_path / "tales"
    report_study.write_study(study, figures=(), latents=0)
    names = yaml.safe_load((study / "config.yaml").read_text())["steering"]["goals"]["names"]
    two = targets(chosen=0.4).with_columns(
        goal=pl.Series(names), shared_with=pl.Series([names[1], names[0]])
    )
    two.write_parquet(study / "steering/targets.parquet")
    recovery = RECOVERY.with_columns(feature=pl.Series(["x", *names]))
    measured = pl.read_parquet(study / "saes/main/recovery.parquet").join(
        recovery, on="feature", how="semi"
    )
    measured = measured.drop("detectors", "detectors_f1")
    measured.join(recovery.drop("label"), on="feature").write_parquet(
        study / "saes/main/recovery.parquet"
    )
    table = pl.read_parquet(study / "steering/best.parquet")
    winner = table.filter(method="sae").with_columns(
        method=pl.lit("sae_planted"), product=pl.lit(0.999)
    )
    pl.concat([table, winner]).write_parquet(study / "steering/best.parquet")
    report_study.write_report(study, tmp_path / "report", tmp_path / "goals")
    page = (tmp_path / "report/steering.html").read_text(encoding="utf-8")
    assert "sae_planted has the highest" not in page
    assert "1 of 2 targets detect their planted topic best of all latents, by F1." in page
    assert "Method or choice of latent" in page
    assert "1.00" in page.split("Method or choice of latent")[1]
    sure, unsure = (
        (tmp_path / f"report/goal-{name}.html").read_text(encoding="utf-8") for name in names
    )
    assert "choose 5 again in 90 %." in sure
    assert "choose 5 again in 40 %, so its choice is <b>unsure</b>." in unsure
    assert (
        f"5 is also a target of {names[1].replace('_', ' ')}: their vectors are the same." in sure
    )
