"""The judges by name; each is the function that its entry names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from saeflow.config.goal import Goal
from saeflow.config.sections.judges import JUDGES
from saeflow.decoding.completion import Completion
from saeflow.judging.verdicts import JudgeFunction, Question, Verdict


def one_by_one(judge: Callable[[Sequence[Completion], Question], list[Verdict]]) -> JudgeFunction:
    """A judge that answers one question at a time, as one that is given all."""
    return lambda completions, questions: [judge(completions, question) for question in questions]


def judge_function(kind: str) -> JudgeFunction:
    """The judge of a kind, as one that is given all questions."""
    function = _named(JUDGES[kind].function)
    return function if JUDGES[kind].is_hosted else one_by_one(function)


def counted_words(kind: str, texts: Sequence[str], goal: Goal) -> list[str]:
    """The words of some texts that count for a goal's behaviour with a judge of a kind, as they are
    written there; none where it does not count words."""
    named = JUDGES[kind].counted
    return sorted(_named(named)(texts, goal)) if named else []


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"saeflow.judging.{module}"), name)
