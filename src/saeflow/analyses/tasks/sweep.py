"""Vectors of tasks behind one layer after the other, in prompts without examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.tasks.answering import Answers, Frozen, answer
from saeflow.analyses.tasks.prompts import (
    Question,
    Shown,
    check_answers,
    question,
    with_examples,
)
from saeflow.analyses.tasks.shares import Ends, Shares, mean_loss
from saeflow.models.hooks import check_hook
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.tasks.lists import Split
    from saeflow.analyses.tasks.settings import TaskPrompts, TaskVectors
    from saeflow.analyses.tasks.vectors import Vectors
    from saeflow.models.language_model import LanguageModel

OF_MEANS = {
    f"{name}{end}": pl.Float64
    for name in ("loss", "recovered", "accuracy")
    for end in ("", "_low", "_high")
}
SWEEP = {
    "task": pl.String,
    "template": pl.String,
    "kind": pl.String,
    "layer": pl.Int32,
    "scale": pl.Float64,
    "validation": pl.Float64,
    "chosen": pl.Boolean,
    "n": pl.Int32,
    **OF_MEANS,
}
PAIRS = {
    "task": pl.String,
    "template": pl.String,
    "split": pl.String,
    "input": pl.String,
    "output": pl.String,
    "tokens": pl.Int32,
    "scored": pl.Int32,
    "condition": pl.String,
    "loss": pl.Float64,
    "right": pl.Boolean,
}
OWN, OTHER = "own", "other"
LAYERS = 8
"""That are tried by default."""


class Asked(NamedTuple):
    """Pairs of a split as prompts without examples, and what the model says of them with and
    without."""

    questions: list[Question]
    ends: Ends
    placebo: Answers
    """With examples whose outputs are exchanged."""


def layers_of(lm: LanguageModel, asked: TaskVectors, of_saes: Sequence[int]) -> list[int]:
    """Behind which layers vectors are tried.

    Raises:
        SaeflowError: the model has no such layer.
    """
    spaced = {round(i * (lm.n_layers - 1) / (LAYERS - 1)) for i in range(LAYERS)}
    layers = sorted(asked.layers if asked.layers is not None else spaced | set(of_saes))
    for layer in layers:
        check_hook(lm, f"blocks.{layer}.hook_resid_post")
    return layers


def ask(
    lm: LanguageModel,
    pairs: Split,
    split: str,
    prompts: TaskPrompts,
    template: str,
    seed: int,
    task: str,
) -> Asked:
    """Ask for the pairs of a split, with examples of those to learn from and without."""
    asked, pool = pairs[split], pairs["train"]
    questions = questions_of(lm, pairs, split, prompts, template, task)
    answers = []
    for exchanged in (False, True):
        generator = numpy_generator(seed, "tasks", task, "shots", split)
        shown = with_examples(asked, pool, prompts.shots, generator, exchanged)
        answers.append(answer(lm, [question(lm, each, prompts, template, task) for each in shown]))
    return Asked(questions, Ends(answer(lm, questions), answers[0]), answers[1])


def questions_of(
    lm: LanguageModel, pairs: Split, split: str, prompts: TaskPrompts, template: str, task: str
) -> list[Question]:
    """Pairs of a split as prompts without examples.

    Raises:
        SaeflowError: what counts of their answers is one and the same.
    """
    shown = [Shown([], pair) for pair in pairs[split]]
    questions = [question(lm, each, prompts, template, task) for each in shown]
    check_answers(questions, task)
    return questions


class Strength(NamedTuple):
    """How often a vector is best added."""

    scale: float
    validation: float
    """The mean loss on the pairs to choose by."""


def strength(
    validation: Frozen, vector: Float[Tensor, " d_model"], scales: Sequence[float]
) -> Strength:
    """The scale of the smallest loss on the pairs to choose by."""
    losses = [mean_loss(validation.with_added(scale * vector)) for scale in scales]
    best = min(range(len(scales)), key=losses.__getitem__)
    return Strength(scales[best], losses[best])


def sweep(
    lm: LanguageModel,
    splits: Mapping[str, Split],
    vectors: Vectors,
    prompts: TaskPrompts,
    asked: TaskVectors,
    of_saes: Sequence[int],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add every vector behind every layer, and tell what it recovers on pairs that nothing was
    chosen by; the best layer of each kind in the other template, too.

    Returns:
        Tables of `SWEEP` and `PAIRS`.
    """
    layers = layers_of(lm, asked, of_saes)
    rows: list[dict[str, object]] = []
    of_pairs: list[dict[str, object]] = []
    for done, (task, pairs) in enumerate(splits.items(), start=1):
        validation = ask(lm, pairs, "validation", prompts, prompts.template, seed, task)
        test = ask(lm, pairs, "test", prompts, prompts.template, seed, task)
        of_pairs += _pair_rows(task, OWN, "validation", pairs, validation)
        of_pairs += _pair_rows(task, OWN, "test", pairs, test)
        tried = [
            trial
            for layer in layers
            for trial in _trials(lm, validation, test, vectors, asked, task, layer)
        ]
        ranked = sorted(tried, key=lambda each: each.validation)
        best = {next(each.place for each in ranked if each.kind == kind) for kind in asked.kinds}
        shares = Shares(test.ends, asked.draws, asked.level, seed, task)
        rows += [_row(task, OWN, each, shares, each.place in best) for each in tried]
        rows += _ends_rows(task, OWN, shares, test)
        if prompts.other is not None:
            elsewhere = ask(lm, pairs, "test", prompts, prompts.other, seed, task)
            of_pairs += _pair_rows(task, OTHER, "test", pairs, elsewhere)
            shares = Shares(elsewhere.ends, asked.draws, asked.level, seed, task)
            for each in tried:
                if each.place in best:
                    vector = each.scale * vectors.of(task, each.kind, each.layer)
                    answers = Frozen(lm, elsewhere.questions, each.layer).with_added(vector)
                    rows.append(_row(task, OTHER, each._replace(answers=answers), shares, True))
            rows += _ends_rows(task, OTHER, shares, elsewhere)
        if progress:
            progress(done, len(splits))
    return pl.DataFrame(rows, schema=SWEEP), pl.DataFrame(of_pairs, schema=PAIRS)


class _Trial(NamedTuple):
    """A vector behind a layer, at the scale of its smallest loss on the pairs to choose by."""

    kind: str
    layer: int
    scale: float
    validation: float
    answers: Answers

    @property
    def place(self) -> tuple[str, int]:
        """Which vector, and where."""
        return self.kind, self.layer


def _trials(
    lm: LanguageModel,
    validation: Asked,
    test: Asked,
    vectors: Vectors,
    asked: TaskVectors,
    task: str,
    layer: int,
) -> list[_Trial]:
    to_choose, to_tell = (Frozen(lm, each.questions, layer) for each in (validation, test))
    trials = []
    for kind in asked.kinds:
        vector = vectors.of(task, kind, layer)
        best = strength(to_choose, vector, asked.scales)
        trials.append(_Trial(kind, layer, *best, to_tell.with_added(best.scale * vector)))
    return trials


def _row(
    task: str, template: str, trial: _Trial, shares: Shares, chosen: bool
) -> dict[str, object]:
    return {
        "task": task, "template": template, "kind": trial.kind, "layer": trial.layer,
        "scale": trial.scale, "validation": trial.validation, "chosen": chosen,
        "n": len(trial.answers.loss), **shares.row(trial.answers),
    }  # fmt: skip


def _ends_rows(task: str, template: str, shares: Shares, asked: Asked) -> list[dict[str, object]]:
    """Prompts without and with examples, and with examples whose outputs are exchanged, as rows
    without a layer."""
    ends = {"zero_shot": asked.ends.zero, "few_shot": asked.ends.few, "exchanged": asked.placebo}
    return [
        {
            "task": task, "template": template, "kind": kind, "layer": None, "scale": None,
            "validation": None, "chosen": False, "n": len(answers.loss), **shares.row(answers),
        }
        for kind, answers in ends.items()
    ]  # fmt: skip


def _pair_rows(
    task: str, template: str, split: str, pairs: Split, asked: Asked
) -> list[dict[str, object]]:
    conditions = {
        "zero_shot": asked.ends.zero,
        "few_shot": asked.ends.few,
        "exchanged": asked.placebo,
    }
    return [
        {
            "task": task, "template": template, "split": split, **pair._asdict(),
            "tokens": question.whole, "scored": len(question.answer), "condition": condition,
            "loss": float(answers.loss[i]), "right": bool(answers.right[i]),
        }
        for condition, answers in conditions.items()
        for i, (pair, question) in enumerate(zip(pairs[split], asked.questions, strict=True))
    ]  # fmt: skip
