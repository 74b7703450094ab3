"""The kinds of judges: one entry each.

A new judge is one entry here and the function that it names in `saeflow.judging`.
"""

from __future__ import annotations

from typing import NamedTuple


class JudgeKind(NamedTuple):
    """What a config, a plan and a report know of a kind of judge."""

    name: str
    function: str
    """MODULE:FUNCTION below `saeflow.judging`: a `JudgeFunction`."""
    brief: str
    """For the reference of the config."""
    words: str
    """For the report."""
    corpus: str | None = None
    """The only corpus that it knows; None where it judges any text."""
    needs_losses: bool = False
    """It asks for the unsteered model's loss, and so for the model."""
    needs_words: bool = False
    """It counts the words that a goal's file lists."""
    counted: str | None = None
    """MODULE:FUNCTION below `saeflow.judging`: from texts and a goal to the words that count for
    its behaviour; None where no words do."""
    is_hosted: bool = False
    """It is a model behind an endpoint, which may be asked anything, and costs calls."""

    def why_not(self, corpus: str) -> str | None:
        """Why it cannot judge texts of a kind of corpus; None where it can."""
        if self.corpus in (None, corpus):
            return None
        return f"'{self.name}' knows only the corpus '{self.corpus}'; set kind: lexical"


JUDGES = {
    kind.name: kind
    for kind in (
        JudgeKind(
            "planted",
            "planted:judge_planted",
            "exact, by the grammar; only for the corpus ``tales``",
            "Scores are exact: the grammar that wrote the corpus tells how much of a text is about "
            "the topic, and how much of it the grammar could have written.",
            corpus="tales",
            counted="planted:counted_words",
        ),
        JudgeKind(
            "lexical",
            "lexical:judge_lexical",
            "word lists of the goal for the behaviour, the unsteered model's own loss for the "
            "coherence; for any language model",
            "Behaviour is the share of a text's words that are on the goal's list; coherence "
            "compares the unsteered model's loss on the text with its loss on its own texts.",
            needs_losses=True,
            needs_words=True,
            counted="lexical:counted_words",
        ),
        JudgeKind(
            "openai",
            "hosted:judge_hosted",
            "a language model behind any OpenAI-compatible endpoint",
            "Scores are a language model's answers to one question per text and criterion.",
            is_hosted=True,
        ),
    )
}
"""By the value of `judge.kind`."""
