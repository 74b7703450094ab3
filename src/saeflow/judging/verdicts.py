"""What a judge is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from saeflow.config.goal import Goal
from saeflow.config.sections import Judge

CRITERIA = ("behaviour", "coherence")


class Completion(NamedTuple):
    """A prompt and the text a model made of it."""

    prompt: str
    text: str
    """Prompt and continuation."""

    @property
    def continuation(self) -> str | None:
        """The text without its prompt; None if the text does not open with the prompt.

        White space around the prompt is overlooked: tokenizers add and drop it.
        """
        text, prompt = self.text.lstrip(), self.prompt.strip()
        return text[len(prompt) :] if text.startswith(prompt) else None


class Verdict(NamedTuple):
    """A score, or the reason why there is none; a failure is never a score of 0."""

    score: float | None
    """Between 0 and 1."""
    reason: str | None = None


Losses = Callable[[Sequence[Completion]], Sequence[float]]
"""The unsteered model's mean loss per token, in nats, of each continuation given its prompt."""


class Question(NamedTuple):
    """What is asked of a judge about a list of completions."""

    goal: Goal
    criterion: str
    """One of `CRITERIA`."""
    settings: Judge
    unsteered: Sequence[Completion] = ()
    """The model's completions without steering: what a judge that compares compares with."""
    losses: Losses | None = None
    seed: int = 0
    """The study's seed."""


JudgeFunction = Callable[[Sequence[Completion], Question], list[Verdict]]
"""Answers a question with one verdict per completion, in their order."""
