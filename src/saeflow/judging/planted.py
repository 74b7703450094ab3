"""The planted judge: exact scores of texts of the corpus ``tales``."""

from __future__ import annotations

from collections.abc import Sequence

from saeflow.config.goal import Goal
from saeflow.corpora import tales
from saeflow.decoding.completion import Completion
from saeflow.errors import SaeflowError
from saeflow.judging.verdicts import Question, Verdict


def judge_planted(completions: Sequence[Completion], question: Question) -> list[Verdict]:
    """Score whole texts, prompts included, by the grammar that the corpus was written with.

    Raises:
        SaeflowError: the goal's topic is not one of the corpus.
    """
    if question.criterion == "coherence":
        return [Verdict(tales.coherence(completion.text)) for completion in completions]
    # The first is neutral, which is no behaviour.
    topic, topics = (question.goal.topic, tales.TOPICS[1:])
    if topic not in topics:
        where = f"goal '{question.goal.title}'"
        raise SaeflowError(
            f"{where}: the corpus 'tales' has no topic '{topic}'; set topic to one of "
            f"{', '.join(topics)}"
        )
    return [Verdict(tales.behaviour(completion.text)[topic]) for completion in completions]


def counted_words(texts: Sequence[str], goal: Goal) -> set[str]:
    """The words of some texts that count for a goal's behaviour, as they are written there."""
    if goal.topic not in tales.TOPICS[1:]:
        return set()
    words = tales.topic_words(goal.topic)
    return {token for text in texts for token in tales.split_tokens(text) if token.lower() in words}
