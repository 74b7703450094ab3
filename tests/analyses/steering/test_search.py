"""The search over layers and scales: what is tried, what is chosen, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from steered import HOOK, tiny_lm, unit_rows
from studies import study_config
from tiny_models import tiny_tokens

from saeflow.activations.exclusion import capture_kept
from saeflow.analyses.steering.completions import complete
from saeflow.analyses.steering.divergence import divergences
from saeflow.analyses.steering.examples import residuals
from saeflow.analyses.steering.io import SteeringVector
from saeflow.analyses.steering.search import UNSTEERED
from saeflow.analyses.steering.search.candidates import (
    LayerVectors,
    build_at,
    complete_layer,
    hook_behind,
    layer_divergences,
    mean_norms,
)
from saeflow.analyses.steering.search.selection import Choices, choose_within
from saeflow.analyses.steering.settings import Completions, Search, Summary
from saeflow.config import Goal, Sampling
from saeflow.config.sections import Activations
from saeflow.errors import SaeflowError
from saeflow.judging.scores import SCORES_SCHEMA
from saeflow.kinds import check_any_study

GOAL = Goal(
    title="Cats",
    criterion="The text is about a cat.",
    positive=["the cat sat .", "a cat ran", "cat"],
    negative=["the dog sat .", "a dog ran"],
)
WRITTEN = Completions(
    prompts=["I think", "the dog sat on"],
    scales=[0.0, 0.5, 2.0],
    samples=4,
    new_tokens=5,
    sampling=Sampling(temperature=0.7),
)
HOOKS = [hook_behind(layer) for layer in (0, 1)]
SEARCH = Search(layers=[0, 1, 2], scales=[0.5, 1.0], kl_budget=0.5)
DRAWS = Summary(bootstrap=100)


def vector(method: str, number: int, hook: str = HOOK) -> SteeringVector:
    return SteeringVector(unit_rows(3)[number], {"hook": hook, "goal": "cats", "method": method})


def tried(mean_norm: float = 3.0) -> LayerVectors:
    return LayerVectors([vector("caa", 0), vector("random", 1)], mean_norm)


def test_completions_of_a_layer_are_those_of_each_vector_alone() -> None:
    lm = tiny_lm()
    together = complete_layer(lm, tried(), WRITTEN, 0, unsteered=True)
    assert len(together) == (1 + 2 * 2) * 2 * 4
    assert together["completion_id"].n_unique() == len(together)
    assert set(together["layer"]) == {1}
    columns = ["scale_index", "scale", "prompt", "sample", "continuation_ids", "text", "ended"]
    for number, method in enumerate(("caa", "random")):
        scales = [0.0, 1.5, 6.0]
        alone = complete(lm, HOOK, unit_rows(3)[number], scales, WRITTEN, 0, "cats", method)
        own = together.filter(pl.col("method").is_in([method, UNSTEERED])).sort(
            "scale_index", maintain_order=True
        )
        assert own.select(columns).equals(alone.select(columns))
    without = complete_layer(lm, tried(), WRITTEN, 0, unsteered=False)
    assert set(without["method"]) == {"caa", "random"}


def test_divergences_of_a_layer_are_those_of_each_vector_alone() -> None:
    lm = tiny_lm()
    written = complete_layer(lm, tried(), WRITTEN, 0, unsteered=True)
    moved = written.join(layer_divergences(lm, tried(), written), on="completion_id")
    assert moved.filter(pl.col("method") == UNSTEERED)["kl"].drop_nulls().eq(0.0).all()
    for number, method in enumerate(("caa", "random")):
        own = moved.filter(pl.col("method") == method)
        alone = divergences(lm, HOOK, unit_rows(3)[number], own.drop("kl"))
        assert own["kl"].to_list() == alone["kl"].to_list()
        assert own["kl"].mean() > 0


def test_vectors_are_built_at_each_layer_from_the_activations_there() -> None:
    lm = tiny_lm()
    built = build_at(lm, GOAL, "cats", HOOKS, ["caa", "random"], "mean", 0)
    for hook in HOOKS:
        means = [
            torch.stack([residuals(lm, [hook], text)[1][hook].mean(0) for text in texts]).mean(0)
            for texts in (GOAL.positive, GOAL.negative)
        ]
        caa, control = built[hook]
        expected = torch.nn.functional.normalize(means[0] - means[1], dim=0)
        assert torch.allclose(caa.vector, expected, atol=1e-5)
        assert (caa.hook, caa.goal, control.method) == (hook, "cats", "random")
    first, second = (built[hook][1].vector for hook in HOOKS)
    assert abs(float(first @ second)) < 0.6  # each layer has a random direction of its own


def test_the_mean_norm_at_a_layer_is_over_the_positions_that_a_cache_would_hold() -> None:
    lm, blocks = tiny_lm(), tiny_tokens(20, 12)
    settings = Activations(exclude="special", exclude_norm_above=1.2)
    measured = mean_norms(lm, blocks, HOOKS, settings)
    read, kept = capture_kept(lm, blocks, HOOKS, settings)
    assert 0 < kept.sum() < kept.numel() - len(blocks)
    for hook in HOOKS:
        assert measured[hook] == pytest.approx(float(read[hook][kept].norm(dim=-1).mean()))
    with pytest.raises(SaeflowError, match=r"steering\.search\.tokens"):
        mean_norms(lm, blocks[:, :1], HOOKS, settings)


class Planted:
    """A search whose scores are drawn: the true means of every method, layer and scale."""

    def __init__(
        self,
        behaviour: np.ndarray[Any, Any],
        kl: np.ndarray[Any, Any],
        methods: tuple[str, ...] = ("caa", "random"),
        goals: int = 1,
        samples: int = 24,
        seed: int = 0,
    ) -> None:
        """``behaviour`` and ``kl`` are ``[methods, layers, scales]``; coherence is 0.8 everywhere,
        and the unsteered model shows the behaviour in one text of five."""
        rng = np.random.default_rng(seed)
        rows, scores, moved = [], [], []
        points: list[tuple[str, int, int, float, float]] = [(UNSTEERED, 1, 0, 0.2, 0.0)]
        for place in np.ndindex(behaviour.shape):
            points.append((methods[place[0]], place[1], place[2] + 1, behaviour[place], kl[place]))
        for goal in range(goals):
            for method, layer, index, mean, distance in points:
                for sample in range(samples):
                    name = f"{goal}/{method}/{layer}/{index}/{sample}"
                    rows.append((f"goal{goal}", method, layer, index, index * 2.0, sample, name))
                    values = {
                        "behaviour": float(rng.random() < mean),
                        "coherence": float(rng.random() < 0.8),
                    }
                    scores += [(name, each, value, None) for each, value in values.items()]
                    moved.append((name, distance * rng.uniform(0.9, 1.1)))
        columns = [*("goal", "method", "layer", "scale_index", "scale", "sample"), "completion_id"]
        self.completions = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
            prompt=pl.lit("I think")
        )
        judged = ("completion_id", "criterion", "score", "reason")
        self.scores = pl.DataFrame(
            scores, schema={name: SCORES_SCHEMA[name] for name in judged}, orient="row"
        )
        self.kl = pl.DataFrame(moved, schema=["completion_id", "kl"], orient="row")

    def chosen(self, search: Search = SEARCH, settings: Summary = DRAWS, seed: int = 0) -> Choices:
        return choose_within(self.completions, self.scores, self.kl, search, settings, 1, seed)


def only(table: pl.DataFrame, **where: Any) -> dict[str, Any]:
    rows = table.filter([pl.col(name) == value for name, value in where.items()])
    return rows.row(0, named=True)


def planted(samples: int = 200, goals: int = 1) -> Planted:
    """Of `caa` layer 2 at the larger scale is best but over the budget, layer 0 at the smaller next;
    the study's layer is 1, where the smaller scale is best within it."""
    behaviour, kl = np.full((2, 3, 2), 0.1), np.full((2, 3, 2), 0.3)
    behaviour[0, 2, 1], kl[0, 2, 1] = 0.95, 2.0
    behaviour[0, 0, 0] = 0.7
    behaviour[0, 1, 0] = 0.5
    behaviour[0, 1, 1], kl[0, 1, 1] = 0.8, 0.6
    return Planted(behaviour, kl, goals=goals, samples=samples)


def test_the_planted_layer_and_scale_are_chosen_within_the_budget_and_beyond_it() -> None:
    tables = planted().chosen()
    best = tables.search_best
    chosen = only(best, goal="goal0", method="caa", layers="all")
    assert (chosen["layer"], chosen["multiple"], chosen["scale"]) == (0, 0.5, 2.0)
    own = only(best, goal="goal0", method="caa", layers="own")
    assert (own["layer"], own["multiple"]) == (1, 0.5)
    assert chosen["product"] == pytest.approx(0.7 * 0.8, abs=0.12)
    assert own["product"] == pytest.approx(0.5 * 0.8, abs=0.12)
    assert chosen["over_own"] == pytest.approx(chosen["product"] - own["product"])
    assert chosen["over_own_low"] < chosen["over_own"] < chosen["over_own_high"]
    assert own["over_own"] == own["over_own_low"] == own["over_own_high"] == 0
    generous = planted().chosen(SEARCH.model_copy(update={"kl_budget": 3.0})).search_best
    assert only(generous, method="caa", layers="all")["layer"] == 2
    # a control that nothing is better with than without
    control = only(best, goal="goal0", method="random", layers="all")
    assert (control["layer"], control["multiple"], control["kl"]) == (None, 0.0, 0.0)
    assert control["product"] == control["unsteered_product"]
    assert chosen["over_random"] == pytest.approx(chosen["product"] - control["product"])


def test_every_candidate_is_told_with_its_budget_and_what_was_chosen() -> None:
    table = planted().chosen().search
    assert len(table) == 1 + 2 * 3 * 2
    over = table.filter(~pl.col("within_budget"))
    assert set(over.select("method", "layer", "multiple").iter_rows()) == {
        ("caa", 2, 1.0),
        ("caa", 1, 1.0),
    }
    assert table.filter("chosen").select("method", "layer").rows() == [
        (UNSTEERED, None),
        ("caa", 0),
    ]
    assert table.filter("chosen_of_own").select("method", "layer").rows() == [
        (UNSTEERED, None),
        ("caa", 1),
    ]
    assert (table["kl_low"] <= table["kl"]).all()
    assert (table["kl"] <= table["kl_high"]).all()


def test_a_budget_that_no_vector_keeps_leaves_the_model_as_it_is() -> None:
    tables = planted().chosen(SEARCH.model_copy(update={"kl_budget": 0.01}))
    rows = tables.search_best.filter(pl.col("goal") == "goal0")
    assert rows["layer"].null_count() == len(rows) == 4
    assert rows["multiple"].to_list() == [0.0] * 4


def test_a_cell_with_too_few_scores_is_not_chosen_however_high() -> None:
    made = planted()
    best = made.completions.filter(method="caa", layer=0, scale_index=1)["completion_id"]
    gone = pl.col("completion_id").is_in(best.head(150).implode())
    made.scores = made.scores.with_columns(score=pl.when(~gone).then("score"))
    tables = made.chosen()
    assert only(tables.search_best, method="caa", layers="all")["layer"] == 1
    assert not only(tables.search, method="caa", layer=0, multiple=0.5)["eligible"]


def test_averages_are_over_goals_and_their_differences_of_the_same_completions() -> None:
    best = planted(goals=3, samples=60).chosen().search_best
    for method in ("caa", "random"):
        for layers in ("all", "own"):
            row = only(best, goal="average", method=method, layers=layers)
            of_goals = best.filter(pl.col("goal") != "average", method=method, layers=layers)
            for column in ("product", "kl", "over_random", "unsteered_product", "selection_kl"):
                assert row[column] == pytest.approx(of_goals[column].mean())
            assert row["layer"] is None
            assert row["n"] == of_goals["n"].sum()


def test_under_noise_alone_the_half_that_reports_is_unbiased_and_the_one_that_chose_is_not() -> (
    None
):
    even, near = np.full((2, 3, 2), 0.3), np.full((2, 3, 2), 0.5)
    settings = Summary(bootstrap=100)
    reported, told_of_choice, moved, kl_of_choice = [], [], [], []
    for seed in range(60):
        best = Planted(even, near, seed=seed).chosen(settings=settings, seed=seed).search_best
        row = only(best, goal="goal0", method="caa", layers="all")
        if row["layer"] is not None:  # the unsteered model, with 0.2, is another population
            reported.append(row["product"])
            told_of_choice.append(row["selection_product"])
            moved.append(row["kl"])
            kl_of_choice.append(row["selection_kl"])
    assert len(reported) > 50
    error = np.std(reported, ddof=1) / np.sqrt(len(reported))
    assert abs(np.mean(reported) - 0.3 * 0.8) < 3 * error < 0.05
    assert np.mean(told_of_choice) > 0.3 * 0.8 + 3 * error
    # a divergence at the budget seems to keep it where it is chosen, and does not where it is told
    error = np.std(moved, ddof=1) / np.sqrt(len(moved))
    assert abs(np.mean(moved) - 0.5) < 3 * error
    assert max(kl_of_choice) <= 0.5


def test_what_is_said_of_a_method_does_not_hang_on_the_others() -> None:
    made = planted(samples=40)
    both = made.chosen().search_best.filter(method="caa")
    made.completions = made.completions.filter(pl.col("method") != "random")
    kept = pl.col("completion_id").is_in(made.completions["completion_id"].implode())
    made.scores = made.scores.filter(kept)
    alone = made.chosen().search_best
    columns = [name for name in both.columns if not name.startswith("over_random")]
    assert both.select(columns).equals(alone.select(columns))
    assert alone["over_random"].null_count() == len(alone)


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        ({"layers": [0, 9]}, r"steering\.search\.layers.*layer 9 does not exist"),
        ({"layers": [0], "methods": ["sae_ts"]}, r"built from an SAE.*alone; name caa or random"),
        ({"layers": [0], "methods": ["caa", "sae"]}, r"sae is not in steering\.vectors\.methods"),
        ({"layers": [0], "scales": [0.0, 1.0]}, r"steering\.search\.scales.*without 0\.0"),
        ({"layers": [0], "scales": [1.0, 0.5]}, r"steering\.search\.scales.*increase"),
        ({"layers": []}, r"steering\.search\.layers"),
        ({}, r"steering\.search\.layers"),
        ({"layers": [0], "tokens": 10**9}, r"steering\.search\.tokens.*corpus\.tokens\.eval"),
        ({"layers": [0], "kl_budget": 0}, r"steering\.search\.kl_budget"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_a_sentence(
    search: dict[str, Any], complaint: str
) -> None:
    changes = {"steering.search": search, "steering.vectors.methods": ["caa", "sae_ts", "random"]}
    with pytest.raises(SaeflowError, match=complaint):
        check_any_study(study_config("tiny", changes))


def test_a_method_built_from_an_sae_is_searched_at_the_study_s_layer_alone() -> None:
    search = Search(layers=[0, 3], methods=["caa", "sae_ts"])
    assert search.layers_of("caa", 1) == [0, 1, 3]
    assert search.layers_of("sae_ts", 1) == [1]
