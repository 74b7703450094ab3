"""How often latents fire in a corpus, and those that `fgaa` and `pursuit` target for what
differs between a goal's examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.pursuits.dictionary import Dictionary
from saeflow.pursuits.methods import PURSUITS

if TYPE_CHECKING:
    from saeflow.analyses.steering.settings import Fgaa, Pursuit
    from saeflow.saes.sae import SAE

ROWS_AT_ONCE = 4096
DENSITY_TOKENS = 65_536
"""Of the cache, on which it is counted how often latents fire."""


def differing_latents(
    difference: Float[Tensor, " d_sae"],
    from_bos: Bool[Tensor, " d_sae"],
    density: Float[Tensor, " d_sae"],
    settings: Fgaa,
) -> dict[int, float]:
    """The targets of feature guided activation additions (arXiv 2501.09929, section 3): many
    latents, both ways.

    Args:
        difference: mean activation on the texts that show the behaviour minus that on those that do
            not.
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
    above = left.topk(min(settings.positive, len(left)))
    below = (-left).topk(min(settings.negative, len(left)))
    kept = {int(latent): float(value) for value, latent in zip(*above, strict=True) if value > 0}
    kept |= {int(latent): -float(value) for value, latent in zip(*below, strict=True) if value > 0}
    if not kept:
        raise SaeflowError(
            f"steering: fgaa is left with no latent: of {int((difference != 0).sum())} that differ "
            f"between the examples, {int((dense & (difference != 0)).sum())} fire on more than "
            f"{settings.density:g} of the tokens; raise steering.vectors.fgaa.density"
        )
    total = sum(map(abs, kept.values()))
    return {latent: value / total for latent, value in kept.items()}


def pursued_latents(
    direction: Float[Tensor, " d_model"], W_dec: Float[Tensor, "d_sae d_model"], settings: Pursuit
) -> dict[int, float]:
    """The latents whose decoder rows add up to nearly a direction, with the weights of their rows.

    Raises:
        SaeflowError: the direction is zero, or no decoder row comes closer to it than nothing.
    """
    pursue = PURSUITS[settings.by]
    sums = pursue(direction.unsqueeze(0), Dictionary(W_dec), settings.k)
    chosen, weights = sums.atoms[0, -1].tolist(), sums.weights[0, -1].tolist()
    kept = {latent: weight for latent, weight in zip(chosen, weights, strict=True) if weight}
    if not kept:
        raise SaeflowError(
            "steering: pursuit is left with no latent: no decoder row comes closer to the "
            "direction than nothing does; name another way in steering.vectors.pursuit.by"
        )
    return kept


def best_detector(recovery: pl.DataFrame, topic: str) -> int:
    """The latent whose firing detects a planted topic best, by F1.

    Args:
        recovery: from `saeflow.saes.recovery.recovery`.
        topic: of the corpus ``tales``.

    Raises:
        SaeflowError: the topic was not planted.
    """
    rows = (
        recovery.filter((pl.col("label") == "topic") & (pl.col("feature") == topic))
        if len(recovery)
        else recovery
    )
    if rows.is_empty():
        raise SaeflowError(
            f"steering: the corpus plants no topic '{topic}', so no latent is known to detect it; "
            "name the goal's topic in its file, or remove the methods that end in _planted"
        )
    return int(rows["latent_f1"].item())


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
