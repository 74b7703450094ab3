"""The causal check of the logit lens: which latents, where in the text, and the tables that come of
it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32, Int32

from saeflow.analyses.logit_lens import causal
from saeflow.analyses.logit_lens.causal import LatentEdits
from saeflow.analyses.logit_lens.settings import Causal, Projection
from saeflow.models.unembedding import unembedding
from saeflow.models.vocabulary import Vocabulary
from saeflow.saes.subject import Subject
from saeflow.seeds import numpy_generator

Blocks = Int32[np.ndarray, "blocks pos"]


class CheckInput(NamedTuple):
    """What the lens and the examples say of latents, and the text that it is of."""

    enrichment: pl.DataFrame
    """latent, set, effect."""
    shapes: pl.DataFrame
    """latent, skewness."""
    contexts: pl.DataFrame
    """latent, group, rank, activation, block, position."""
    typical: Float32[np.ndarray, " d_sae"]
    """Mean of each latent's activations where it fires."""
    blocks: Blocks
    """The text that the contexts are of."""


class Check(NamedTuple):
    """The tables, named as their files."""

    causal: pl.DataFrame
    causal_latents: pl.DataFrame


def check_latents(
    subject: Subject,
    vocabulary: Vocabulary,
    given: CheckInput,
    projection: Projection,
    settings: Causal,
    progress: Callable[[int, int], None] | None = None,
) -> Check:
    """Add and take away the latents that are clearest by their enrichment.

    A latent is taken away, as much of it as there is, at places where it fires, weak and strong;
    its typical activation is added at places drawn at random from the text.

    Args:
        subject: the model and the SAE, on any device, at the hook that the SAE writes.
        vocabulary: of the model.
        given: which latents are clear, and where they fire.
        projection: from decoder rows to logit weights.
        settings: how many latents are checked, and at how many places.
        progress: called with (latents checked, latents).
    """
    rows, latents = [], []
    lm, tokens = subject.lm, vocabulary.ids.tolist()
    through = unembedding(lm, tokens, projection.unembedding)
    contexts = given.contexts
    picked = causal.clearest(
        given.enrichment, given.shapes, contexts["latent"].unique().to_list(), settings.latents
    )
    for latent, name in picked:
        direction, typical = subject.sae.W_dec[latent].to(lm.device), float(given.typical[latent])
        weights = (through @ direction.float()).cpu().numpy()
        fires = _firing(contexts.filter(latent=latent), given.blocks, settings.contexts)
        anywhere = _anywhere(latent, typical, given.blocks, settings.contexts, subject.seed)
        ablated, added = (
            causal.change(lm, subject.hook, direction, at, tokens) for at in (fires, anywhere)
        )
        generator = numpy_generator(subject.seed, "logit lens", "tokens", latent)
        rows.append(
            causal.token_rows(
                latent, weights, added, ablated, vocabulary, projection.tokens, generator
            )
        )
        agreement = [
            causal.correlation(weights, values.numpy())
            for values in (added.predicted, added.measured, -ablated.measured)
        ]
        latents.append((latent, name, len(fires.positions), typical, *agreement))
        if progress:
            progress(len(latents), len(picked))
    empty = pl.DataFrame(schema=causal.TOKENS)
    return Check(
        pl.concat([empty, *rows]), pl.DataFrame(latents, schema=causal.LATENTS, orient="row")
    )


def _firing(contexts: pl.DataFrame, blocks: Blocks, count: int) -> LatentEdits:
    """Places where a latent fires, the first of every group, then the second, …; all of it is taken
    away."""
    picked = (
        contexts.unique(["block", "position"], keep="first", maintain_order=True)
        .sort("rank", "group")
        .head(count)
    )
    at = picked["block"].to_numpy()
    return LatentEdits(
        torch.from_numpy(blocks[at]).long(),
        picked["position"].to_numpy().astype(np.int64),
        -picked["activation"].to_numpy(),
    )


def _anywhere(latent: int, amount: float, blocks: Blocks, count: int, seed: int) -> LatentEdits:
    """Places drawn from the text, BOS left out."""
    generator = numpy_generator(seed, "logit lens", "places", latent)
    at = generator.integers(0, len(blocks), count)
    positions = generator.integers(1, blocks.shape[1], count)
    return LatentEdits(torch.from_numpy(blocks[at]).long(), positions, np.full(count, amount))
