"""What kind of thing a latent does to the logits: promote a few tokens, suppress a few, split the
vocabulary, or none.

Source: Bloom and Lin 2024 for the classes, after Gurnee et al. 2024, "Universal Neurons in GPT2
Language Models".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped

PREDICTION, SUPPRESSION, PARTITION, NONE = "prediction", "suppression", "partition", "none"
CLASSES = (PARTITION, SUPPRESSION, PREDICTION, NONE)
# What the published notebook selected latents by, by eye, for decoder rows of length 1.
PUBLISHED_STD, PUBLISHED_SKEWNESS = 0.04, 0.65
Values = Float64[np.ndarray, " rows"]


class Thresholds(NamedTuple):
    """What random directions through the same unembedding hardly ever pass."""

    std: float
    skewness_low: float
    skewness_high: float
    kurtosis_low: float
    kurtosis_high: float


def thresholds(std: Values, skewness: Values, kurtosis: Values, rate: float) -> Thresholds:
    """Thresholds that give at most this share of random directions any class.

    Every class needs one number beyond its threshold, so each gets a third of the rate. With R
    directions the k-th largest is passed by another one with chance k / (R + 1), whatever the
    distribution.

    Args:
        std, skewness, kurtosis: of the logit weights of random directions of length 1.
        rate: share of random directions that would be given any class.
    """
    k = int(rate / 3 * (len(std) + 1))

    def high(values: Values) -> float:
        return float(np.sort(values)[-k])

    def low(values: Values) -> float:
        return float(np.sort(values)[k - 1])

    return Thresholds(
        std=high(std),
        skewness_low=low(skewness),
        skewness_high=high(skewness),
        kurtosis_low=low(kurtosis),
        kurtosis_high=high(kurtosis),
    )


def classify(
    std: Values, skewness: Values, kurtosis: Values, beyond: Thresholds
) -> Shaped[np.ndarray, " rows"]:
    """The class of each latent.

    ``prediction``: skewed to the right with heavy tails: it raises a few tokens. ``suppression``:
    skewed to the left with heavy tails: it lowers a few. ``partition``: spread out, with tails
    lighter than those of random directions: two groups of tokens that it tells apart.

    Args:
        std: of the logit weights of a decoder row of length 1.
        skewness: of the logit weights.
        kurtosis: excess.
        beyond: from `thresholds`.
    """
    heavy = kurtosis > beyond.kurtosis_high
    conditions = [
        heavy & (skewness > beyond.skewness_high),
        heavy & (skewness < beyond.skewness_low),
        (std > beyond.std) & (kurtosis < beyond.kurtosis_low),
    ]
    return np.select(conditions, [PREDICTION, SUPPRESSION, PARTITION], NONE)


def classify_as_published(
    std: Values, skewness: Values, kurtosis: Values
) -> Shaped[np.ndarray, " rows"]:
    """The classes by the published numbers, which were chosen by eye for GPT-2 small.

    Its notebook selects by standard deviation above 0.04 and skewness above 0.65; heavy and light
    tails are told apart at the normal distribution, as the words of the post have it.
    """
    conditions = [
        (skewness > PUBLISHED_SKEWNESS) & (kurtosis > 0),
        (skewness < -PUBLISHED_SKEWNESS) & (kurtosis > 0),
        (std > PUBLISHED_STD) & (kurtosis <= 0),
    ]
    return np.select(conditions, [PREDICTION, SUPPRESSION, PARTITION], NONE)
