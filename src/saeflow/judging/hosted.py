"""The judge 'openai': a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import polars as pl

from saeflow.config.goal import Goal
from saeflow.config.sections import Judge
from saeflow.decoding.completion import Completion
from saeflow.endpoint.asking import ask
from saeflow.endpoint.inquiries import Answer, Inquiry
from saeflow.errors import SaeflowError
from saeflow.judging.templates import ASPECTS, COHERENCE, RATINGS, THREE_WAY, Template
from saeflow.judging.verdicts import Question, Verdict, criteria

NOT_ITS_PROMPT = "the text does not open with its prompt"


def judge_hosted(
    completions: Sequence[Completion], questions: Sequence[Question]
) -> list[list[Verdict]]:
    """Have a model score completions by several criteria; a text that gets no usable answer has no
    score.

    Raises:
        SaeflowError: there is no endpoint to ask, it answers nothing at all, or the budget is
            spent.
    """
    service = questions[0].service
    if service is None:
        raise SaeflowError("judge 'openai': answers are kept in a ledger; name one with --ledger")
    asked = [inquiries(completions, question) for question in questions]
    answers = iter(
        ask(
            [inquiry for criterion in asked for repeats in criterion for inquiry in repeats],
            service,
        )
    )
    return [
        [_verdict([next(answers) for _ in repeats], question) for repeats in criterion]
        for criterion, question in zip(asked, questions, strict=True)
    ]


def inquiries(completions: Sequence[Completion], question: Question) -> list[list[Inquiry]]:
    """The questions about each completion; none about one that cannot be shown as the template
    shows it."""
    template, criterion = _asked(question)

    def repeats(completion: Completion) -> list[Inquiry]:
        if template.split and completion.continuation is None:
            return []
        numbers = range(question.settings.repeats)
        return [Inquiry(template, criterion, (completion,), repeat) for repeat in numbers]

    return [repeats(completion) for completion in completions]


def questions_about(completions: pl.DataFrame, goal: Goal, judge: Judge) -> list[Inquiry]:
    """All questions about a table of completions, for an estimate; columns prompt and text."""
    texts = [
        Completion(*row)
        for row in completions.drop_nulls("text").select("prompt", "text").iter_rows()
    ]
    asked = [inquiries(texts, Question(goal, criterion, judge)) for criterion in criteria(judge)]
    return [inquiry for criterion in asked for repeats in criterion for inquiry in repeats]


def _asked(question: Question) -> tuple[Template, str]:
    if question.criterion in ASPECTS:
        return THREE_WAY, ASPECTS[question.criterion].format(criterion=question.goal.criterion)
    criterion = COHERENCE if question.criterion == "coherence" else question.goal.criterion
    return RATINGS[question.settings.template], criterion


def _verdict(answers: Sequence[Answer], question: Question) -> Verdict:
    """The mean of the repeats; none if one has no answer, so that all means are over as many."""
    if not answers:
        return Verdict(None, NOT_ITS_PROMPT)
    template, _ = _asked(question)
    attempts, cached = (
        max(answer.attempts for answer in answers),
        all(answer.cached for answer in answers),
    )
    failed = next((answer for answer in answers if answer.value is None), None)
    if failed:
        return Verdict(None, failed.reason, attempts, cached)
    return Verdict(
        mean(template.share(int(answer.value or 0)) for answer in answers), None, attempts, cached
    )
