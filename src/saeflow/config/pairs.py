"""Pairs that a model is tuned on: what it is asked, and what it is to answer, in a YAML file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from saeflow.config.section import Complaint, Section, Text, refuse
from saeflow.config.sections.prompts import Message, Prompt

LEAST = 2
"""Of pairs of one label: one to learn from and one to be held out."""


class Pair(Section):
    """One prompt with its answer."""

    text: Text | None = None
    """The prompt as text, which the answer continues with or without a space as it is written."""
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    """The prompt as messages, in place of `text`; the last is by the user."""
    answer: Text
    """What the model is to say."""
    label: Text
    """What kind of pair it is, such as ``on topic``: results are told by label."""

    @model_validator(mode="after")
    def _has_one_prompt(self) -> Pair:
        if (self.text is None) == (self.messages is None):
            refuse([("text", "give either text or messages")])
        if self.messages and self.messages[-1].role != "user":
            refuse([("messages", "must end with what the user says")])
        return self

    @property
    def prompt(self) -> Prompt:
        """What the model is asked."""
        prompt = self.messages if self.text is None else self.text
        assert prompt is not None
        return prompt


class Pairs(Section):
    """One file of pairs."""

    pairs: list[Pair] = Field(min_length=LEAST)
    """In any order; what is learned in which step follows from the study's seed."""

    @model_validator(mode="after")
    def _may_be_learned(self) -> Pairs:
        complaints: list[Complaint] = []
        first: dict[str, int] = {}
        for number, pair in enumerate(self.pairs):
            asked = pair.model_dump_json(include={"text", "messages"})
            if first.setdefault(asked, number) != number:
                reason = f"asks what pairs.{first[asked]} asks; remove one"
                complaints.append((f"pairs.{number}", reason))
        labels = [pair.label for pair in self.pairs]
        for label in dict.fromkeys(labels):
            if labels.count(label) < LEAST:
                reason = f"label '{label}' has one pair, and one is held out; add more"
                complaints.append(("pairs", reason))
        refuse(complaints)
        return self
