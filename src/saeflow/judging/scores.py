"""Completions to scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from saeflow.config.goal import Goal
from saeflow.config.sections import Judge
from saeflow.decoding.completion import Completion
from saeflow.errors import SaeflowError
from saeflow.judging.judges import judge_function
from saeflow.judging.verdicts import Losses, Question, Verdict, criteria

if TYPE_CHECKING:
    from saeflow.endpoint.service import Service

SCORES_SCHEMA: dict[str, type[pl.DataType]] = {
    "completion_id": pl.String,
    "criterion": pl.String,
    "score": pl.Float64,
    "reason": pl.String,
    "judge": pl.String,
    "attempt": pl.Int64,
    "cached": pl.Boolean,
}


def score_completions(
    completions: pl.DataFrame,
    goal: Goal,
    settings: Judge,
    seed: int = 0,
    losses: Losses | None = None,
    unsteered: pl.DataFrame | None = None,
    service: Service | None = None,
) -> pl.DataFrame:
    """Have completions judged by every criterion.

    Args:
        completions: columns completion_id, prompt, text and scale_index; where prompt_ids and
            continuation_ids are among them, losses are read from these tokens.
        goal: what the completions were steered towards.
        settings: which judge, and how it judges.
        seed: the study's seed.
        losses: the unsteered model's loss, for the judge 'lexical'; see `saeflow.judging.losses`.
        unsteered: columns prompt and text; default is the completions of scale 0, or of scale_index
            0 without scales.
        service: the judging model, for the judge 'openai'; see `saeflow.endpoint.asking`.

    Returns:
        A table with `SCORES_SCHEMA`, one row per completion and criterion: a score between 0 and 1,
        or none and a reason.

    Raises:
        SaeflowError: two completions have one id, or the judge cannot judge this goal at all.
    """
    if completions["completion_id"].is_duplicated().any():
        raise SaeflowError(
            "scores: two completions have the same completion_id; make the completions again"
        )
    if unsteered is None:
        unsteered = completions.filter(
            pl.col("scale" if "scale" in completions.columns else "scale_index") == 0
        )
    texts, references = (
        completions_in(completions.drop_nulls("text")),
        completions_in(unsteered.drop_nulls("text")),
    )
    answered = completions["text"].is_not_null().to_list()
    questions = [
        Question(goal, criterion, settings, references, losses, seed, service)
        for criterion in criteria(settings)
    ]
    tables = []
    for question, answers in zip(questions, _ask(settings.kind, texts, questions), strict=True):
        in_order = iter(answers)
        no_text = Verdict(None, "there is no text")
        verdicts = [next(in_order) if given else no_text for given in answered]
        ids = completions["completion_id"]
        tables.append(_table(ids, question.criterion, verdicts, settings.kind))
    return pl.concat(tables)


def judged_behaviour(
    completions: Sequence[Completion],
    goal: Goal,
    settings: Judge,
    service: Service | None = None,
) -> list[Verdict]:
    """Have texts judged for a goal's behaviour alone, which asks for no model's loss; see
    `score_completions`."""
    question = Question(goal, "behaviour", settings, service=service)
    return _ask(settings.kind, completions, [question])[0]


def require_scores(scores: pl.DataFrame) -> None:
    """Refuse to summarise a study that the judge has not given a single score.

    Args:
        scores: columns completion_id, criterion, score, reason; of all goals and methods.

    Raises:
        SaeflowError: there is none, with the reason that most of them share.
    """
    if len(scores) and scores["score"].null_count() == len(scores):
        reasons = scores["reason"].fill_null("no reason is given").value_counts(sort=True)
        raise SaeflowError(
            f"scores: not one of {len(scores):,} scores could be given, most often because: "
            f"{reasons['reason'][0]}; correct what the reason names, or choose another judge; "
            "failures of 'openai' are kept until 'saeflow judge forget'"
        )


def checked(verdict: Verdict) -> Verdict:
    """A verdict with a score between 0 and 1, or with none and a reason."""
    if verdict.score is None:
        return verdict._replace(reason=verdict.reason or "the judge gave no reason")
    if not math.isfinite(verdict.score) or not 0.0 <= verdict.score <= 1.0:
        return verdict._replace(
            score=None, reason=f"the score {verdict.score:g} is not between 0 and 1"
        )
    return verdict


def _ask(
    judge: str, completions: Sequence[Completion], questions: Sequence[Question]
) -> list[list[Verdict]]:
    answers = judge_function(judge)(completions, questions)
    for verdicts in answers:
        if len(verdicts) != len(completions):
            raise SaeflowError(
                f"judge '{judge}': answered {len(verdicts)} times to {len(completions)} "
                "completions; correct the judge"
            )
    return [[checked(verdict) for verdict in verdicts] for verdicts in answers]


def completions_in(table: pl.DataFrame) -> list[Completion]:
    """The completions of a table, with their tokens where it has them."""
    columns = [name for name in Completion._fields if name in table.columns]
    return [Completion(**_hashable(row)) for row in table.select(columns).iter_rows(named=True)]


def _hashable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _table(ids: pl.Series, criterion: str, verdicts: Sequence[Verdict], judge: str) -> pl.DataFrame:
    rows = len(verdicts)
    return pl.DataFrame(
        {
            "completion_id": ids,
            "criterion": [criterion] * rows,
            "score": [verdict.score for verdict in verdicts],
            "reason": [verdict.reason for verdict in verdicts],
            "judge": [judge] * rows,
            "attempt": [verdict.attempt for verdict in verdicts],
            "cached": [verdict.cached for verdict in verdicts],
        },
        schema=SCORES_SCHEMA,
    )
