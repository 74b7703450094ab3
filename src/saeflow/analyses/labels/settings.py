"""What is asked of words for latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import InputPath, Name, Names, Section, Unique, refuse

Source = Literal["tokens", "import"]


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
