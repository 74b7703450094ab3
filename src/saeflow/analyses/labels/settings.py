"""What is asked of words for latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import InputPath, Name, Names, Section, Unique, refuse
from saeflow.config.sections.prompts import Prompt

Source = Literal["tokens", "import", "self"]


class LabelledLatents(Section):
    """Which latents of each SAE get labels; those named here beside those that are drawn."""

    listed: Annotated[list[Annotated[int, Field(ge=0)]], Unique] = Field(default=[])
    """Latents by their numbers, of every SAE."""
    targets: bool = False
    """Whether those that goals of `steering` are aimed at are among them."""
    drawn: int = Field(default=100, ge=0)
    """How many are drawn beside, of those that fire often enough."""
    least: int = Field(default=100, ge=1)
    """Tokens of the cache that a latent fires on, at least, to be drawn."""


class TokenWording(Section):
    """How tokens become a label."""

    promoted: int = Field(default=5, ge=1, le=20)
    """``tokens``: how many of the most promoted tokens it names."""
    frequent: float = Field(default=0.2, ge=0, le=1)
    """``tokens``: the most frequent token that a latent fires on is named where it is at least
    this share of its firings."""


class SelfExplanation(Section):
    """``self``: how a model is asked about its own directions: each is put in place of a word of a
    prompt, and what the model says next is read (SelfIE, Patchscopes)."""

    templates: list[Prompt] = Field(
        default=[
            'The word "{latent}" is another word for "',
            'The meaning of the word "{latent}" is "',
            '"{latent}", also known as "{latent}", is a kind of',
        ],
        min_length=1,
    )
    """Prompts, text or messages, with ``{latent}`` wherever the direction is put in."""
    edit: Literal["replace", "add"] = "replace"
    """``replace``: the direction takes the place of what is there. ``add``: it is added, and a
    scale of 1 has the norm of what it is added to."""
    layer: int = Field(default=2, ge=0)
    """At whose input it is put in."""
    probe: int | None = Field(default=None, ge=0)
    """The layer after which the stream is compared with the direction; null is the last but one."""
    scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1), Unique] = Field(
        default=[0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0]
    )
    """In units of the median norm of the residual stream at the layer's input."""
    random: int = Field(default=24, ge=2, le=100)
    """Random directions that are looked at alike: read-outs are in units of theirs."""
    chance: float = Field(default=0.05, gt=0, lt=1)
    """A latent has no self-explanation where the share of random directions that do as well, itself
    counted, is larger; no smaller one than 1 / (``random`` + 1) can be seen."""
    best: int = Field(default=3, ge=1)
    """Scales whose texts are written; the label is the text that agrees most with the others."""
    new_tokens: int = Field(default=12, ge=1)
    """Tokens of a text."""
    blocks: int = Field(default=8, ge=1)
    """Blocks of the split ``eval`` from which the norm is taken."""

    @model_validator(mode="after")
    def _can_be_told(self) -> SelfExplanation:
        complaints = []
        if 1 / (self.random + 1) > self.chance:
            reason = f"{self.random} cannot show a chance of {self.chance:g}; raise it"
            complaints.append(("random", reason))
        for number, template in enumerate(self.templates):
            texts = [template] if isinstance(template, str) else [m.content for m in template]
            if not any("{latent}" in text for text in texts):
                reason = "has no {latent}; write it where the direction goes"
                complaints.append((f"templates.{number}", reason))
        refuse(complaints)
        return self


class Labels(Section):
    """Words for latents, from several sources beside each other, and scores that say whether to
    believe them."""

    saes: Names | None = None
    """SAEs whose latents get labels; by default all that the logit lens can look at."""
    sources: Annotated[list[Source], Field(min_length=1), Unique] = Field(default=["tokens"])
    """``tokens``: what the latent promotes most by the logit lens, and the token that it fires on
    most. ``import``: labels of files."""
    latents: LabelledLatents = LabelledLatents()
    wording: TokenWording = TokenWording()
    self_explanation: SelfExplanation = SelfExplanation()
    imported: dict[Name, InputPath] = Field(default={})
    """``import``: by SAE, a file of labels: an export of Neuronpedia (``.jsonl``, ``.jsonl.gz`` or
    ``.json``), a ``.csv`` with columns ``latent`` and ``text``, or the folder of explanations that
    delphi writes."""

    @model_validator(mode="after")
    def _has_latents(self) -> Labels:
        complaints = []
        chosen = self.latents
        if not (chosen.listed or chosen.targets or chosen.drawn):
            complaints.append(("latents", "names no latent; list some, or draw some"))
        if "import" in self.sources and not self.imported:
            complaints.append(("imported", "names no file for the source 'import'; add it"))
        refuse(complaints)
        return self
