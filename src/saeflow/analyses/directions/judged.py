"""What a judge says of answers under edits."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from saeflow.config import Goal
from saeflow.config.sections import Judge, Prompt
from saeflow.decoding.completion import Completion
from saeflow.endpoint.service import Service
from saeflow.judging.scores import judged_behaviour

VERDICTS = {
    "edit": pl.String,
    "kind": pl.String,
    "control": pl.Int32,
    "scale": pl.Float64,
    "label": pl.String,
    "prompt": pl.Int32,
    "group": pl.Int64,
    "score": pl.Float64,
    "reason": pl.String,
}


def judge_answers(
    answers: pl.DataFrame,
    prompts: Sequence[Prompt],
    goal: Goal,
    judge: Judge,
    service: Service | None = None,
) -> pl.DataFrame:
    """Have a judge say of every answer whether it shows the behaviour.

    Args:
        answers: columns of `interventions.ANSWERS`, texts among them.
        prompts: that the column ``prompt`` numbers.
        goal: the behaviour.
        judge: who is asked.
        service: for the judge 'openai'.

    Returns:
        The columns of `VERDICTS`, in the order of the answers: a score from 0 to 1, or none and the
        reason.
    """
    asked = [_opening(prompt) for prompt in prompts]
    completions = [
        Completion(asked[number], asked[number] + text)
        for number, text in answers.select("prompt", "text").iter_rows()
    ]
    verdicts = judged_behaviour(completions, goal, judge, service)
    return answers.select(*(name for name in VERDICTS if name in answers.columns)).with_columns(
        score=pl.Series([each.score for each in verdicts], dtype=pl.Float64),
        reason=pl.Series([each.reason for each in verdicts], dtype=pl.String),
    )


def _opening(prompt: Prompt) -> str:
    """What stands before an answer where a judge reads it: text as it is, messages a line each."""
    if isinstance(prompt, str):
        return prompt
    return "".join(f"{message.role}: {message.content}\n" for message in prompt)
