"""What a judge is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from saeflow.config.goal import Goal
from saeflow.config.sections import Judge
from saeflow.decoding.completion import Completion

if TYPE_CHECKING:
    from saeflow.endpoint.service import Service

CRITERIA = ("behaviour", "coherence")
THREE_WAY = ("concept", "instruction", "fluency")
"""The criteria of the second protocol."""


def criteria(settings: Judge) -> tuple[str, ...]:
    """What a judge is asked about every completion."""
    return CRITERIA + (THREE_WAY if "three_way" in settings.protocols else ())


class Verdict(NamedTuple):
    """A score, or the reason why there is none; a failure is never a score of 0."""

    score: float | None
    """Between 0 and 1."""
    reason: str | None = None
    attempt: int = 1
    """Requests that were needed."""
    cached: bool = False
    """Whether the answer was known before."""


Losses = Callable[[Sequence[Completion]], Sequence[float]]
"""The unsteered model's mean loss per token, in nats, of each continuation given its prompt."""


class Question(NamedTuple):
    """What is asked of a judge about a list of completions."""

    goal: Goal
    criterion: str
    """One of `CRITERIA`, or of `THREE_WAY`."""
    settings: Judge
    unsteered: Sequence[Completion] = ()
    """The model's completions without steering: what a judge that compares compares with."""
    losses: Losses | None = None
    seed: int = 0
    """The study's seed."""
    service: Service | None = None
    """The judging model and its ledger."""


JudgeFunction = Callable[[Sequence[Completion], Sequence[Question]], list[list[Verdict]]]
"""Answers each question with one verdict per completion, in their order."""
