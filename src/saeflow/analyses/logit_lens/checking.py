"""The causal check of the logit lens: which latents, where in the text, and the tables that come of
it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32, Int32

from saeflow.analyses.logit_lens import causal
from saeflow.analyses.logit_lens.causal import Places
from saeflow.analyses.logit_lens.settings import Causal, Projection
from saeflow.models.language_model import LanguageModel
from saeflow.models.unembedding import unembedding
from saeflow.models.vocabulary import Vocabulary
from saeflow.saes.sae import SAE
from saeflow.seeds import numpy_generator

Blocks = Int32[np.ndarray, "blocks pos"]


class Check(NamedTuple):
    """The tables, named as their files."""

    causal: pl.DataFrame
    causal_latents: pl.DataFrame


def check_latents(
    lm: LanguageModel,
    sae: SAE,
    hook: str,
    known: Vocabulary,
    enrichment: pl.DataFrame,
    shapes: pl.DataFrame,
    contexts: pl.DataFrame,
    typical: Float32[np.ndarray, " d_sae"],
    blocks: Blocks,
    projection: Projection,
    settings: Causal,
    seed: int,
) -> Check:
    """Add and take away the latents that are clearest by their enrichment.

    A latent is taken away, as much of it as there is, at places where it fires, weak and strong;
    its typical activation is added at places drawn at random from the text.

    Args:
        lm: the model.
        sae: on any device.
        hook: that the SAE writes.
        known: the vocabulary.
        enrichment: latent, set, effect.
        shapes: latent, skewness.
        contexts: latent, group, rank, activation, block, position.
        typical: mean of each latent's activations where it fires.
        blocks: the text that the contexts are of.
        projection: from decoder rows to logit weights.
        settings: how many latents are checked, and at how many places.
        seed: the study's.
    """
    rows, latents = [], []
    through = unembedding(lm, known.ids.tolist(), projection.unembedding)
    picked = causal.clearest(
        enrichment, shapes, contexts["latent"].unique().to_list(), settings.latents
    )
    for latent, name in picked:
        direction = sae.W_dec[latent].to(lm.device)
        weights = (through @ direction.float()).cpu().numpy()
        fires = _firing(contexts.filter(latent=latent), blocks, settings.contexts)
        anywhere = _anywhere(latent, float(typical[latent]), blocks, settings.contexts, seed)
        ablated, added = (
            causal.change(lm, hook, direction, at, known.ids.tolist()) for at in (fires, anywhere)
        )
        generator = numpy_generator(seed, "logit lens", "tokens", latent)
        rows.append(
            causal.token_rows(latent, weights, added, ablated, known, projection.tokens, generator)
        )
        agreement = [
            causal.correlation(weights, values.numpy())
            for values in (added.predicted, added.measured, -ablated.measured)
        ]
        latents.append((latent, name, len(fires.positions), float(typical[latent]), *agreement))
    empty = pl.DataFrame(schema=causal.TOKENS)
    return Check(
        pl.concat([empty, *rows]), pl.DataFrame(latents, schema=causal.LATENTS, orient="row")
    )


def _firing(contexts: pl.DataFrame, blocks: Blocks, count: int) -> Places:
    """Places where a latent fires, the first of every group, then the second, …; all of it is taken
    away."""
    some = (
        contexts.unique(["block", "position"], keep="first", maintain_order=True)
        .sort("rank", "group")
        .head(count)
    )
    at = some["block"].to_numpy()
    return Places(
        torch.from_numpy(blocks[at]).long(),
        some["position"].to_numpy().astype(np.int64),
        -some["activation"].to_numpy(),
    )


def _anywhere(latent: int, amount: float, blocks: Blocks, count: int, seed: int) -> Places:
    """Places drawn from the text, BOS left out."""
    generator = numpy_generator(seed, "logit lens", "places", latent)
    at = generator.integers(0, len(blocks), count)
    positions = generator.integers(1, blocks.shape[1], count)
    return Places(torch.from_numpy(blocks[at]).long(), positions, np.full(count, amount))
