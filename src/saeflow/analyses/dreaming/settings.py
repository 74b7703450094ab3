"""Of what is dreamed, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import Complaint, InputPath, Name, Section, Unique, refuse

Method = Literal["epo", "adaptive", "random"]
FORWARD, GRADIENT = 1, 3
"""What a prompt costs that is run, and one that is run with a gradient."""
Ends = Annotated[list[float], Field(min_length=2, max_length=2)]
Latent = Annotated[int, Field(ge=0)]


class LatentsTogether(Section):
    """Several latents of an SAE that one prompt is to move at once."""

    sae: Name
    """The SAE."""
    latents: Annotated[list[Latent], Field(min_length=2), Unique]
    """The latents, two or more."""
    combine: Literal["sum", "minimum"] = "minimum"
    """What is made large: the ``sum`` of their values, or the ``minimum``."""


class LogitTarget(Section):
    """What the model would say next."""

    token: str = Field(min_length=1)
    """A token as text, a space before it included."""
    against: str | None = Field(default=None, min_length=1)
    """The token whose logit is taken away; null takes away the largest of all others."""


class DreamTargets(Section):
    """Of what prompts are dreamed."""

    saes: Annotated[list[Name], Field(min_length=1), Unique] | None = None
    """SAEs whose latents are dreamed of; by default the one whose latents are targeted."""
    count: int = Field(default=8, ge=0)
    """Latents of each SAE that are drawn, among those that fire where `examples` tells."""
    latents: dict[Name, Annotated[list[Latent], Unique]] = Field(default={})
    """By SAE: latents that are dreamed of in place of drawn ones."""
    together: dict[Name, LatentsTogether] = Field(default={})
    """Several latents at once, by name."""
    directions: dict[Name, InputPath] = Field(default={})
    """``.safetensors`` files with one vector each, at the study's hook, by name: the projection of
    activations onto it is made large."""
    logits: dict[Name, LogitTarget] = Field(default={})
    """Differences of logits behind the prompt, by name."""


class DreamObjective(Section):
    """What is made large of a latent, and where."""

    read: Literal["activation", "decoder"] = "activation"
    """``activation``: what the encoder gives, and how far it is from firing where it does not.
    ``decoder``: the product of the activation with the decoder row, which a larger activation of
    any kind raises, too."""
    position: Literal["last", "maximum", "end"] = "last"
    """The ``last`` dreamed token, the ``maximum`` over the dreamed tokens but for one that nothing
    stands before, or the ``end``: the last token of what stands behind them. Logits are always read
    at the end."""


class DreamFrame(Section):
    """What stands around a dreamed prompt, and what it may hold."""

    speaker: Literal["nobody", "user"] = "nobody"
    """``nobody``: the prompt is text. ``user``: a user says it, in the model's chat template."""
    bos: bool = True
    """Whether BOS stands first. Without anything before it, the first token has no
    cross-entropy."""
    before: str = ""
    """Text before the prompt; of a user, in what the user says."""
    after: str = ""
    """Text behind it."""
    tokens: Literal["any", "ascii", "words"] = "any"
    """Which tokens a prompt may hold: any but special ones and parts of characters; those of
    printable ASCII; those that are letters alone, with or without a space before them."""
    only: Annotated[list[str], Field(min_length=2), Unique] | None = None
    """The texts of the only tokens that a prompt may hold."""
    round_trip: bool = True
    """Whether prompts are left out whose text the tokenizer reads as other tokens."""


class DreamSearch(Section):
    """How prompts are sought."""

    methods: Annotated[list[Method], Field(min_length=1), Unique] = Field(default=["adaptive"])
    """``epo``: evolutionary prompt optimisation as published. ``adaptive``: the same, begun by a
    beam search from the last token to the first, with up to three tokens replaced at once early and
    one late, of a list that grows shorter. ``random``: the same without gradients, with any token
    in any place. All spend what `rounds` of EPO take."""
    length: int = Field(default=12, ge=1, le=512)
    """Tokens of a prompt."""
    population: int = Field(default=8, ge=1)
    """Prompts that are bettered side by side, one per penalty."""
    rounds: int = Field(default=300, ge=1)
    """How often each of them has children."""
    children: int = Field(default=32, ge=1)
    """Of each prompt in a round."""
    top: int = Field(default=512, ge=1)
    """In each place a child gets one of so many tokens that promise most by the gradient."""
    penalties: Ends = Field(default=[0.1, 10.0])
    """The weight of cross-entropy, in nats per token, in the first and the last slot; between them
    it rises by equal factors."""
    tenths: bool = True
    """Whether a latent's values are counted in tenths of its largest activation in `examples`, so
    that penalties mean the same for every latent; else in the SAE's own units."""
    restart_every: int = Field(default=50, ge=0)
    """After so many rounds all slots go on from one of them; 0 never does that."""
    restart_penalty: Ends = Field(default=[0.67, 6.0])
    """The penalty by which that one is chosen is drawn between these."""
    contexts: bool = True
    """Whether a search begins with the latent's own contexts of `examples`, beside drawn
    prompts."""

    @model_validator(mode="after")
    def _rises(self) -> DreamSearch:
        complaints: list[Complaint] = []
        for key in ("penalties", "restart_penalty"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                complaints.append((key, f"{low:g}, {high:g} must be above 0 and rise"))
        refuse(complaints)
        return self


class DreamReport(Section):
    """What is told of what was found."""

    prompts: int = Field(default=8, ge=2)
    """Prompts of a front that are told, from the likeliest to the one that moves the target
    most."""
    swaps: int = Field(default=8, ge=1)
    """Tokens that each token of them is exchanged for: what it lends to the value is the value less
    the mean of those."""


class Dreaming(Section):
    """Prompts that move a latent, a direction or a logit most, and are likely text at once."""

    targets: DreamTargets = DreamTargets()
    objective: DreamObjective = DreamObjective()
    frame: DreamFrame = DreamFrame()
    search: DreamSearch = DreamSearch()
    report: DreamReport = DreamReport()

    @model_validator(mode="after")
    def _reads_somewhere(self) -> Dreaming:
        complaints: list[Complaint] = []
        if self.frame.speaker == "nobody" and not self.frame.bos and self.search.length < 2:
            complaints.append(("search.length", "of 1 without BOS has no cross-entropy; set 2"))
        refuse(complaints)
        return self
