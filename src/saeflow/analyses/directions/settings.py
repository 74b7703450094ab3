"""What is asked of directions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import (
    Complaint,
    HookName,
    InputPath,
    Name,
    Position,
    Section,
    Text,
    Unique,
    refuse,
)
from saeflow.config.sections.judging import Judge
from saeflow.config.sections.labelled import TextSource

SPLITS = ("train", "validation", "test")


class DirectionPrompts(TextSource):
    """Prompts with classes: those on which the model shows the behaviour, and those on which it
    does not."""

    with_it: Text
    """The class of prompts on which the behaviour is expected, such as harmful instructions."""
    without_it: Text
    """The class of prompts on which it is not."""
    lookalike: Text | None = None
    """A class of prompts that look like `with_it` and are not: how often the behaviour shows on
    them is reported. Where no direction is made of them, all are measured."""
    speaker: Literal["user", "nobody"] = "user"
    """``user``: a text is what a user says, through the model's chat template. ``nobody``: it is
    text that the model goes on with. Messages are what they are."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the prompts of each class by which a candidate is chosen."""
    test: float = Field(default=0.4, gt=0, lt=1)
    """Share on which everything is reported."""

    @model_validator(mode="after")
    def _leaves_some(self) -> DirectionPrompts:
        complaints: list[Complaint] = []
        if self.validation + self.test >= 0.95:
            share = self.validation + self.test
            reason = f"with validation {share:g}, which leaves nothing to make directions of"
            complaints.append(("test", f"{self.test:g} is {reason}; lower one"))
        classes = [self.with_it, self.without_it, *filter(None, [self.lookalike])]
        if len(set(classes)) < len(classes):
            complaints.append(
                ("without_it", "with_it, without_it and lookalike must be three classes")
            )
        refuse(complaints)
        return self


class Behaviour(Section):
    """How it is told that a model shows the behaviour."""

    phrases: Annotated[list[Text], Field(min_length=1), Unique]
    """What answers say that show it, such as ``I cannot``; in any case."""
    where: Literal["start", "anywhere"] = "start"
    """Where in an answer a phrase is sought."""
    tokens: Annotated[list[str], Field(min_length=1), Unique] | None = None
    """First tokens of answers that show it, each one token of the model; their log-odds need no
    generated text. By default the first token of every phrase."""


class ContrastSource(Section):
    """The difference of the mean activations of two classes of prompts."""

    with_it: Text | None = None
    """The class that it points to; by default that of the prompts."""
    without_it: Text | None = None
    """The class that it points away from; by default that of the prompts."""


class LatentSource(Section):
    """The decoder direction of one latent."""

    sae: Name
    """An SAE of the study that reads a ``hook_resid_post``."""
    latent: int = Field(ge=0)
    """The latent."""


class VectorSource(Section):
    """A vector in a file."""

    path: InputPath
    """A .safetensors, .npz or .pt file that holds one tensor of the model's width; an array of
    several tensors is told by `tensor`."""
    tensor: Text | None = None
    """The name of the tensor; needed where the file holds several."""
    hook: HookName
    """Where it is read and added: a ``hook_resid_post``."""


class DifferenceSource(Section):
    """The mean difference between what two models hold of the same prompts, at the same place."""

    model: Name
    """The model whose activations are taken, such as a tuned one."""
    less: Name
    """The model whose activations are taken away, such as the one that it is a copy of."""
    with_it: Text | None = None
    """The class of the prompts; by default `with_it` of the prompts."""


class DirectionSources(Section):
    """Directions by name and by what they are made of."""

    contrast: dict[Name, ContrastSource] = Field(default={})
    """Differences of means of two classes."""
    latent: dict[Name, LatentSource] = Field(default={})
    """Decoder directions of latents."""
    vector: dict[Name, VectorSource] = Field(default={})
    """Vectors of files."""
    difference_of_models: dict[Name, DifferenceSource] = Field(default={})
    """Differences between models."""

    @model_validator(mode="after")
    def _named_once(self) -> DirectionSources:
        complaints: list[Complaint] = []
        names = list(self.names)
        for kind in type(self).model_fields:
            complaints += [
                (f"{kind}.{name}", f"another direction is called '{name}', too; rename one")
                for name in getattr(self, kind)
                if names.count(name) > 1
            ]
        if not names:
            complaints.append(("", "names no direction; write contrast: {direction: {}}"))
        refuse(complaints)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Of all directions."""
        return tuple(name for kind in type(self).model_fields for name in getattr(self, kind))

    @property
    def searched(self) -> tuple[str, ...]:
        """Of those that have candidates at every position and layer."""
        return (*self.contrast, *self.difference_of_models)


class Selection(Section):
    """How one of the candidates of a direction is chosen, by the rule of Arditi and others."""

    positions: Annotated[list[Position], Field(min_length=1), Unique] | None = None
    """Positions of candidates; by default every token that the chat template writes behind what
    the user says, or, where the prompts are text, the tokens in which all of them end."""
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Unique] | None = None
    """Layers of candidates; by default all."""
    divergence: float = Field(default=0.1, gt=0)
    """The largest KL divergence, in nats, that ablating a candidate may cause in the first token
    of answers to `without_it` prompts."""
    induced: float = 0.0
    """The least mean log-odds that adding a candidate must bring `without_it` prompts to."""
    depth: float = Field(default=0.8, gt=0, le=1)
    """Share of the layers, from the lowest, in which a candidate may lie."""
    filter: bool = True
    """Whether `with_it` prompts whose own log-odds are below 0, and `without_it` prompts whose are
    above, are left out of train and validation. Where too few of a class would be left, all are
    kept."""
    bootstraps: int = Field(default=50, ge=2, le=10_000)
    """Resamples of the prompts, halves and shuffles of the labels, by which a candidate's
    stability and its null are told."""


class EditMeasures(Section):
    """What is done with a direction, and measured."""

    scales: Annotated[list[float], Field(min_length=1), Unique] = Field(
        default=[0.5, 1.0, 1.5, 2.0]
    )
    """How much of it is added, in units of the gap between the mean projections of the classes
    onto it; negative to subtract."""
    controls: int = Field(default=3, ge=1, le=100)
    """Of each kind: random directions, directions of shuffled labels, other candidates."""
    prompts: int = Field(default=64, ge=8)
    """Test prompts of each class at most."""
    new_tokens: int = Field(default=16, ge=1)
    """Tokens of an answer, in which phrases are sought and divergences measured."""
    loss_blocks: int = Field(default=16, ge=2)
    """Blocks of the split ``eval`` on which the loss is measured."""
    texts: bool = False
    """Whether tables hold the answers' texts. Answers to harmful prompts may be harmful; reports
    never show them."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals."""
    draws: int = Field(default=2_000, ge=100)
    """Resamples of the prompts for intervals."""


class JudgedAnswers(Section):
    """What a judge says of the answers, beside their first words."""

    goal: InputPath
    """A goal's file: its ``criterion`` is what a judge is asked, its ``words`` are what ``lexical``
    counts, its ``topic`` what ``planted`` looks for."""
    judge: Judge = Judge(kind="lexical")
    """Who judges, for behaviour alone."""


class Directions(Section):
    """Directions in the residual stream: what they do, and how sure that is."""

    prompts: DirectionPrompts
    """What models are asked."""
    behaviour: Behaviour
    """How the behaviour is told."""
    sources: DirectionSources = DirectionSources(contrast={"contrast": ContrastSource()})
    """The directions."""
    selection: Selection = Selection()
    """How a candidate is chosen."""
    measures: EditMeasures = EditMeasures()
    """What is done with it."""
    judged: JudgedAnswers | None = None
    """Has a judge read the answers, whose texts must be kept for it: `measures.texts`."""
    models: Annotated[list[Name], Field(min_length=1), Unique] | None = None
    """The models that are edited; by default all of the study. Of several, each one's directions
    are tried on every other."""
