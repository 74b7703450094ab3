"""Which latents to target for a goal: those that tell its examples apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from saeflow.errors import SaeflowError
from saeflow.steering.vectors import text_residuals

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

CANDIDATES = 20  # rows of the table

CANDIDATES_SCHEMA = {
    "rank": pl.Int64,
    "latent": pl.Int64,
    "score": pl.Float64,
    "auroc": pl.Float64,
    "difference": pl.Float64,
    "positive_mean": pl.Float64,
    "negative_mean": pl.Float64,
}


class Choice(NamedTuple):
    """The latents chosen, and those they were chosen from."""

    weights: dict[int, float]
    """By latent; they sum to 1."""
    candidates: pl.DataFrame
    """Best first, with the columns of `CANDIDATES_SCHEMA`."""


@torch.no_grad()
def choose_latents(
    lm: LanguageModel, sae: SAE, hook: str, positive: Sequence[str], negative: Sequence[str], count: int
) -> Choice:
    """Rank latents by how well they tell texts that show a behaviour from texts that do not.

    The score is the difference of the mean activations times ``2 AUROC - 1``: the difference alone prefers latents that
    are active everywhere, and the AUROC alone cannot rank the many that separate a few examples perfectly.

    Args:
        lm: the model.
        sae: trained at ``hook``.
        hook: where the SAE reads.
        positive: texts that show the behaviour.
        negative: texts that do not.
        count: how many latents to choose.

    Returns:
        The chosen latents, weighted by their differences, and the ranked candidates.

    Raises:
        SaeflowError: fewer latents than asked for are more active on the positive texts.
    """
    on, off = (text_latents(lm, sae, hook, texts) for texts in (positive, negative))
    difference = on.mean(0) - off.mean(0)
    area = auroc(on, off)
    scores = np.where(difference > 0, difference * np.maximum(2 * area - 1, 0), 0.0)
    order = np.argsort(-scores, kind="stable")[: max(CANDIDATES, count)]
    chosen = [int(latent) for latent in order[:count] if scores[latent] > 0]
    if len(chosen) < count:
        raise SaeflowError(
            f"steering: {len(chosen)} latents tell the examples apart and steering.latents asks for {count}; "
            "lower it, or write examples that differ more"
        )
    total = difference[chosen].sum()
    table = {
        "rank": np.arange(1, len(order) + 1),
        "latent": order,
        "score": scores[order],
        "auroc": area[order],
        "difference": difference[order],
        "positive_mean": on.mean(0)[order],
        "negative_mean": off.mean(0)[order],
    }
    weights = {latent: float(difference[latent] / total) for latent in chosen}
    return Choice(weights, pl.DataFrame(table, schema=CANDIDATES_SCHEMA))


def text_latents(
    lm: LanguageModel, sae: SAE, hook: str, texts: Sequence[str]
) -> Float[NDArray[np.float64], "texts d_sae"]:
    """Mean activation of every latent over the tokens of every text, BOS left out."""
    residuals = text_residuals(lm, hook, texts)
    return np.stack([sae.encode(resid).mean(0, dtype=torch.float64).cpu().numpy() for resid in residuals])


def auroc(
    positive: Float[NDArray[np.float64], "n d_sae"], negative: Float[NDArray[np.float64], "m d_sae"]
) -> Float[NDArray[np.float64], " d_sae"]:
    """Per latent, the probability that a positive text has more of it than a negative one, ties counted half."""
    above = np.zeros(positive.shape[1])
    for row in positive:
        above += (row > negative).sum(0) + 0.5 * (row == negative).sum(0)
    return above / (len(positive) * len(negative))
