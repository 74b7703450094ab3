"""How specifically the firing of a latent tells the example texts of a goal from all other text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from saeflow.analyses.steering.examples import ExampleActivations

PREVALENCE = (
    0.05  # share of tokens that are on the goal, in text on which latents are thought to be used
)


class GoalTexts(NamedTuple):
    """What latents do on the example texts of a goal; counts and means by text, for some latents or
    all."""

    hits: Float[NDArray[np.float64], "positive latents"]
    """Of the tokens that are particular to the goal, those on which a latent fires."""
    particular: Float[NDArray[np.float64], " positive"]
    """Tokens of the positive texts that stand in no negative text; all tokens where there are
    none."""
    positive_fired: Float[NDArray[np.float64], "positive latents"]
    positive_tokens: Float[NDArray[np.float64], " positive"]
    negative_fired: Float[NDArray[np.float64], "negative latents"]
    negative_tokens: Float[NDArray[np.float64], " negative"]
    positive_means: Float[NDArray[np.float64], "positive latents"]
    """Mean value of a latent over the tokens of a text."""
    negative_means: Float[NDArray[np.float64], "negative latents"]

    @classmethod
    def of(cls, positive: ExampleActivations, negative: ExampleActivations) -> GoalTexts:
        """From the activations of both kinds of text; ``positive`` was read with ``others`` the
        negative ones."""
        alike = not positive.particular.any()
        return cls(
            (positive.fired if alike else positive.hits).double().numpy(),
            (positive.tokens if alike else positive.particular).double().numpy(),
            positive.fired.double().numpy(),
            positive.tokens.double().numpy(),
            negative.fired.double().numpy(),
            negative.tokens.double().numpy(),
            positive.latents.double().numpy(),
            negative.latents.double().numpy(),
        )

    def of_latents(self, latents: NDArray[np.int64]) -> GoalTexts:
        """The same for some of the latents."""
        return GoalTexts(*(part[:, latents] if part.ndim == 2 else part for part in self))

    @property
    def difference(self) -> Float[NDArray[np.float64], " latents"]:
        """Mean activation on the positive texts minus that on the negative ones."""
        return np.asarray(self.positive_means.mean(0) - self.negative_means.mean(0))


class Draw(NamedTuple):
    """How often each text of a goal counts."""

    positive: Float[NDArray[np.float64], " positive"]
    negative: Float[NDArray[np.float64], " negative"]

    @classmethod
    def once(cls, texts: GoalTexts) -> Draw:
        """Every text once."""
        return cls(np.ones(len(texts.particular)), np.ones(len(texts.negative_tokens)))

    @classmethod
    def at_random(cls, texts: GoalTexts, generator: np.random.Generator) -> Draw:
        """As many texts as there are, with replacement."""
        sizes = len(texts.particular), len(texts.negative_tokens)
        return cls(
            *(
                np.bincount(generator.integers(n, size=n), minlength=n).astype(np.float64)
                for n in sizes
            )
        )


class Specificity(NamedTuple):
    """What the firing of each latent tells of a goal; shares of tokens, all in [0, 1]."""

    score: Float[NDArray[np.float64], " latents"]
    """F1 of firing as a sign of the goal; 0 where a latent is not more active on the texts that
    show it."""
    recall: Float[NDArray[np.float64], " latents"]
    """Of the tokens particular to the goal, those on which it fires."""
    neutral: Float[NDArray[np.float64], " latents"]
    """Of the tokens of the goal's negative texts, those on which it fires."""
    others: Float[NDArray[np.float64], " latents"]
    """Of the tokens of the other goals' positive texts, those on which it fires; 0 where there is
    no other goal."""


def specificity(
    goal: str,
    goals: Mapping[str, GoalTexts],
    draws: Mapping[str, Draw],
    density: Float[NDArray[np.float64], " latents"],
) -> Specificity:
    """Score every latent as a sign of one goal.

    In a text of which a share `PREVALENCE` of the tokens is on the goal, a latent fires on
    ``recall`` of those and on the others at the rate at which it fires on the corpus, on the goal's
    negative texts or on the other goals' positive texts, whichever is the largest. The score is the
    F1 of that: a latent that fires everywhere scores no more than one that fires nowhere, and one
    that fires on a single word of many has little recall.

    Args:
        goal: the goal's name.
        goals: the example texts of all goals.
        draws: how often each text counts.
        density: share of the corpus's tokens on which each latent fires.
    """
    own, draw = goals[goal], draws[goal]
    recall = _share(own.hits, own.particular, draw.positive)
    neutral = _share(own.negative_fired, own.negative_tokens, draw.negative)
    others = np.zeros_like(recall)
    if rest := [name for name in goals if name != goal]:
        fired = sum(draws[name].positive @ goals[name].positive_fired for name in rest)
        others = np.asarray(
            fired / sum(draws[name].positive @ goals[name].positive_tokens for name in rest)
        )
    false = np.maximum.reduce([density, neutral, others])
    hits = PREVALENCE * recall
    score = 2 * hits / (hits + (1 - PREVALENCE) * false + PREVALENCE)
    more = draw.positive @ own.positive_means / draw.positive.sum()
    less = draw.negative @ own.negative_means / draw.negative.sum()
    return Specificity(np.where(more > less, score, 0.0), recall, neutral, others)


def _share(
    counts: Float[NDArray[np.float64], "texts latents"],
    sizes: Float[NDArray[np.float64], " texts"],
    times: Float[NDArray[np.float64], " texts"],
) -> Float[NDArray[np.float64], " latents"]:
    return np.asarray(times @ counts / max(float(times @ sizes), 1.0))
