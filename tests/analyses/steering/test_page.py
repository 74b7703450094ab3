"""The pages of steering say which method wins, where, and how sure that is."""

from __future__ import annotations

import shutil
from pathlib import Path

import figure_tables as made
import polars as pl
import pytest
import report_study
import yaml
from pages import assert_whole, pages_of

from saeflow.analyses.reading import read_study
from saeflow.analyses.steering import results
from saeflow.analyses.steering.beside_scores import BesideScores
from saeflow.analyses.steering.goal_pages import GoalResults, goal_context
from saeflow.analyses.steering.method_effects import goal_means, method_effects, strongest
from saeflow.analyses.steering.methods import BY_NAME, METHODS
from saeflow.analyses.steering.page import steering_context
from saeflow.analyses.steering.report_results import Cost, SteeringFolder
from saeflow.analyses.steering.sample_texts import first_samples, sample_texts
from saeflow.endpoint.ledger import Usage
from saeflow.report.folder import StudyFolder
from saeflow.report.site import Site, palette
from saeflow.statistics.permutation import holm, smallest_p


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "tales"
    report_study.write_study(root, goals=2, figures=[])
    return root


def test_what_a_judge_cost_is_told_with_its_tokens(study: Path) -> None:
    folder = StudyFolder(study, read_study)
    steering = folder.section("steering")
    usage = [
        Usage("judge-1", "rating@1", 1000, 1011, 152_000, 9_000, 0.0234),
        Usage("own", "pair@1", 8, 8, 900, 80, None),
    ]
    results = SteeringFolder(folder, steering).results()
    context = steering_context(results, []) | {"cost": Cost(1019, 0.0234, usage)}
    site = Site(folder.results(), {}, ["saeflow.analyses.steering"])
    text = site.page("steering.html", context).decode()
    for words in (
        "1,019 calls",
        "0.02 US dollars",
        "judge-1",
        "152,000",
        "9,000",
        "0.0234",
        "no price is known",
    ):
        assert words in text


def scored(**products: float) -> pl.DataFrame:
    rows = [
        {
            "goal": goal,
            "method": method,
            "product": value,
            "product_low": value - 0.04,
            "product_high": value + 0.04,
            "unsteered_product": 0.03,
            "scale": 2.0,
            "in_sample_product": value + 0.02,
            "in_sample_scale": 3.0,
        }
        for goal in ("anger", "love", "average")
        for method, value in products.items()
    ]
    return pl.DataFrame(rows)


def compared(
    *rows: tuple[str, str, float, float],
    goals: tuple[str, ...] = ("anger", "love", "average"),
    units: int = 32,
) -> pl.DataFrame:
    """Method, other, difference and p-value of every comparison, alike for all goals."""
    table = pl.DataFrame(
        list(rows), schema=["method", "other", "difference", "p_value"], orient="row"
    ).with_columns(
        difference_low=pl.col("difference") - 0.06,
        difference_high=pl.col("difference") + 0.06,
        units=pl.lit(units, pl.Int64),
    )
    tables = pl.concat([table.with_columns(goal=pl.lit(goal)) for goal in goals])
    return tables.with_columns(p_holm=holm(tables["p_value"].to_numpy()))


def test_the_best_is_marked_only_where_every_rival_is_behind_by_the_corrected_test() -> None:
    best = scored(caa=0.62, sae_ts=0.55, random=0.05)
    far = ("caa", "random", 0.57, 0.0001), ("sae_ts", "random", 0.5, 0.0001)
    assert results.marks(best, compared(("caa", "sae_ts", 0.07, 0.016), *far), "anger") == {
        "caa": "best"
    }
    # 0.018 would do for one goal; of two goals and their average, one in twenty studies would claim
    # something.
    unsure = compared(("caa", "sae_ts", 0.07, 0.018), *far)
    assert results.marks(best, unsure, "anger") == {"caa": "tie", "sae_ts": "tie"}
    turned = compared(("sae_ts", "caa", -0.07, 0.018), ("random", "caa", -0.57, 0.0001), far[1])
    assert results.marks(best, turned, "anger") == {"caa": "tie", "sae_ts": "tie"}
    assert results.marks(best, pl.DataFrame(), "anger") == dict.fromkeys(
        ("caa", "sae_ts", "random"), "tie"
    )
    assert results.marks(scored(caa=0.5), pl.DataFrame(), "anger") == {}


@pytest.mark.parametrize(
    ("value", "low", "high", "written"),
    [
        (0.0587, 0.00022, 0.1174, "0.06 [0.0002, 0.12]"),
        (-0.0041, -0.0072, -0.0011, "-0.004 [-0.01, -0.001]"),
        (0.0041, -0.0011, 0.0072, "0.00 [0.00, 0.01]"),
        (-0.2, -0.35, -0.05, "-0.20 [-0.35, -0.05]"),
    ],
)
def test_an_interval_that_excludes_zero_is_written_so_that_it_does(
    value: float, low: float, high: float, written: str
) -> None:
    assert results.Difference(value, low, high, 0.001, 0.01, 8).worded() == written


def test_a_difference_is_turned_round_with_its_interval() -> None:
    turned = results.difference(compared(("sae", "caa", -0.2, 0.001)), "love", "caa", "sae")
    assert turned is not None
    assert turned == pytest.approx((0.2, 0.14, 0.26, 0.001, 0.003, 32))
    assert turned.sure


def test_the_headline_says_who_wins_who_loses_and_how_sure_that_is() -> None:
    best = scored(caa=0.62, sae_ts=0.55)
    ahead = " ".join(results.headline(best, compared(("caa", "sae_ts", 0.07, 0.00004))))
    assert ahead.startswith(
        "caa has the highest average product on held-out completions, 0.62 [0.58, 0.66]."
    )
    assert "ahead of sae_ts, the next, by 0.07 [0.01, 0.13] (p < 0.0001)." in ahead
    assert "The lowest is sae_ts with 0.55 [0.51, 0.59]." in ahead
    assert "in 2 (caa in 2)" in ahead
    level = " ".join(results.headline(best, compared(("caa", "sae_ts", 0.07, 0.03))))
    assert "It cannot be told apart from sae_ts" in level
    assert "In none of the 2 goals" in level
    assert "More of them are needed" not in level


def test_nothing_is_claimed_that_the_smallest_p_value_forbids_and_the_report_says_so() -> None:
    best = scored(caa=0.9, sae_ts=0.1)
    for units, possible in ((6, False), (7, True)):
        table = compared(("caa", "sae_ts", 0.8, smallest_p(units)), units=units)
        assert results.marks(best, table, "anger") == (
            {"caa": "best"} if possible else {"caa": "tie", "sae_ts": "tie"}
        )
        lines = " ".join(results.headline(best, table))
        assert ("With 6 held-out completions" in lines) == (not possible)


def test_a_method_without_scores_has_a_dash_and_no_rank() -> None:
    best = scored(caa=0.62, sae_ts=0.55, rotation=0.1).with_columns(
        product=pl.when((pl.col("method") == "rotation") & (pl.col("goal") != "love"))
        .then(None)
        .otherwise("product")
    )
    rows = results.result_rows(best, pl.DataFrame())
    assert rows[0].goal == "average of 2 goals"
    assert rows[0].cells[2].value == "–"
    assert "rotation cannot be ranked" in " ".join(results.headline(best, pl.DataFrame()))
    assert results.headline(pl.DataFrame(), pl.DataFrame()) == []


def test_scales_that_could_not_be_chosen_are_marked_and_the_intervals_say_what_they_are_for(
    tmp_path: Path,
) -> None:
    root = tmp_path / "tales"
    report_study.write_study(root, goals=2, figures=[], latents=0)
    table = root / "steering/summary.parquet"
    pl.read_parquet(table).with_columns(eligible=pl.col("scale_index") != 3).write_parquet(table)
    pages = pages_of(report_study.write_report(root, tmp_path / "report").parent)
    text = (tmp_path / "report/goal-anger.html").read_text()
    assert text.count("too few scores") == len(made.METHODS)
    assert "less than 50 % of the" in " ".join(text.split())
    assert pages
    index = " ".join((tmp_path / "report/index.html").read_text().split())
    assert "Scales that could not be chosen" in index
    steering = " ".join((tmp_path / "report/steering.html").read_text().split())
    assert (
        "95 % intervals, for more completions of the study&#39;s one prompt and for no other "
        "prompts" in steering
    )


@pytest.mark.parametrize("unit", ["norm", "absolute"])
def test_tables_tell_scales_in_the_unit_of_the_study_and_their_absolute_length(
    study: Path, tmp_path: Path, unit: str
) -> None:
    root = tmp_path / "tales"
    shutil.copytree(study, root)
    config = yaml.safe_load((root / "config.yaml").read_text())
    config["steering"]["completions"]["scale_unit"] = unit
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    output = report_study.write_report(root, tmp_path / "report").parent
    goal = " ".join((output / "goal-anger.html").read_text().split())
    multiple = made.SCALES[-1]
    both = f"{multiple:g} ({multiple * made.UNIT:.3g})"
    assert (both in goal) == (unit == "norm")
    note = {"norm": "multiples of the mean activation norm", "absolute": "the length of what is"}
    assert f"Scales are {note[unit]}" in goal
    steering = (output / "steering.html").read_text()
    chosen = pl.read_parquet(root / "steering/best.parquet").row(0, named=True)
    worded = f"{made.SCALES[chosen['scale_index']]:g} ({chosen['scale']:.3g})"
    assert (f"chosen scale {worded}" in steering) == (unit == "norm")


def test_one_goal_needs_no_average() -> None:
    best = scored(caa=0.62, sae_ts=0.55).filter(pl.col("goal") != "love")
    assert [row.goal for row in results.result_rows(best, pl.DataFrame())] == ["anger"]
    assert "product for the goal anger" in results.headline(best, pl.DataFrame())[0]


def test_samples_are_the_first_of_every_prompt_before_the_second_of_any() -> None:
    rows = [
        {"goal": "g", "method": "m", "scale_index": 0, "prompt": prompt, "sample": sample}
        for prompt in ("one", "two")
        for sample in range(4)
    ]
    chosen = first_samples(pl.DataFrame(rows), 3)
    assert chosen.select("prompt", "sample").rows() == [("one", 0), ("two", 0), ("one", 1)]


def test_side_effects_tell_targets_from_all_other_latents() -> None:
    table = pl.DataFrame(
        {
            "goal": ["g"] * 4,
            "method": ["caa"] * 4,
            "latent": range(4),
            "predicted": [2.0, 0.0, 0.1, 0.0],
            "measured": [1.5, -0.5, 0.25, 0.0],
        }
    )
    (row,) = method_effects([goal_means(table, {0: 1.0}), pl.DataFrame()])
    assert (row.target, row.predicted, row.others) == (1.5, 2.0, 0.75)
    sides = strongest(table, {2: 1.0})["caa"]
    assert [(effect.latent, effect.target) for effect in sides] == [
        (2, True),
        (0, False),
        (1, False),
        (3, False),
    ]
    assert method_effects([goal_means(table, {})]) == []


def test_the_average_over_goals_weighs_goals_alike() -> None:
    caa_alone = pl.DataFrame(
        {"method": ["caa"], "latent": [0], "predicted": [1.0], "measured": [2.0]}
    )
    other = pl.DataFrame(
        {"method": ["caa"] * 2, "latent": [0, 1], "predicted": [3.0, 0.0], "measured": [4.0, -1.0]}
    )
    (row,) = method_effects([goal_means(caa_alone, {0: 1.0}), goal_means(other, {0: 2.0})])
    assert (row.target, row.predicted, row.others) == (3.0, 2.0, 0.5)


def test_a_missing_score_is_shown_with_its_reason() -> None:
    keys = {
        "goal": ["g"],
        "method": ["m"],
        "scale_index": [0],
        "completion_id": ["c"],
        "prompt": ["p"],
        "text": ["p t"],
    }
    scores = pl.DataFrame(
        {
            "completion_id": ["c"] * 2,
            "criterion": ["behaviour", "coherence"],
            "score": [0.5, None],
            "reason": [None, "refused"],
        }
    )
    assert sample_texts(pl.DataFrame(keys), scores) == {
        "m": {"0": [["p", "p t", 0.5, None, "refused"]]}
    }


def test_methods_have_the_colours_of_the_figures() -> None:
    text = palette({method.name: method.look for method in METHODS})
    assert all(
        f".method-{name} {{ --method: {method.look.colour};" in text
        for name, method in BY_NAME.items()
    )


def test_a_study_of_sixteen_goals_is_told_whole() -> None:
    best = made.best(made.summary(16))
    rows = results.result_rows(best, made.comparisons(best))
    assert len(rows) == 17
    assert {len(row.cells) for row in rows} == {6}


def test_pages_of_steering_without_effects_tell_of_methods_and_of_no_effect(
    study: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tales"
    shutil.copytree(study, root)
    steering = yaml.safe_load((root / "config.yaml").read_text())["steering"]
    steering["vectors"]["methods"] = ["caa", "sae", "random"]
    report_study.ask_only_for(root, "steering", steering=steering)
    output = report_study.write_report(root, tmp_path / "report", study.parent / "goals").parent
    pages = pages_of(output)
    goals = {f"goal-{name}.html" for name in steering["goals"]["names"]}
    assert set(pages) == {"index.html", "steering.html", "goals.html", "saes.html", *goals}
    assert_whole(pages, output)
    assert " has the highest average product" in (output / "index.html").read_text()
    assert "Targets and side effects" not in (output / "steering.html").read_text()
    goal = (output / "goal-anger.html").read_text()
    assert "Curves" in goal
    assert 'id="side-effects"' not in goal
    for page in pages.values():
        assert not [link for link in page.links if link.startswith(("effects", "latents"))]


def test_what_a_search_chose_stands_beside_the_study_s_layer_and_the_control(study: Path) -> None:
    folder = StudyFolder(study, read_study)
    searched = SteeringFolder(folder, folder.section("steering")).results()
    context = steering_context(searched, [])
    first, control = context["searched"][:2]
    assert (first.goal, first.method, first.place) == ("average", "caa", "")
    assert (first.product, first.own_product) == ("0.47 [0.42, 0.52]", "0.24 [0.19, 0.29]")
    assert (first.over_own, first.over_random) == ("0.23 [0.18, 0.28]", "0.43 [0.38, 0.48]")
    assert (control.method, control.over_random) == ("random", "")
    places = {(row.goal, row.method): (row.place, row.own_place) for row in context["searched"]}
    assert places["anger", "caa"] == ("2, × 1", "× 1")
    assert places["anger", "random"] == ("unsteered", "unsteered")
    said = " ".join(context["headline"])
    assert "0.24 [0.19, 0.29] where only layer 1 may, a difference of 0.23 [0.18, 0.28]" in said
    assert "random, searched alike, has 0.04" in said
    text = Site(folder.results(), {}, ["saeflow.analyses.steering"]).page("steering.html", context)
    assert b"Layer and scale" in text
    assert b"0.5 nats per token" in text


def test_diversity_and_costs_stand_beside_scores_with_the_unsteered_model_first(
    study: Path,
) -> None:
    folder = StudyFolder(study, read_study)
    steering = SteeringFolder(folder, folder.section("steering")).results()
    context = steering_context(steering, [])
    table = context["beside"]
    assert table.columns == list(made.BESIDE)
    assert [row.method for row in table.rows] == ["", *made.METHODS, "few_shot"]
    assert table.rows[0].cells == ["0.97", "0.11", "0.25", "0.61", "-0.42"]
    chosen = steering.best.filter(goal="average", method="caa")
    assert table.rows[1].cells[0].startswith(f"{chosen['distinct_2'].item():.2f} [")
    site = Site(folder.results(), {}, ["saeflow.analyses.steering"])
    text = site.page("steering.html", context).decode()
    for words in ("What scores do not see", "loss on other text", "Sørensen-Dice", "right answers"):
        assert words in text
    of_goal = BesideScores.of(steering.best, steering.summary, "anger")
    assert of_goal.rows[0].cells[1] == "0.11 [0.07, 0.15]"
    goal = GoalResults("anger", {}, pl.DataFrame(), pl.DataFrame(), pl.DataFrame())
    page = site.page("goal.html", goal_context(steering, goal)).decode()
    assert "0.11 [0.07, 0.15]" in page


def test_only_what_was_measured_stands_beside_scores() -> None:
    summary = made.summary(1)
    assert BesideScores.of(made.best(summary), summary).rows == []
    diverse = made.beside_scores(summary).select(pl.exclude("^text_.*$", "^choice_.*$"))
    table = BesideScores.of(made.best(diverse), diverse)
    assert table.headings == ["distinct pairs", "alike"]
    assert len(table.rows) == 1 + len(made.METHODS)


def test_a_method_in_words_is_told_to_have_no_scale(study: Path) -> None:
    folder = StudyFolder(study, read_study)
    steering = SteeringFolder(folder, folder.section("steering")).results()
    context = steering_context(steering, [])
    assert context["in_words"] == ["few_shot"]
    assert "few_shot" in [name for name, _ in context["methods"]]
    chosen = [row for row in context["in_sample"] if row.method == "few_shot"]
    assert {row.scale for row in chosen} == {"–"}
    text = Site(folder.results(), {}, ["saeflow.analyses.steering"]).page("steering.html", context)
    assert b"steers in words in front of the prompt" in text
