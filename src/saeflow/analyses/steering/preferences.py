"""Methods side by side: two completions of one sample, shown to the judge in both orders."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import polars as pl

from saeflow.analyses.steering.pairs import held_out, told_apart
from saeflow.decoding.completion import Completion
from saeflow.endpoint.asking import ask
from saeflow.endpoint.inquiries import Answer, Inquiry
from saeflow.endpoint.service import Service
from saeflow.judging.templates import PREFERENCE

SAMPLE = ("prompt", "sample", "repeat")
PREFERENCES_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String, "other": pl.String, "prompt": pl.String,
    "sample": pl.Int64,
    "repeat": pl.Int64, "preference": pl.Float64, "shown_first": pl.String,
    "shown_second": pl.String,
    "reason": pl.String,
}  # fmt: skip
_SHARE = {"A": 1.0, "tie": 0.5, "B": 0.0}


def pair_up(
    completions: pl.DataFrame, best: pl.DataFrame, count: int, selection: float, seed: int
) -> pl.DataFrame:
    """The pairs of completions to compare: every two methods of a goal, each at its chosen scale.

    Args:
        completions: of all goals and methods.
        best: columns goal, method, scale_index (null where no scale was chosen).
        count: samples per goal and pair, the first ones of the half that chose no scale.
        selection: share of the samples that choose the scale.
        seed: the study's seed.

    Returns:
        Columns goal, method, other, prompt, sample, repeat, text, other_text.
    """
    samples = held_out(completions, selection, seed).head(count)
    chosen = best.select("goal", "method", "scale_index").drop_nulls()
    shown = told_apart(completions).join(chosen, on=["goal", "method", "scale_index"], how="semi")
    texts = samples.join(shown, on=SAMPLE, maintain_order="left").select(
        "goal", "method", *SAMPLE, "text"
    )
    tables = []
    for goal in chosen["goal"].unique(maintain_order=True):
        of_goal = texts.filter(pl.col("goal") == goal)
        for method, other in combinations(chosen.filter(pl.col("goal") == goal)["method"], 2):
            theirs = of_goal.filter(pl.col("method") == other).select(
                *SAMPLE, other="method", other_text="text"
            )
            tables.append(
                of_goal.filter(pl.col("method") == method).join(
                    theirs, on=SAMPLE, maintain_order="left"
                )
            )
    columns = ["goal", "method", "other", *SAMPLE, "text", "other_text"]
    empty = texts.clear().with_columns(other=pl.lit(""), other_text=pl.lit(""))
    return pl.concat(
        [empty.select(columns), *(table.select(columns) for table in tables)]
    ).drop_nulls()


def judge_pairs(pairs: pl.DataFrame, criteria: Mapping[str, str], service: Service) -> pl.DataFrame:
    """Have every pair judged twice, either text first once, so that a liking for the first or
    second cancels out.

    Args:
        pairs: from `pair_up`.
        criteria: of every goal.
        service: the judging model.

    Returns:
        The columns of `PREFERENCES_SCHEMA`: ``preference`` is 1 where ``method`` was preferred both
        times, 0 where ``other`` was, null with a reason where either answer is missing.

    Raises:
        SaeflowError: the endpoint answers nothing at all, or the budget is spent.
    """
    inquiries = []
    for row in pairs.iter_rows(named=True):
        own, other = (Completion(row["prompt"], row[text]) for text in ("text", "other_text"))
        inquiries += [
            Inquiry(PREFERENCE, criteria[row["goal"]], texts)
            for texts in ((own, other), (other, own))
        ]
    answers = ask(inquiries, service)
    outcomes = [_outcome(*both) for both in zip(answers[::2], answers[1::2], strict=True)]
    judged = pl.DataFrame(
        outcomes,
        schema={name: PREFERENCES_SCHEMA[name] for name in list(PREFERENCES_SCHEMA)[6:]},
        orient="row",
    )
    return pl.concat([pairs.drop("text", "other_text"), judged], how="horizontal").select(
        pl.col(name).cast(kind) for name, kind in PREFERENCES_SCHEMA.items()
    )


def _outcome(
    first: Answer, second: Answer
) -> tuple[float | None, str | None, str | None, str | None]:
    """Preference, what was answered with the method's text shown first and second, and why
    something is missing."""
    as_first, as_second = (
        None if answer.value is None else str(answer.value) for answer in (first, second)
    )
    if as_first is None or as_second is None:
        return None, as_first, as_second, first.reason or second.reason
    return (_SHARE[as_first] + 1 - _SHARE[as_second]) / 2, as_first, as_second, None
