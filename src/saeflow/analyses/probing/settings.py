"""What is asked of probes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import (
    Complaint,
    LocalPath,
    Name,
    Names,
    Position,
    Section,
    Unique,
    refuse,
)

Count = Annotated[int, Field(ge=1, le=2**20)]
Counts = Annotated[list[Count], Unique]
Share = Annotated[float, Field(gt=0, lt=1)]
Method = Literal[
    "logistic_ridge",
    "logistic_lasso",
    "mean_difference",
    "pca_logistic",
    "neighbours",
    "network",
    "trees",
]
Control = Literal["random_latents", "random_projections", "shuffled_labels", "surface"]


def _rises(key: str, values: list[int] | list[float]) -> list[Complaint]:
    return [] if values == sorted(values) else [(key, "must rise; sort them")]


class Reading(Section):
    """Which texts are read, and where in them."""

    position: Position = "last"
    """The tokens whose activations are read: ``last``, ``all`` but BOS, or ``template[-n]`` of
    messages."""
    pool: Literal["mean", "max"] = "mean"
    """How ``all`` positions become one row, of activations and of latents alike."""
    context: int = Field(default=256, ge=8, le=131_072)
    """Tokens of a text, BOS included, that are read; of longer ones those that `keep` says."""
    keep: Literal["end", "beginning"] = "end"
    """Which tokens of longer texts: what is asked of a text is mostly read at its end. SAEBench
    keeps the beginning."""
    rows: int = Field(default=2000, ge=32)
    """Texts of a set at most, as many of each class as of another; of a shifted test set, too."""


class Fitting(Section):
    """How probes are fitted, chosen and tested."""

    activations: Annotated[list[Method], Unique] = Field(
        default=["logistic_ridge", "mean_difference", "pca_logistic", "neighbours"]
    )
    """Probes on activations. ``logistic_lasso``, ``network`` and ``trees`` take several times as
    long as these together."""
    k: Counts = Field(default=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512], min_length=1)
    """Latents that sparse probes may use."""
    lasso: bool = True
    """Also a regression over all latents with a price on absolute weights."""
    binarised: Counts = Field(default=[16])
    """Sizes of sparse probes that see only whether latents are active."""
    strengths: Annotated[list[Annotated[float, Field(gt=0, le=1e9)]], Unique] = Field(
        default=[0.001, 0.01, 0.1, 1.0, 10.0], min_length=1
    )
    """Values of C, scikit-learn's inverse of the penalty, among which validation chooses."""
    folds: int = Field(default=5, ge=2, le=100)
    """Of the training rows, for validation."""
    test: Share = 0.25
    """Share of the rows that are for testing."""
    train_rows: int = Field(default=1024, ge=16)
    """Training rows at most."""
    seeds: int = Field(default=5, ge=5, le=1000)
    """Splits, drawn anew. Fewer than five do not tell a difference from luck."""
    controls: Annotated[list[Control], Unique] = Field(
        default=["random_latents", "random_projections", "shuffled_labels", "surface"]
    )
    """``random_latents``: of random directions, as often active as the SAE's own.
    ``random_projections``: of activations. ``shuffled_labels``: everything again on labels that
    mean nothing. ``surface``: what length, case, digits and punctuation tell."""

    @model_validator(mode="after")
    def _agrees(self) -> Fitting:
        refuse(
            _rises("k", self.k)
            + _rises("binarised", self.binarised)
            + _rises("strengths", self.strengths)
        )
        return self


class Regimes(Section):
    """Training rows that are few, of unequal classes, or wrongly labelled. Tests stay as they
    are."""

    scarcity: Counts = Field(default=[2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
    """Training rows, half of each class; those that a set cannot give are left out."""
    imbalance: Annotated[list[Share], Unique] = Field(default=[0.05, 0.1, 0.25, 0.75, 0.9, 0.95])
    """Shares of the training rows that are of the second class."""
    noise: Annotated[list[Annotated[float, Field(gt=0, le=0.5)]], Unique] = Field(
        default=[0.1, 0.2, 0.3, 0.4]
    )
    """Shares of the training labels that are flipped, in validation, too."""
    activations: Annotated[list[Method], Unique] = Field(
        default=["logistic_ridge", "mean_difference"]
    )
    """Probes on activations in these regimes."""
    k: Counts = Field(default=[1, 16, 128], min_length=1)
    """Sizes of sparse probes in these regimes."""

    @model_validator(mode="after")
    def _agrees(self) -> Regimes:
        refuse(_rises("k", self.k) + _rises("scarcity", self.scarcity))
        return self


class Absorption(Section):
    """Whether latents of words hold what latents of their first letters should."""

    words: int = Field(default=4000, ge=200, le=2**20)
    """Of the vocabulary at most; of more they are drawn."""
    shown: int = Field(default=0, ge=0, le=50)
    """Other words with their first letters that stand before each word. SAEBench shows ten; with
    none each word is read alone, in a tenth of the time."""
    probe_f1: float = Field(default=0.6, ge=0, lt=1)
    """F1 on test words above which the probe on activations knows a letter; others count nothing
    in scores of SAEs."""
    letters: int = Field(default=20, ge=1, le=26)
    """Letters that it must know for an SAE to be given a score."""


class Comparison(Section):
    """How methods are compared."""

    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals."""
    draws: int = Field(default=10_000, ge=100)
    """Of sets of data, for the interval of a mean difference."""


class Probing(Section):
    """What probes tell of texts from latents, from activations, and from what is random."""

    catalogue: LocalPath
    """A YAML file that names sets of labelled texts, in the folder that Snakemake works in or else
    in the checkout."""
    sets: Names = Field(min_length=1)
    """Those of the catalogue that are probed."""
    saes: Annotated[list[Name], Unique] | None = None
    """SAEs whose latents are probed, of those that read the study's model; null is all of them."""
    reading: Reading = Reading()
    fitting: Fitting = Fitting()
    regimes: Regimes = Regimes()
    absorption: Absorption | None = None
    """Measure feature absorption of SAEs on the first letters of words; null leaves it out."""
    comparison: Comparison = Comparison()
