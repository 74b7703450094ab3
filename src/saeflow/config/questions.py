"""Multiple-choice questions of the user, in a YAML file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from saeflow.config.section import Section, Text, Unique, refuse


class Question(Section):
    """One question, with what may be answered."""

    question: Text
    """What is asked."""
    answer: Text
    """The right answer."""
    others: Annotated[list[Text], Field(min_length=1), Unique]
    """Wrong ones, of about the same length."""

    @model_validator(mode="after")
    def _has_one_right_answer(self) -> Question:
        if self.answer in self.others:
            refuse([("others", f"'{self.answer}' is the right answer, too; remove it here")])
        return self


class Questions(Section):
    """One file of questions."""

    questions: list[Question] = Field(min_length=1)
    """In any order."""

    @model_validator(mode="after")
    def _asks_once(self) -> Questions:
        asked = [each.question for each in self.questions]
        refuse(
            [
                (f"questions.{i}.question", f"'{text}' is asked twice; remove one")
                for i, text in enumerate(asked)
                if text in asked[:i]
            ]
        )
        return self
