"""What vectors cost the model on held-out text and on questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from checkout import ROOT
from scipy import stats
from scored_study import scored_study
from steered import HOOK, tiny_lm, unit_rows
from studies import study_config
from tiny_models import tiny_tokens

from saeflow.analyses.steering.capability import Exam, capabilities, exam
from saeflow.analyses.steering.io import SteeringVector
from saeflow.analyses.steering.schemas import CAPABILITY_SCHEMA
from saeflow.analyses.steering.settings import Summary
from saeflow.analyses.steering.summary import Summaries, summarise
from saeflow.config import Question, read_questions
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.models.language_model import LanguageModel

QUESTIONS = [
    Question(question="the cat sat", answer="on the mat", others=["dog", "under a tree .", "a"]),
    Question(question="the dog ran and then", answer="sat", others=["ran ran"]),
    Question(question="I think", answer="a cat", others=["the dog", "the mat", "on the tree"]),
]
SCALES = [0.0, 1.5, 6.0]


def vector(method: str, number: int = 0) -> SteeringVector:
    metadata = {"hook": HOOK, "goal": "goal0", "method": method}
    return SteeringVector(unit_rows(3)[number], metadata)


def by_plain_torch(lm: LanguageModel, tokens: list[int], addition: torch.Tensor) -> torch.Tensor:
    """Log-probability of every token but the first, the whole model run with a hook of torch."""
    layer = lm.model.get_submodule("model.layers.1")
    handle = layer.register_forward_hook(
        lambda _module, _inputs, output: (
            (output[0] + addition, *output[1:]) if isinstance(output, tuple) else output + addition
        )
    )
    try:
        with torch.no_grad():
            logits = lm.model(torch.tensor([tokens])).logits[0]
    finally:
        handle.remove()
    return logits.double().log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]]


def tiny_exam(lm: LanguageModel) -> Exam:
    return exam(lm, tiny_tokens(4, 12).numpy(), QUESTIONS)


def value(table: pl.DataFrame, **where: Any) -> float:
    conditions = [pl.col(name) == wanted for name, wanted in where.items()]
    return float(table.filter(conditions)["value"].item())


def test_losses_and_answers_equal_those_of_the_whole_model_with_a_hook_of_torch() -> None:
    lm, steered = tiny_lm(), vector("caa")
    table = pl.concat(capabilities(lm, tiny_exam(lm), [steered], {"caa": SCALES}))
    for index, scale in enumerate(SCALES):
        addition = scale * steered.vector
        for item, block in enumerate(tiny_tokens(4, 12).tolist()):
            loss = -by_plain_torch(lm, block, addition).mean()
            measured = value(table, measure="text_loss", scale_index=index, item=item)
            assert measured == pytest.approx(float(loss), abs=1e-4)
        for item, each in enumerate(QUESTIONS):
            prompt = lm.tokenize(f"Question: {each.question}\nAnswer:")
            said = []
            for answer in (each.answer, *each.others):
                tokens = lm.tokenize(f"Question: {each.question}\nAnswer: {answer}")
                assert tokens[: len(prompt)] == prompt
                said.append(by_plain_torch(lm, tokens, addition)[len(prompt) - 1 :].sum())
            right, wrong = float(said[0]), np.array([float(other) for other in said[1:]])
            odds = right - np.log(np.exp(wrong).sum())
            where = {"scale_index": index, "item": item}
            assert value(table, measure="choice_log_odds", **where) == pytest.approx(odds, abs=1e-4)
            assert value(table, measure="choice_correct", **where) == float(right > wrong.max())


def test_neither_the_batch_nor_other_vectors_change_what_is_measured() -> None:
    lm = tiny_lm()
    grid = {"caa": SCALES, "random": SCALES}
    vectors = [vector("caa"), vector("random", 1)]
    _, own = capabilities(lm, tiny_exam(lm), vectors, grid)
    (again,) = capabilities(lm, tiny_exam(lm), vectors, grid, among=["random"])
    assert again.equals(own)
    for batch in (1, 3):
        (alone,) = capabilities(lm, tiny_exam(lm), vectors[1:], grid, batch=batch)
        assert own.drop("value").equals(alone.drop("value"))
        assert own["value"].to_numpy() == pytest.approx(alone["value"].to_numpy(), abs=1e-5)


def test_a_question_beyond_the_context_and_a_scale_without_numbers_are_refused() -> None:
    lm = tiny_lm()
    long = Question(question="the cat " * 40, answer="sat", others=["ran"])
    with pytest.raises(SaeflowError, match="longer than the model's context, 64 tokens"):
        exam(lm, np.zeros((0, 12), np.int32), [long])
    with pytest.raises(SaeflowError, match="capability: a loss"):
        list(capabilities(lm, tiny_exam(lm), [vector("caa")], {"caa": [0.0, float("inf")]}))


def drawn_capabilities(completions: pl.DataFrame, blocks: int = 8, asked: int = 20) -> pl.DataFrame:
    """Random losses and answers of every goal, method and scale; alike at scale 0."""
    rng = np.random.default_rng(0)
    at_zero = {"text_loss": rng.normal(3, 1, blocks), "choice_correct": rng.random(asked) < 0.9}
    keys = ["goal", "method", "scale", "scale_index"]
    rows = []
    for group in completions.select(keys).unique(maintain_order=True).iter_rows():
        worse = 0.3 * group[2] + rng.normal(0, 0.1, blocks) * group[2]
        values = {
            "text_loss": at_zero["text_loss"] + worse,
            "choice_correct": at_zero["choice_correct"] & (rng.random(asked) < 1 - group[2] / 2),
            "choice_log_odds": rng.normal(1, 1, asked),
        }
        for measure, of_items in values.items():
            rows += [(*group, measure, item, float(each)) for item, each in enumerate(of_items)]
    return pl.DataFrame(rows, schema=CAPABILITY_SCHEMA, orient="row")


def summaries(methods: int = 2, **drawn: int) -> tuple[pl.DataFrame, Summaries]:
    completions, scores = scored_study(methods=methods)
    measured = drawn_capabilities(completions, **drawn)
    return measured, summarise(
        completions, scores, Summary(bootstrap=4000), 0, capabilities=measured
    )


def test_costs_in_the_summary_are_means_with_intervals_of_student_and_clopper_pearson() -> None:
    measured, tables = summaries()
    for row in tables.summary.iter_rows(named=True):
        own = measured.filter(
            pl.col("goal") == row["goal"],
            pl.col("method") == row["method"],
            pl.col("scale_index") == row["scale_index"],
        )
        zero = measured.filter(
            pl.col("goal") == row["goal"], pl.col("method") == row["method"], scale_index=0
        )
        losses, before, odds = (
            table.filter(measure=measure)["value"].to_numpy()
            for table, measure in (
                (own, "text_loss"),
                (zero, "text_loss"),
                (own, "choice_log_odds"),
            )
        )
        for name, items in (
            ("text_loss", losses),
            ("text_loss_increase", losses - before),
            ("choice_log_odds", odds),
        ):
            assert row[name] == pytest.approx(items.mean(), abs=1e-6)
            if items.std():
                expected = stats.ttest_1samp(items, 0).confidence_interval(0.95)
                assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(
                    tuple(expected), abs=1e-6
                )
        right = own.filter(measure="choice_correct")["value"].to_numpy()
        assert row["choice_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
        expected = stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.95)
        assert (row["choice_accuracy_low"], row["choice_accuracy_high"]) == pytest.approx(
            (expected.low, expected.high), abs=0.02
        )


def test_the_average_over_goals_is_of_the_same_blocks_and_questions() -> None:
    measured, tables = summaries()
    for row in tables.best.filter(goal="average").iter_rows(named=True):
        chosen = tables.best.filter(
            pl.col("goal") != "average", pl.col("method") == row["method"]
        ).select("goal", "method", "scale_index")
        own = measured.filter(measure="choice_log_odds").join(
            chosen, on=["goal", "method", "scale_index"]
        )
        by_item = own.group_by("item").agg(pl.col("value").mean()).sort("item")["value"].to_numpy()
        expected = stats.ttest_1samp(by_item, 0).confidence_interval(0.95)
        assert (row["choice_log_odds_low"], row["choice_log_odds_high"]) == pytest.approx(
            tuple(expected), abs=1e-6
        )
        assert row["choice_log_odds"] == pytest.approx(by_item.mean(), abs=1e-6)


def test_without_a_measurement_all_columns_of_cost_are_null() -> None:
    completions, scores = scored_study()
    summary = summarise(completions, scores, Summary(bootstrap=100), 0).summary
    for name in ("text_loss", "text_loss_increase", "choice_accuracy_low", "choice_log_odds_high"):
        assert summary[name].null_count() == len(summary)


def test_the_questions_shipped_are_many_and_each_has_three_wrong_answers() -> None:
    questions = read_questions(ROOT / "workflow/questions/everyday.yaml")
    assert len(questions) >= 40
    assert {len(each.others) for each in questions} == {3}
    # no answer is told by its length
    longest = sum(len(each.answer) > max(map(len, each.others)) for each in questions)
    assert longest / len(questions) < 0.4


@pytest.mark.parametrize(
    ("questions", "complaint"),
    [
        ([{"question": "Who?", "answer": "I", "others": []}], "questions.0.others"),
        ([{"question": "Who?", "answer": "I", "others": ["I", "you"]}], "is the right answer, too"),
        ([{"question": "Who?", "answer": "I", "others": ["you"]}] * 2, "is asked twice"),
        ([], "questions"),
    ],
)
def test_a_file_of_questions_is_refused_by_what_is_wrong_with_it(
    tmp_path: Path, questions: list[dict[str, Any]], complaint: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"questions": questions}))
    with pytest.raises(SaeflowError, match=complaint):
        read_questions(file)


def test_a_capability_that_measures_nothing_or_more_text_than_there_is_is_refused() -> None:
    with pytest.raises(SaeflowError, match=r"steering.capability.tokens.*corpus.tokens.eval"):
        check_any_study(study_config("tiny", {"steering.capability": {"tokens": 10**9}}))
    with pytest.raises(SaeflowError, match="measure nothing"):
        check_any_study(
            study_config("tiny", {"steering.capability": {"tokens": 0, "questions": None}})
        )
