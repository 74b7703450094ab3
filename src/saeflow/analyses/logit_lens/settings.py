"""How latents are looked at through the unembedding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import LocalPath, Section, Unique, refuse

SetKind = Literal[
    "form", "first letter", "length", "digits", "punctuation", "part of speech", "name"
]


class TokenSetSelection(Section):
    """Which sets of tokens latents are held against."""

    kinds: Annotated[list[SetKind], Unique] = Field(
        default=[
            "form",
            "first letter",
            "length",
            "digits",
            "punctuation",
            "part of speech",
            "name",
        ]
    )
    """Built-in kinds of token sets. ``part of speech`` and ``name`` need nltk and its data;
    without, they are left out."""
    smallest: int = Field(default=5, ge=1)
    """Built-in sets with fewer tokens in the model's vocabulary are left out."""
    files: Annotated[list[LocalPath], Unique] = Field(default=[])
    """YAML files with token sets of your own: absolute paths, or ones in the folder that Snakemake
    works in where they are there, else in the checkout."""


class Projection(Section):
    """From decoder rows to logit weights."""

    unembedding: Annotated[list[Literal["final_norm", "centred", "cosine"]], Unique] = Field(
        default=["final_norm", "centred"]
    )
    """What is done to the unembedding, in this order: ``final_norm`` folds the final norm's weights
    in, ``centred`` takes away the mean over tokens, which changes no probability, ``cosine`` brings
    every token's row to length 1."""
    scale: Literal["unit", "typical"] = "unit"
    """``typical``: logit weights times the mean of the latent's activations where it fires."""
    tokens: int = Field(default=10, ge=1)
    """Tokens listed per latent at either end."""


class Gsea(Section):
    """Gene set enrichment analysis with weights, as it is done with genes, by permutation of the
    tokens."""

    weight: float = Field(default=1.0, ge=0)
    """Power of a token's logit weight (less the mean) in the running sum; 0 is the unweighted
    score."""
    permutations: int = Field(default=1000, ge=20)
    """Random sets of the same size."""
    latents: int = Field(default=100, ge=1)
    """How many latents, those of largest skewness in either direction: each costs seconds."""


class Enrichment(Section):
    """What logit weights are tested for."""

    directions: int = Field(default=1000, ge=100)
    """Random directions that classes and ``test: directions`` are relative to."""
    false_positive_rate: float = Field(default=0.01, gt=0, lt=0.5)
    """Share of random directions that would be given any class."""
    test: Literal["directions", "ks", "rank_sum"] = "directions"
    """What counts as enriched. ``directions``: the set stands out more than along random directions
    of the residual stream, by its rank sum. ``ks``, ``rank_sum``: more than a random set of as many
    tokens, by the Kolmogorov-Smirnov statistic (the published score) or the rank sum; tokens of a
    set have much in common in a trained unembedding, so these find nearly everything enriched."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """False discovery rate (Benjamini-Hochberg, over all latents and sets) up to which enriched
    sets are kept."""
    gsea: Gsea | None = None
    """Null leaves it out."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> Enrichment:
        least = 3 / self.false_positive_rate
        if self.directions + 1 < least:
            reason = (
                f"{self.directions} are too few for a false_positive_rate of "
                f"{self.false_positive_rate}"
            )
            refuse([("directions", f"{reason}; give at least {round(least)}")])
        return self


class Causal(Section):
    """Measured changes of the next token's log-probabilities, beside what the logit lens says."""

    latents: int = Field(default=8, ge=0)
    """How many latents: those clearest by their enrichment, each for another token set, then the
    most skewed."""
    contexts: int = Field(default=32, ge=1)
    """Places in the text per latent and intervention."""


class LogitLens(Section):
    """What latents do to the logits: their decoder rows through the unembedding."""

    token_sets: TokenSetSelection = TokenSetSelection()
    projection: Projection = Projection()
    enrichment: Enrichment = Enrichment()
    causal: Causal = Causal()
    """Which latents are checked against what the model does."""
