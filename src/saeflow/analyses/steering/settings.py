"""What is steered towards, how, and how it is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from saeflow.analyses.steering.methods import AT_ANY_LAYER, BUILDING, NAMES, TELLING
from saeflow.config.section import LocalPath, Name, Names, Section, Unique, refuse
from saeflow.config.sections.judging import Judge
from saeflow.config.sections.prompts import Prompt
from saeflow.config.sections.published import Published, Source, disputes
from saeflow.config.sections.sampling import Sampling
from saeflow.pursuits.names import PursuitName

if TYPE_CHECKING:
    Method = str
    Telling = str
else:
    Method = Literal[NAMES]
    Telling = Literal[tuple(method.name for method in TELLING)]


class Goals(Section):
    """Behaviours to steer towards, each described by one YAML file."""

    directory: LocalPath = "workflow/goals/tales"
    """Where the files ``<name>.yaml`` lie: an absolute path, or one in the folder that Snakemake
    works in where it is there, else in the checkout."""
    names: Names = Field(min_length=1)
    """Goals of the study, in the order of tables and figures."""


class Targets(Section):
    """Which latents a goal's vectors aim at, where the goal's file names none."""

    latents: int = Field(default=1, ge=1)
    """Latents targeted per goal: those whose firing is most
    specific to its texts."""
    shared: bool = False
    """Whether goals may target the same latent, which then gets them the same vectors. Where they
    may not, latents are dealt out so that all goals together are served best."""


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


class Pursuit(Section):
    """What the method ``pursuit`` keeps of the vector of ``caa``."""

    k: int = Field(default=8, ge=1)
    """Decoder rows in the sum, at most."""
    by: PursuitName = "orthogonal"
    """How they are chosen and weighted: ``gradient``, and ``gradient_positive`` with no weight
    below zero; ``orthogonal``, by least squares after every choice; ``matching``; ``lasso``."""


class SteeringVectors(Section):
    """How vectors are built."""

    methods: Annotated[list[Method], Unique] = Field(
        default=["caa", "sae", "sae_ts", "pinverse", "rotation", "random"],
        min_length=1,
        description="How vectors are built: "
        + ", ".join(f"``{method.name}`` {method.brief}" for method in BUILDING)
        + ". On the corpus ``tales``, those that end in ``_planted`` do the same for the latent "
        "that detects the goal's planted topic best, which no real study knows: they tell what a "
        "method lacks from what the choice of latents lacks, and take no part in which wins.",
    )
    bias_weight: float = Field(default=1.0, ge=0)
    """``sae_ts``, ``rotation``, ``fgaa``: weight of the bias term that is subtracted (λ)."""
    fgaa: Fgaa = Fgaa()
    """``fgaa``: which latents it targets."""
    pursuit: Pursuit = Pursuit()
    """``pursuit``: how many latents, and how they are chosen."""
    pinverse_form: Literal["unit", "published"] = "unit"
    """``pinverse``: ``unit`` solves for the targets and has norm 1 like all vectors. ``published``
    solves for the targets at norm 1 less the bias and is not brought to norm 1, so that its norm
    multiplies every scale."""
    caa_positions: Literal["mean", "last"] = "mean"
    """``caa``, ``pursuit``: average over the tokens of an example, or its last token. BOS never."""
    published: Published | None = None
    """Steering vectors on a hub, one ``vector.safetensors`` of this library per goal and method;
    ``{goal}`` and ``{method}`` in ``file`` stand for them."""
    source: Source = "auto"
    """Of the vectors of a goal. ``auto``: those on disk, else ``published``, else built here.
    ``compute`` and ``fetch`` insist."""

    @model_validator(mode="after")
    def _has_its_source(self) -> SteeringVectors:
        complaints = disputes(self.published, self.source, None)
        missing = [
            name
            for name in ("{goal}", "{method}")
            if self.published and name not in (self.published.file or "")
        ]
        if missing:
            example = "{goal}/{method}/vector.safetensors"
            reason = f"must hold {' and '.join(missing)}, as in {example}"
            complaints.append(("published.file", reason))
        refuse(complaints)
        return self


class Prompting(Section):
    """Methods that say in words what vectors are to do: the baselines that a vector must beat. They
    have no scale, and no place where vectors are listed."""

    methods: Annotated[list[Telling], Unique] = Field(
        default=[method.name for method in TELLING],
        min_length=1,
        description="What stands in front: "
        + ", ".join(f"``{method.name}`` {method.brief}" for method in TELLING)
        + ". The instruction is the key ``instruction`` of the goal's file; by default it is made "
        "of its criterion.",
    )
    examples: int = Field(default=4, ge=1)
    """``few_shot``: how many of the goal's ``positive`` texts, the first ones."""


class Completions(Section):
    """What is written with a vector, over a grid of scales."""

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

    @field_validator("scales")
    @classmethod
    def _increasing(cls, scales: list[float]) -> list[float]:
        if scales != sorted(set(scales)) or 0.0 not in scales:
            raise ValueError("must increase and hold 0.0 (the unsteered control)")
        return scales


class Capability(Section):
    """What steering costs the model where no behaviour is asked for, at every scale of every
    vector."""

    tokens: int = Field(default=1024, ge=0)
    """Tokens of the corpus's part ``eval`` whose loss is measured, rounded up to whole blocks; 0
    leaves it out."""
    questions: LocalPath | None = "workflow/questions/everyday.yaml"
    """YAML file of multiple-choice questions: an absolute path, or one in the folder that Snakemake
    works in where it is there, else in the checkout. Null leaves them out."""

    @model_validator(mode="after")
    def _measures_something(self) -> Capability:
        if not self.tokens and self.questions is None:
            refuse([("tokens", "0 and questions null measure nothing; set capability: null")])
        return self


class Search(Section):
    """Where else a vector may be added, and how much of it: the layer and the scale at which it
    does best, of those that move the model no further than a budget. One half of the completions
    chooses, the other reports. Prompts, lengths, sampling and the unit of scales are those of
    `steering.completions`."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Unique] = Field(min_length=1)
    """Layers behind which vectors are added, at ``hook_resid_post``; the study's own is always
    among them."""
    methods: Annotated[list[Method], Unique] = Field(
        default=list(AT_ANY_LAYER),
        min_length=1,
        description="Of ``steering.vectors.methods``: "
        + " and ".join(f"``{name}``" for name in AT_ANY_LAYER)
        + " are built anew at each layer; all others are built from an SAE, which reads at the "
        "study's layer, and are searched along the scales there.",
    )
    scales: list[float] = Field(default=[0.25, 0.5, 0.75, 1.0], min_length=1)
    """How much of a vector is added, increasing; multiples of the mean activation norm at its
    layer, unless ``scale_unit`` says otherwise. The unsteered model, 0.0, is always among what is
    chosen from, and is not listed."""
    kl_budget: float = Field(default=0.5, gt=0)
    """Most nats per token that the steered model's predictions may lie from the unsteered model's,
    the mean over the completions that choose."""
    samples: int | None = Field(default=None, ge=4)
    """Completions per goal, method, layer, scale and prompt; null is as many as
    ``steering.completions`` has."""
    tokens: int = Field(default=1024, ge=1)
    """Tokens of the corpus's part ``eval`` on which the mean norm at each layer is measured,
    rounded up to whole blocks."""

    @field_validator("scales")
    @classmethod
    def _increasing(cls, scales: list[float]) -> list[float]:
        if scales != sorted(set(scales)) or 0.0 in scales:
            raise ValueError("must increase, without 0.0, which is always among what is tried")
        return scales

    def layers_of(self, method: str, own: int) -> list[int]:
        """The layers at which a method is tried, upwards; `own` is the study's."""
        return sorted({own, *(self.layers if method in AT_ANY_LAYER else ())})


class Summary(Section):
    """Tables of goals, methods and scales."""

    bootstrap: int = Field(default=1000, ge=100)
    """Draws behind every interval."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the intervals."""
    selection: float = Field(default=0.5, gt=0, lt=1)
    """Share of the completions that choose the scale; the others report."""
    least_scored: float = Field(default=0.5, ge=0, le=1)
    """Least share of a scale's completions that must have both scores, in either part, for the
    scale to be chosen."""
    coherence_levels: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.95, 0.9, 0.8, 0.6], min_length=1
    )
    """Coherence, as shares of the unsteered coherence, at which methods are compared."""
    divergence_levels: list[Annotated[float, Field(gt=0)]] = Field(
        default=[0.1, 0.2, 0.5, 1.0], min_length=1
    )
    """Mean KL divergence from the unsteered model, nats per token, at which methods are
    compared."""


class Steering(Section):
    """Steered completions towards goals, and how good they are."""

    goals: Goals
    sae: Name | None = None
    """The SAE whose latents are targeted; null is that of ``effects``, or the first of ``saes``."""
    targets: Targets = Targets()
    vectors: SteeringVectors = SteeringVectors()
    prompting: Prompting | None = None
    """Null is vectors alone."""
    completions: Completions = Completions()
    capability: Capability | None = None
    """Null measures none."""
    search: Search | None = None
    """Null adds vectors at the study's hook alone."""
    judge: Judge = Judge()
    pairs: int = Field(default=0, ge=0)
    """Judge ``openai``: held-out samples per goal and pair of methods that are compared side by
    side, in both orders; 0 is none."""
    summary: Summary = Summary()

    @property
    def methods(self) -> list[str]:
        """All methods: those with vectors, then those in words."""
        return [*self.vectors.methods, *(self.prompting.methods if self.prompting else [])]

    @model_validator(mode="after")
    def _judge_can_compare(self) -> Steering:
        if self.pairs and not self.judge.traits.is_hosted:
            reason = f"'{self.judge.kind}' answers no such questions; set kind: openai, or pairs: 0"
            refuse([("judge.kind", reason)])
        return self
