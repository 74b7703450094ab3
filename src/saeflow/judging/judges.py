"""The judges by name; each is the function that its entry names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from saeflow.config.sections.judges import JUDGES
from saeflow.decoding.completion import Completion
from saeflow.judging.verdicts import JudgeFunction, Question, Verdict


def one_by_one(judge: Callable[[Sequence[Completion], Question], list[Verdict]]) -> JudgeFunction:
    """A judge that answers one question at a time, as one that is given all."""
    return lambda completions, questions: [judge(completions, question) for question in questions]


def judge_function(kind: str) -> JudgeFunction:
    """The judge of a kind, as one that is given all questions."""
    module, _, name = JUDGES[kind].function.partition(":")
    function = getattr(importlib.import_module(f"saeflow.judging.{module}"), name)
    return function if JUDGES[kind].is_hosted else one_by_one(function)
