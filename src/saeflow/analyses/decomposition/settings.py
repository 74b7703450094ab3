"""Which directions are decomposed, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from saeflow.config.section import (
    Complaint,
    InputPath,
    Name,
    Position,
    Section,
    Text,
    Unique,
    refuse,
)
from saeflow.config.sections.labelled import TextSource
from saeflow.pursuits.names import PursuitName


class Contrast(Section):
    """A direction as a difference of means: texts of one class less all others."""

    texts: TextSource
    """The texts: a file, here or of a hub or a package, or texts of the config itself."""
    positive: Text
    """The class that the direction points to."""
    position: Position = "last"
    """Where a text is read: its ``last`` token, the mean of ``all`` tokens but BOS, or
    ``template[-2]``, the last but one of the tokens that the chat template writes behind what the
    user says."""
    concept: Annotated[list[Text], Unique] = Field(default=[])
    """Words that tell that a text is about what the direction is of, in any case: it is counted how
    many blocks of an SAE's corpus hold one."""

    @model_validator(mode="after")
    def _has_classes(self) -> Contrast:
        complaints: list[Complaint] = []
        labels = {each.label for each in self.texts.examples or ()}
        if self.texts.label_column is None or labels == {None}:
            complaints.append(
                ("texts.value", "are numbers, and a contrast has classes; give label")
            )
        elif labels and self.positive not in self.texts.classes_of(labels):
            reason = f"'{self.positive}' is no class of the texts"
            complaints.append(("positive", reason))
        refuse(complaints)
        return self


class MeasuredDirection(Section):
    """A direction of the analysis `directions`, of every model that it edits, at the position that
    was chosen and the layer of the study's hook."""

    concept: Annotated[list[Text], Unique] = Field(default=[])
    """As of a contrast."""


class DecomposedDirections(Section):
    """What is decomposed: differences of means, directions whose effect is measured, steering
    vectors, vectors in files."""

    measured: dict[Name, MeasuredDirection] = Field(default={})
    """Directions of `directions`, by their names there; in tables they are called
    ``model/direction``. Their test prompts are what is held out."""

    contrasts: dict[Name, Contrast] = Field(default={})
    """Differences of means, by name, at the study's hook."""
    held_out: float = Field(default=0.5, gt=0, lt=1)
    """Share of the texts of each class that the direction is not made of, and that SAEs are asked
    about."""
    steering: Annotated[list[Text], Unique] = Field(default=[])
    """Methods of `steering` whose vectors, of every goal, are decomposed, such as ``caa``."""
    files: dict[Name, InputPath] = Field(default={})
    """``.safetensors`` files with one vector each, by name."""
    corpora: dict[Name, InputPath] = Field(default={})
    """By SAE that was trained on another corpus than this study's: the file
    ``corpus/sae.safetensors`` of the study that trained it, with the same tokenizer."""


class ActivationDictionary(Section):
    """A dictionary of activations themselves (ITDA), grown where its atoms leave too much of one:
    what a decoder gains over it is what training gave."""

    atoms: int | None = Field(default=None, ge=1)
    """How many at most; null is as many as the SAE has latents."""
    k: int = Field(default=8, ge=1)
    """Atoms in the sum that an activation is held against."""
    error: float = Field(default=0.2, gt=0, lt=1)
    """An activation of which such a sum leaves more, as a share of the squared norm, becomes an
    atom."""
    tokens: int = Field(default=16_384, ge=1)
    """Activations of the cache that are looked at, at most."""


class PursuitCurves(Section):
    """How directions are decomposed, and what they are held against."""

    pursuits: Annotated[list[PursuitName], Unique] = Field(
        default=["orthogonal", "gradient", "gradient_positive", "matching", "lasso"], min_length=1
    )
    """``gradient`` pursuit with weights of both signs, or ``gradient_positive``; ``orthogonal``
    matching pursuit, least squares after every choice; ``matching`` pursuit; the path of the
    ``lasso``."""
    latents: int = Field(default=32, ge=1)
    """Latents in a sum, at most: error and cosine are told for 1, 2, … of them."""
    listed: int = Field(default=8, ge=1)
    """Latents in the sums that the table of latents tells."""
    random: int = Field(default=100, ge=0)
    """Random directions that are decomposed for comparison."""
    shuffled: int = Field(default=20, ge=0)
    """Directions of each contrast with its labels shuffled."""
    bootstrap: int = Field(default=50, ge=0)
    """Draws of the texts, for how stable the choice of latents is and for intervals."""
    itda: ActivationDictionary | None = None
    """A dictionary of activations to decompose in, too, by orthogonal matching pursuit. Null makes
    none."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals and of the bands of random and shuffled directions."""

    @model_validator(mode="after")
    def _lists_what_it_has(self) -> PursuitCurves:
        if self.listed > self.latents:
            refuse([("listed", f"{self.listed} is more than latents {self.latents}; lower it")])
        return self


class SumEdits(Section):
    """What sums of few latents do to the model in place of a direction of `measured`: taken out and
    added as `directions` has it, with its prompts, behaviour and measures."""

    latents: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), Unique] = Field(
        default=[1, 4, 16]
    )
    """Latents in the sums; no more than ``curves.latents``. Each sum is brought to the direction's
    length before it is added: what differs is where it points."""
    pursuit: PursuitName = "orthogonal"
    """By which they are found."""
    controls: int = Field(default=2, ge=1, le=100)
    """Random directions whose sums of as many latents are tried, too."""


class Decomposition(Section):
    """Directions as sums of few decoder rows of SAEs, and how well SAEs hold them."""

    directions: DecomposedDirections = DecomposedDirections()
    curves: PursuitCurves = PursuitCurves()
    edits: SumEdits | None = None
    """What such sums do when they stand in for the direction. Null leaves it out."""

    @model_validator(mode="after")
    def _edits_what_it_has(self) -> Decomposition:
        complaints: list[Complaint] = []
        if self.edits and not self.directions.measured:
            reason = "edit directions.measured, which names none; name one there, or remove this"
            complaints.append(("edits", reason))
        for place, k in enumerate(self.edits.latents if self.edits else ()):
            if k > self.curves.latents:
                reason = f"{k} is more than curves.latents {self.curves.latents}; lower it"
                complaints.append((f"edits.latents.{place}", reason))
        refuse(complaints)
        return self
