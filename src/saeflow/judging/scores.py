"""Completions to scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from saeflow.config.goal import Goal
from saeflow.config.sections import Judge
from saeflow.errors import SaeflowError
from saeflow.judging.judges import JUDGES
from saeflow.judging.verdicts import CRITERIA, Completion, Losses, Question, Verdict

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
) -> pl.DataFrame:
    """Have completions judged by every criterion.

    Args:
        completions: columns completion_id, prompt, text and scale_index.
        goal: what the completions were steered towards.
        settings: which judge, and how it judges.
        seed: the study's seed.
        losses: the unsteered model's loss, for the judge 'lexical'; see `saeflow.judging.losses`.
        unsteered: columns prompt and text; default is the completions of scale_index 0.

    Returns:
        A table with `SCORES_SCHEMA`, one row per completion and criterion: a score between 0 and 1,
        or none and a reason.

    Raises:
        SaeflowError: two completions have one id, or the judge cannot judge this goal at all.
    """
    if completions["completion_id"].is_duplicated().any():
        raise SaeflowError("scores: two completions have the same completion_id; make the completions again")
    unsteered = completions.filter(pl.col("scale_index") == 0) if unsteered is None else unsteered
    texts, references = _completions(completions.drop_nulls("text")), _completions(unsteered.drop_nulls("text"))
    answered = completions["text"].is_not_null().to_list()
    tables = []
    for criterion in CRITERIA:
        question = Question(goal, criterion, settings, references, losses, seed)
        verdicts = iter(_ask(settings.kind, texts, question))
        tables.append(
            _table(
                completions["completion_id"],
                criterion,
                [next(verdicts) if given else Verdict(None, "there is no text") for given in answered],
                settings.kind,
            )
        )
    return pl.concat(tables)


def checked(verdict: Verdict) -> Verdict:
    """A verdict with a score between 0 and 1, or with none and a reason."""
    if verdict.score is None:
        return Verdict(None, verdict.reason or "the judge gave no reason")
    if not math.isfinite(verdict.score) or not 0.0 <= verdict.score <= 1.0:
        return Verdict(None, f"the score {verdict.score:g} is not between 0 and 1")
    return verdict


def _ask(judge: str, completions: Sequence[Completion], question: Question) -> list[Verdict]:
    verdicts = JUDGES[judge](completions, question)
    if len(verdicts) != len(completions):
        raise SaeflowError(
            f"judge '{judge}': answered {len(verdicts)} times to {len(completions)} completions; correct the judge"
        )
    return [checked(verdict) for verdict in verdicts]


def _completions(table: pl.DataFrame) -> list[Completion]:
    return [Completion(prompt, text) for prompt, text in table.select("prompt", "text").iter_rows()]


def _table(ids: pl.Series, criterion: str, verdicts: Sequence[Verdict], judge: str) -> pl.DataFrame:
    rows = len(verdicts)
    return pl.DataFrame(
        {
            "completion_id": ids,
            "criterion": [criterion] * rows,
            "score": [verdict.score for verdict in verdicts],
            "reason": [verdict.reason for verdict in verdicts],
            "judge": [judge] * rows,
            "attempt": [1] * rows,
            "cached": [False] * rows,
        },
        schema=SCORES_SCHEMA,
    )
