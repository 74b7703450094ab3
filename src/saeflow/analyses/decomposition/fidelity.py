"""How much of a direction an SAE keeps: what it rebuilds of the difference between texts that the
direction was not made of, and what it saw of their subject when it was trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.decomposition.curves import Subject, bootstrap_weights
from saeflow.analyses.decomposition.directions import Direction
from saeflow.analyses.directions.placing import ContrastRows
from saeflow.corpora.words import occurrences

if TYPE_CHECKING:
    from saeflow.analyses.decomposition.settings import PursuitCurves
    from saeflow.corpora.tokens import TokenBlocks
    from saeflow.saes.sae import SAE

FIDELITY = {
    "direction": pl.String,
    "texts": pl.Int32,
    "held_out": pl.Int32,
    "repeated_cosine": pl.Float64,
    "cosine": pl.Float64,
    "cosine_low": pl.Float64,
    "cosine_high": pl.Float64,
    "error": pl.Float64,
    "error_low": pl.Float64,
    "error_high": pl.Float64,
    "best_latent": pl.Int32,
    "best_cosine": pl.Float64,
    "null_cosine": pl.Float64,
    "best_density": pl.Float64,
    "concept_share": pl.Float64,
    "concept_per_thousand": pl.Float64,
}
"""Of the direction r of some texts and of what an SAE rebuilds of the difference between held-out
ones, r̂: their ``cosine`` and ``error`` |r̂ - r|² / |r|², with intervals over bootstraps of the
held-out texts; ``repeated_cosine`` is that of r with the held-out difference itself, which no SAE
can be expected to exceed. The decoder row of largest |cosine| with r, beside what the best of as
many random rows has, √(2 ln d_sae / d_model), and on what share of tokens its latent fires. And how
often the direction's words occur in the corpus that the SAE was trained on: the share of blocks,
and per thousand tokens."""


class Occurrence(NamedTuple):
    """How often words occur in a corpus."""

    share: float
    """Of the blocks, those with at least one."""
    per_thousand: float
    """Occurrences per thousand tokens."""


@torch.no_grad()
def rebuilt_difference(sae: SAE, rows: ContrastRows) -> Float[Tensor, " d_model"]:
    """The mean of what the SAE makes of the positive texts less that of the others, float64.

    It is the difference of mean latents times the decoder, unless the SAE normalises tokens one by
    one.
    """
    return rows._replace(activations=_rebuilt(sae, rows)).difference


def _rebuilt(sae: SAE, rows: ContrastRows) -> Float[Tensor, "texts d_model"]:
    return sae.reconstruct(rows.activations.to(sae.W_enc)).double().cpu()


@torch.no_grad()
def fidelity_row(
    subject: Subject,
    direction: Direction,
    settings: PursuitCurves,
    density: Float[Tensor, " d_sae"],
    occurrence: Occurrence | None,
) -> dict[str, float | int | str | None]:
    """One row of `FIDELITY`, of a direction that has texts."""
    assert direction.texts is not None
    r, held_out = direction.vector, direction.texts.part(held_out=True)
    rebuilt = _rebuilt(subject.sae, held_out)
    estimate = held_out._replace(activations=rebuilt).difference
    row: dict[str, float | int | str | None] = {
        "direction": direction.name,
        "texts": len(direction.texts.positive) - len(held_out.positive),
        "held_out": len(held_out.positive),
        "repeated_cosine": _cosine(held_out.difference, r),
        "cosine": _cosine(estimate, r),
        "error": _error(estimate, r),
    }
    weights = bootstrap_weights(
        held_out, settings.bootstrap, subject.seed, direction.name, "held out"
    )
    draws = weights @ rebuilt
    for name, measure in (("cosine", _cosine), ("error", _error)):
        values = [measure(draw, r) for draw in draws]
        ends = [(1 - settings.level) / 2, (1 + settings.level) / 2]
        low, high = np.quantile(values, ends).tolist() if values else (None, None)
        row |= {f"{name}_low": low, f"{name}_high": high}
    cosines = subject.dictionary.cosines((r / r.norm()).unsqueeze(0))[0].double().cpu()
    best = int(cosines.abs().argmax())
    d_sae, d_model = subject.dictionary.atoms.shape
    return row | {
        "best_latent": best,
        "best_cosine": float(cosines[best]),
        "null_cosine": math.sqrt(2 * math.log(d_sae) / d_model),
        "best_density": float(density[best]),
        "concept_share": occurrence and occurrence.share,
        "concept_per_thousand": occurrence and occurrence.per_thousand,
    }


def _cosine(estimate: Tensor, r: Tensor) -> float:
    return float(torch.cosine_similarity(estimate, r, dim=0))


def _error(estimate: Tensor, r: Tensor) -> float:
    return float((estimate - r).square().sum() / r.square().sum())


def occurrence_of(
    words: Sequence[str], blocks: TokenBlocks, decode: Callable[[Sequence[int]], str]
) -> Occurrence:
    """How often words occur in a corpus, as whole words in any case.

    Args:
        words: at least one.
        blocks: of the corpus.
        decode: the text of tokens.
    """
    hits = occurrences(words, blocks, decode)
    return Occurrence(float((hits > 0).mean()), float(1000 * hits.sum() / blocks.tokens.size))
