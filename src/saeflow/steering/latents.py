"""Which latents to target for a goal: those that tell its examples apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.config.sections import Fgaa
    from saeflow.saes.sae import SAE

CANDIDATES = 20  # rows of the table
ROWS_AT_ONCE = 4096

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


def choose_latents(
    positive: Float[Tensor, "texts d_sae"], negative: Float[Tensor, "texts d_sae"], count: int
) -> Choice:
    """Rank latents by how well they tell texts that show a behaviour from texts that do not.

    The score is the difference of the mean activations times ``2 AUROC - 1``: the difference alone prefers latents that
    are active everywhere, and the AUROC alone cannot rank the many that separate a few examples perfectly.

    Args:
        positive: mean activations of every latent on the texts that show the behaviour, from `read_examples`.
        negative: the same on those that do not.
        count: how many latents to choose.

    Returns:
        The chosen latents, weighted by their differences, and the ranked candidates.

    Raises:
        SaeflowError: fewer latents than asked for are more active on the positive texts.
    """
    on, off = positive.double().numpy(), negative.double().numpy()
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


def auroc(
    positive: Float[NDArray[np.float64], "n d_sae"], negative: Float[NDArray[np.float64], "m d_sae"]
) -> Float[NDArray[np.float64], " d_sae"]:
    """Per latent, the probability that a positive text has more of it than a negative one, ties counted half."""
    above = np.zeros(positive.shape[1])
    for row in positive:
        above += (row > negative).sum(0) + 0.5 * (row == negative).sum(0)
    return above / (len(positive) * len(negative))


def differing_latents(
    difference: Float[Tensor, " d_sae"],
    from_bos: Bool[Tensor, " d_sae"],
    density: Float[Tensor, " d_sae"],
    settings: Fgaa,
) -> dict[int, float]:
    """The targets of feature guided activation additions (arXiv 2501.09929, section 3): many latents, both ways.

    Args:
        difference: mean activation on the texts that show the behaviour minus that on those that do not.
        from_bos: latents that belong to BOS, left out.
        density: share of tokens on which each latent fires.
        settings: the largest density, and how many latents are kept on either side.

    Returns:
        Differences of the latents that are kept, divided by the sum of their magnitudes.

    Raises:
        SaeflowError: no latent is left.
    """
    dense = density > settings.density
    left = difference.double().masked_fill(dense | from_bos, 0.0)
    above, below = left.topk(min(settings.positive, len(left))), (-left).topk(min(settings.negative, len(left)))
    kept = {int(latent): float(value) for value, latent in zip(*above, strict=True) if value > 0}
    kept |= {int(latent): -float(value) for value, latent in zip(*below, strict=True) if value > 0}
    if not kept:
        raise SaeflowError(
            f"steering: fgaa is left with no latent: of {int((difference != 0).sum())} that differ between the "
            f"examples, {int((dense & (difference != 0)).sum())} fire on more than {settings.density:g} of the tokens; "
            "raise steering.fgaa.density"
        )
    total = sum(map(abs, kept.values()))
    return {latent: value / total for latent, value in kept.items()}


@torch.no_grad()
def firing_density(
    sae: SAE, activations: Iterable[Float[Tensor, "rows d_model"]], tokens: int
) -> Float[Tensor, " d_sae"]:
    """Share of tokens on which each latent fires, float64.

    Args:
        sae: the SAE.
        activations: of tokens, some at a time.
        tokens: after how many of them to stop.
    """
    fired, seen = torch.zeros(sae.d_sae, dtype=torch.float64), 0
    for part in activations:
        for rows in torch.split(part, ROWS_AT_ONCE):
            fired += (sae.encode(rows.to(sae.W_enc.device)) > 0).sum(0).cpu()
            seen += len(rows)
        if seen >= tokens:
            break
    return fired / seen
