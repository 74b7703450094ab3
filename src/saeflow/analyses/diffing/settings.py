"""What is asked of the comparison of models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import Name, Position, Section, Unique, refuse
from saeflow.config.sections.labelled import TextSource

Scale = Annotated[float, Field(ge=0)]


class Classes(Section):
    """To which model each latent of a crosscoder belongs."""

    exclusive: float = Field(default=0.1, gt=0, lt=0.5)
    """A latent seems to be of one model where the other's share of its decoder norms is at most
    this."""
    shared: float = Field(default=0.3, gt=0, le=0.5)
    """A latent is shared where each model's share of its decoder norms is at least this; between
    the two bounds it is ``leaning``."""
    nu_error: float = Field(default=0.2, gt=0)
    """A latent that seems to be of one model is ``shrunk`` where what the other latents leave of
    the other model holds more than this of it, relative to its owner."""
    nu_reconstruction: float = Field(default=0.5, gt=0)
    """Of those that are not, a latent is ``decoupled`` where the other model's reconstruction by
    other latents holds more than this of it, relative to its owner."""
    blocks: int = Field(default=256, ge=2)
    """Blocks of the split ``eval`` that are read, at most."""
    groups: int = Field(default=20, ge=2, le=200)
    """Parts of that text which are resampled for intervals."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of all intervals of the analysis."""
    draws: int = Field(default=500, ge=100)
    """Resamples for intervals."""

    @model_validator(mode="after")
    def _in_order(self) -> Classes:
        if self.shared < self.exclusive:
            refuse([("shared", f"{self.shared:g} must be at least exclusive {self.exclusive:g}")])
        return self


class Steered(Section):
    """What models say when the mean difference between them is added."""

    scales: Annotated[list[Scale], Field(min_length=1), Unique] = Field(default=[0.25, 0.5, 1.0])
    """How much is added, in units of the mean norm of the activations there."""
    prompts: int = Field(default=16, ge=2)
    """Blocks of text whose first tokens are continued, no two of which open alike."""
    prompt_tokens: int = Field(default=4, ge=1)
    """So many of their first tokens, beside BOS."""
    new_tokens: int = Field(default=16, ge=1)
    """Tokens of a continuation, each the most probable."""
    shown: int = Field(default=4, ge=0)
    """Continuations of each kind that the report shows."""


class Baselines(Section):
    """What tells two models apart without any dictionary."""

    blocks: int = Field(default=128, ge=4)
    """Blocks of the split ``eval`` that are read, at most."""
    positions: int = Field(default=5, ge=1)
    """First positions after BOS whose mean differences are told one by one."""
    tokens: int = Field(default=20, ge=1)
    """Tokens listed at either end of a logit lens, places where the models differ most, and tokens
    after which they do."""
    components: int = Field(default=8, ge=1)
    """Principal components of the differences."""
    steering: Steered = Steered()
    """Steering with the mean difference."""


class CausalPrompts(TextSource):
    """Prompts with classes, such as those that a tuned model refuses and others."""

    speaker: Literal["user", "nobody"] = "user"
    """``user``: a text is what a user says, through the model's chat template. ``nobody``: it is
    text that the model goes on with. Messages are what they are."""
    each: int = Field(default=16, ge=2)
    """Of each class, drawn at random; a text that stands several times counts once."""
    positions: Annotated[list[Position], Field(min_length=1), Unique] | None = None
    """Where predictions are compared. Null: at every token that the template writes behind what the
    user says, or at the last where there is none."""


class Causal(Section):
    """How much of what tells the models' predictions apart goes through which latents."""

    blocks: int = Field(default=64, ge=2)
    """Blocks of the split ``eval`` that are read, at most."""
    numbers: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), Unique] = Field(
        default=[1, 2, 4, 8, 16, 32, 64]
    )
    """How many of the latents that contribute most to the difference are put in together."""
    singles: int = Field(default=16, ge=0)
    """Of those latents, how many are put in one by one, too."""
    random: int = Field(default=3, ge=1, le=100)
    """Draws of random directions, in place of those of as many latents."""
    prompts: CausalPrompts | None = None
    """Prompts on which the same is measured, by class and position."""


class Matching(Section):
    """Pairs of SAEs, one of each model, whose latents are matched by how they fire together."""

    pairs: dict[Name, Annotated[list[Name], Field(min_length=2, max_length=2), Unique]] = Field(
        default={}
    )
    """By a name of the pair, an SAE of the base and one of a compared model at the same hook."""
    shared: float = Field(default=0.5, gt=0, lt=1)
    """Latents that are matched are shared where their activations correlate at least so much."""
    exclusive: float = Field(default=0.2, gt=0, lt=1)
    """A latent is of its own model alone where it correlates less than this with all of the
    other's; matched latents between the two bounds are ``leaning``."""

    @model_validator(mode="after")
    def _in_order(self) -> Matching:
        if self.shared < self.exclusive:
            refuse([("shared", f"{self.shared:g} must be at least exclusive {self.exclusive:g}")])
        return self


class Shown(Section):
    """What is told of single latents."""

    latents: int = Field(default=10, ge=1)
    """Of each class, those that contribute most to the difference."""
    contexts: int = Field(default=6, ge=1)
    """Places of strongest activation of each."""
    window: int = Field(default=12, ge=1)
    """Tokens shown before such a place."""
    tokens: int = Field(default=8, ge=1)
    """Tokens that each model's decoder direction raises most."""
    points: int = Field(default=200, ge=1)
    """Tokens of each latent that are drawn for what it would be in either model."""


class Diffing(Section):
    """What sets models apart, such as a tuned one and the one that it is a copy of."""

    base: Name | None = None
    """The model that others are compared with; by default the study's own."""
    models: Annotated[list[Name], Field(min_length=1), Unique] | None = None
    """The models that are compared with it; by default all others of the study."""
    saes: Annotated[list[Name], Unique] | None = None
    """Crosscoders that read the base and others, and SAEs of the difference of another model less
    the base; by default all of the study."""
    baselines: Baselines = Baselines()
    """What tells models apart without a dictionary."""
    classes: Classes = Classes()
    """To which model latents belong."""
    causal: Causal = Causal()
    """What latents carry over from one model to the other."""
    matching: Matching = Matching()
    """What SAEs of one model each say, whose latents are matched."""
    shown: Shown = Shown()
    """What is told of single latents."""
