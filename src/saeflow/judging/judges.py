"""The judges by name; a new judge is one function and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saeflow.decoding.completion import Completion
from saeflow.judging.hosted import judge_hosted
from saeflow.judging.lexical import judge_lexical
from saeflow.judging.planted import judge_planted
from saeflow.judging.verdicts import JudgeFunction, Question, Verdict


def one_by_one(judge: Callable[[Sequence[Completion], Question], list[Verdict]]) -> JudgeFunction:
    """A judge that answers one question at a time, as one that is given all."""
    return lambda completions, questions: [judge(completions, question) for question in questions]


JUDGES: dict[str, JudgeFunction] = {
    "planted": one_by_one(judge_planted),
    "lexical": one_by_one(judge_lexical),
    "openai": judge_hosted,
}
