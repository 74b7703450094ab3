"""What is steered towards, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from saeflow.config.section import Name, Names, PathText, Section, Unique, refuse
from saeflow.config.sections.effects import Sampling
from saeflow.config.sections.prompts import Prompt
from saeflow.config.sections.published import Published, Source, disputes

PLANTED = "_planted"
"""Ends the name of a method that is given the latent that detects the goal's planted topic best."""

# fmt: off
Method = Literal[
    "caa", "sae", "sae_ts", "pinverse", "rotation", "fgaa", "random",
    "sae_planted", "sae_ts_planted", "pinverse_planted", "rotation_planted",
]
# fmt: on


class Goals(Section):
    """Behaviours to steer towards, each described by one YAML file."""

    directory: PathText = "workflow/goals/tales"
    """Where the files ``<name>.yaml`` lie: an absolute path, or one in the folder that Snakemake
    works in where it is there, else in the checkout."""
    names: Names = Field(min_length=1)
    """Goals of the study, in the order of tables and figures."""


class Fgaa(Section):
    """Which latents the method ``fgaa`` targets, of those whose mean activation differs between a
    goal's examples."""

    density: float = Field(default=0.01, gt=0, le=1)
    """Latents that fire on a larger share of the cached tokens are left out."""
    positive: int = Field(default=16, ge=0)
    """How many are kept of those that are most above in the texts that show the behaviour."""
    negative: int = Field(default=0, ge=0)
    """How many are kept of those that are most above in the texts that do not."""

    @model_validator(mode="after")
    def _keeps_some(self) -> Fgaa:
        if not self.positive + self.negative:
            refuse([("positive", "0 and negative 0 keep no latent; raise one of them")])
        return self


class Steering(Section):
    """Steered completions over a grid of scales."""

    sae: Name | None = None
    """The SAE whose latents are targeted; null is the first of ``saes``."""
    methods: Annotated[list[Method], Unique] = Field(
        default=["caa", "sae", "sae_ts", "pinverse", "rotation", "random"], min_length=1
    )
    """How vectors are built: ``caa`` from contrast examples, ``sae`` a decoder row, ``sae_ts``,
    ``pinverse`` and ``rotation`` from the effect approximator, ``fgaa`` from contrast examples in
    SAE space and the approximator, ``random`` a control. On the corpus ``tales``, ``sae_planted``,
    ``sae_ts_planted``, ``pinverse_planted`` and ``rotation_planted`` do the same for the latent
    that detects the goal's planted topic best, which no real study knows: they tell what a method
    lacks from what the choice of latents lacks, and take no part in which wins."""
    latents: int = Field(default=1, ge=1)
    """Latents targeted per goal when the goal's file names none: those whose firing is most
    specific to its texts."""
    shared_latents: bool = False
    """Whether goals may target the same latent, which then gets them the same vectors. Where they
    may not, latents are dealt out so that all goals together are served best."""
    bias_weight: float = Field(default=1.0, ge=0)
    """``sae_ts``, ``rotation``, ``fgaa``: weight of the bias term that is subtracted (λ)."""
    fgaa: Fgaa = Fgaa()
    """``fgaa``: which latents it targets."""
    pinverse_form: Literal["unit", "published"] = "unit"
    """``pinverse``: ``unit`` solves for the targets and has norm 1 like all vectors. ``published``
    solves for the targets at norm 1 less the bias and is not brought to norm 1, so that its norm
    multiplies every scale."""
    caa_positions: Literal["mean", "last"] = "mean"
    """``caa``: average over the tokens of an example, or its last token. BOS never."""
    scales: list[float] = Field(default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0], min_length=2)
    """How much of a vector is added, increasing: 0.0, the unsteered control, is among them, and a
    negative scale steers away from the behaviour."""
    scale_unit: Literal["norm", "absolute"] = "norm"
    """``norm``: scales are multiples of the mean activation norm at the hook."""
    prompts: list[Prompt] = Field(default=["I think"], min_length=1)
    """What completions start from: each is text, or a list of messages that the model's chat
    template writes."""
    samples: int = Field(default=64, ge=4)
    """Completions per goal, method, scale and prompt."""
    new_tokens: int = Field(default=24, ge=1)
    """Tokens generated per completion, at most: it ends with its text or turn."""
    sampling: Sampling = Sampling()
    """How the completions' tokens are drawn."""
    published: Published | None = None
    """Steering vectors on a hub, one ``vector.safetensors`` of this library per goal and method;
    ``{goal}`` and ``{method}`` in ``file`` stand for them."""
    source: Source = "auto"
    """Of the vectors of a goal. ``auto``: those on disk, else ``published``, else built here.
    ``compute`` and ``fetch`` insist."""

    @model_validator(mode="after")
    def _has_its_source(self) -> Steering:
        found = disputes(self.published, self.source, None)
        missing = [
            name
            for name in ("{goal}", "{method}")
            if self.published and name not in (self.published.file or "")
        ]
        if missing:
            found.append(
                (
                    "published.file",
                    (
                        f"must hold {' and '.join(missing)}, as in "
                        f"{{goal}}/{{method}}/vector.safetensors"
                    ),
                )
            )
        refuse(found)
        return self

    @field_validator("scales")
    @classmethod
    def _increasing(cls, scales: list[float]) -> list[float]:
        if scales != sorted(set(scales)) or 0.0 not in scales:
            raise ValueError("must increase and hold 0.0 (the unsteered control)")
        return scales
