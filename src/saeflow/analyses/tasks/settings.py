"""What is asked of task vectors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import Complaint, InputPath, Name, Section, Text, Unique, refuse
from saeflow.pursuits.names import PursuitName

TaskName = Literal[
    "past_tense",
    "plural",
    "capitalise",
    "opposite",
    "country_capital",
    "english_french",
    "first_letter",
    "next_number",
]
VectorKind = Literal["mean", "difference", "function", "placebo"]
LEAST = 20
"""Pairs of a task: 10 to learn from, 5 to choose by, 5 to tell from."""
INPUT, OUTPUT = "{input}", "{output}"
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def parted(template: str) -> tuple[str, str, str, str]:
    """What a template writes before an input, the separator behind it, the blanks that follow, and
    what closes an example."""
    opening, _, rest = template.partition(INPUT)
    between, _, closing = rest.partition(OUTPUT)
    separator = between.rstrip()
    return opening, separator, between[len(separator) :], closing


def fault_of_template(template: str) -> str:
    """Why a template cannot write examples; empty if it can."""
    if template.count(INPUT) != 1 or template.count(OUTPUT) != 1:
        return f"must hold {INPUT} once and {OUTPUT} once"
    if template.index(INPUT) > template.index(OUTPUT):
        return f"must hold {INPUT} before {OUTPUT}"
    _, separator, _, closing = parted(template)
    if not separator.strip():
        return f"has no separator between {INPUT} and {OUTPUT}, where tasks are read; write one"
    if not closing:
        return f"must end an example behind {OUTPUT}, such as with a line break"
    return ""


class TaskPair(Section):
    """An input and what becomes of it."""

    input: Text
    """What a prompt shows."""
    output: Text
    """What is right behind the separator."""


class TaskLists(Section):
    """The tasks, each a list of inputs with their outputs."""

    shipped: Annotated[list[TaskName], Unique] = Field(
        default=["past_tense", "plural", "capitalise"]
    )
    """Lists that come with the workflow, in `workflow/tasks`."""
    files: dict[Name, InputPath] = Field(default={})
    """Lists of your own by name: CSV with the columns ``input`` and ``output``, or JSON as function
    vectors are published with, a list of ``{"input": …, "output": …}``."""
    pairs: dict[Name, list[TaskPair]] = Field(default={})
    """Lists of your own that stand in the config, by name."""
    most: int = Field(default=120, ge=LEAST)
    """Pairs of a task that are used, drawn at random where there are more: one half to make vectors
    of, a quarter to choose by, a quarter that only tells."""

    @property
    def names(self) -> list[str]:
        """All tasks."""
        return [*self.shipped, *self.files, *self.pairs]

    @model_validator(mode="after")
    def _are_told_apart(self) -> TaskLists:
        complaints: list[Complaint] = []
        if not self.names:
            complaints.append(("shipped", "is empty, and no other list is named; name a task"))
        for key in ("files", "pairs"):
            before = [*self.shipped, *(self.files if key == "pairs" else ())]
            complaints += [
                (f"{key}.{name}", "is the name of another list; rename one")
                for name in getattr(self, key)
                if name in before
            ]
        refuse(complaints)
        return self


class TaskPrompts(Section):
    """How pairs are shown to the model."""

    before: str = "Follow the pattern:\n"
    """Text before all examples. Without any, a prompt without examples opens with its input, and
    models that make their first tokens a sink do little with what is added behind it."""
    template: str = "{input} -> {output}\n"
    """An example. What stands between its slots, without blanks at its end, is the separator, at
    whose last token vectors are read and edits are made."""
    other: str | None = "Question: {input}\nAnswer: {output}\n\n"
    """Another template, in which the vectors of the first are tried, too; null leaves it out."""
    shots: int = Field(default=8, ge=2, le=64)
    """Examples before the input that is asked for."""
    drawn: int = Field(default=32, ge=2)
    """Prompts with examples that a vector is the mean of."""
    scored: int = Field(default=3, ge=1, le=16)
    """Tokens of an output that count, from its first: the loss is the sum of their surprisals, and
    an answer is right where each is the likeliest. Longer outputs are told in `pairs.parquet`."""

    @model_validator(mode="after")
    def _may_be_filled(self) -> TaskPrompts:
        complaints: list[Complaint] = []
        for key, template in (("template", self.template), ("other", self.other)):
            if template is not None and (fault := fault_of_template(template)):
                complaints.append((key, fault))
        refuse(complaints)
        return self


class TaskVectors(Section):
    """Which vectors are made, and where they are tried."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Unique] | None = None
    """Layers after which vectors are tried; null takes eight, evenly spaced, and those of SAEs."""
    kinds: Annotated[list[VectorKind], Field(min_length=1), Unique] = Field(
        default=["mean", "difference", "function", "placebo"]
    )
    """``mean``: the residual stream at the separator, mean over prompts with examples.
    ``difference``: that, less the mean over prompts without examples. ``function``: what the heads
    with the largest indirect effects add, on average. ``placebo``: as ``mean``, but the outputs of
    the examples are exchanged among each other."""
    scales: Annotated[list[Positive], Field(min_length=1), Unique] = Field(default=[0.5, 1.0, 2.0])
    """How often a vector is added; for each vector that of the smallest loss on the pairs to choose
    by."""
    heads: int = Field(default=10, ge=1)
    """Heads of a function vector: those of the largest average indirect effect over all tasks."""
    head_prompts: int = Field(default=8, ge=1)
    """Prompts with exchanged outputs, of each task, in which heads are tried."""
    draws: int = Field(default=1_000, ge=50)
    """Draws of pairs for intervals."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals."""


class Cleaning(Section):
    """Task vectors as few latents of an SAE, optimised through the layers above."""

    saes: Annotated[list[Name], Field(min_length=1), Unique] | None = None
    """SAEs in which vectors are cleaned; null takes all that can be: those of the study's own model
    that read and write the residual stream behind a layer."""
    penalties: Annotated[list[Positive], Field(min_length=1), Unique] = Field(
        default=[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
    )
    """The path: nats that all latents of the vector cost together before anything is optimised."""
    steps: int = Field(default=40, ge=1)
    """Steps of Adam for each penalty, which begin where those of the one before it ended."""
    batch: int = Field(default=16, ge=1)
    """Prompts without examples of one step."""
    learning_rate: Positive = 0.05
    """Of Adam, in units of what each latent has in the beginning."""
    pursuits: Annotated[list[PursuitName], Unique] = Field(default=["gradient", "orthogonal"])
    """Beside it: sums of decoder rows that are as near to the vector as they can be."""
    counts: Annotated[list[Count], Field(min_length=1), Unique] = Field(
        default=[1, 2, 4, 8, 16, 32]
    )
    """Latents of such sums, and the largest of the SAE's own; the number that cleaning chose is
    added."""
    shown: int = Field(default=8, ge=1)
    """Latents of each task that are tried alone on every task: the largest that cleaning left, and
    as many that fire at the answers of its examples and not of others."""
    words: int = Field(default=5, ge=0)
    """Tokens that each of them is said to raise most."""

    @model_validator(mode="after")
    def _rises(self) -> Cleaning:
        complaints: list[Complaint] = []
        if self.penalties != sorted(self.penalties):
            complaints.append(("penalties", "must rise; sort them"))
        refuse(complaints)
        return self


class Tasks(Section):
    """Tasks that a model takes from examples in its prompt, as vectors and as latents."""

    lists: TaskLists = TaskLists()
    prompts: TaskPrompts = TaskPrompts()
    vectors: TaskVectors = TaskVectors()
    cleaning: Cleaning | None = Cleaning()
    """Null leaves it out."""
