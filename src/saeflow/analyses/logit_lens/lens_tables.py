"""The tables of the logit lens: one row per latent, per token at either end, per histogram, per
latent and set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from saeflow.analyses.logit_lens import gsea
from saeflow.analyses.logit_lens.classes import classify, classify_as_published, thresholds
from saeflow.analyses.logit_lens.enrichment import (
    enriched,
    p_values,
    split_pairs,
    splits,
    with_leading_edges,
)
from saeflow.analyses.logit_lens.logit_lens import (
    LensTable,
    OnProgress,
    logit_weights,
    look_through,
    random_directions,
)
from saeflow.analyses.logit_lens.settings import Enrichment, Gsea, Projection
from saeflow.analyses.logit_lens.token_sets import MemberSet
from saeflow.errors import SaeflowError
from saeflow.models.hooks import check_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.vocabulary import Vocabulary
from saeflow.saes.sae import SAE
from saeflow.seeds import numpy_generator
from saeflow.statistics.false_discovery import q_values
from saeflow.tables import Schema

SPLIT_FIGURES = 6
LATENTS: Schema = {
    "latent": pl.Int32,
    "mean": pl.Float32,
    "std": pl.Float32,
    "skewness": pl.Float32,
    "kurtosis": pl.Float32,
    "entropy": pl.Float32,
    "log10_density": pl.Float32,
    "class": pl.String,
    "class_published": pl.String,
    "decoder_norm": pl.Float32,
    "layer": pl.Int32,
}
TOKENS: Schema = {
    "latent": pl.Int32,
    "side": pl.String,
    "rank": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "weight": pl.Float32,
}
HISTOGRAMS: Schema = {
    "latent": pl.Int32,
    "low": pl.Float32,
    "high": pl.Float32,
    "counts": pl.List(pl.UInt32),
}
SCORES: Schema = {"latent": pl.Int32, "set": pl.Categorical, "ks": pl.Float32, "auc": pl.Float32}
GSEA: Schema = {
    "latent": pl.Int32,
    "set": pl.String,
    "score": pl.Float32,
    "normalised": pl.Float32,
    "p": pl.Float64,
    "q_bh": pl.Float64,
}


class LensInput(NamedTuple):
    """What is looked at, and through what.

    Attributes:
        decoder: decoder rows of all latents.
        unembedding: from `models.unembedding`.
        vocabulary: the vocabulary.
        sets: the token sets that are looked at.
        density: share of tokens on which each latent fires, where it is known.
        typical: mean of each latent's activations where it fires; needed for ``scale: typical``.
        layer: whose residual stream the rows are added to.
    """

    decoder: Float[Tensor, "latents d_model"]
    unembedding: Float[Tensor, "tokens d_model"]
    vocabulary: Vocabulary
    sets: Sequence[MemberSet]
    density: Float64[np.ndarray, " latents"] | None
    typical: Float32[np.ndarray, " latents"] | None
    layer: int


class LensResult(NamedTuple):
    """The tables of one SAE, named as their files."""

    latents: pl.DataFrame
    tokens: pl.DataFrame
    histograms: pl.DataFrame
    scores: pl.DataFrame
    enrichment: pl.DataFrame
    splits: pl.DataFrame
    gsea: pl.DataFrame | None


def written_hook(lm: LanguageModel, sae: SAE, hook: str) -> str:
    """The hook that an SAE writes: the one it reads, a transcoder's other one.

    Raises:
        SaeflowError: the model has no such hook, or its decoder rows are no directions of the
            residual stream.
    """
    written = str(sae.metadata.get("hook_name_out") or hook) if sae.is_transcoder else hook
    if not lm.family.writes_stream(check_hook(lm, written).site) or sae.d_out != lm.d_model:
        raise SaeflowError(
            f"logit lens: the SAE writes {sae.d_out} numbers at {written}, and the residual stream "
            f"has {lm.d_model} of its own; set logit_lens: null"
        )
    return written


def apply_lens(
    given: LensInput,
    projection: Projection,
    settings: Enrichment,
    seed: int,
    threads: int = 1,
    progress: OnProgress | None = None,
) -> LensResult:
    """Look at all latents of an SAE through the unembedding.

    Args:
        given: what is looked at.
        projection: from decoder rows to logit weights.
        settings: what they are tested for.
        seed: the study's.
        threads: that sort and count; they change no number.
        progress: told how many latents are done.
    """
    members = [member_set.members for member_set in given.sets]
    directions = given.decoder.float() * _gains(given, projection.scale)[:, None]
    generator = numpy_generator(seed, "logit lens", "directions")
    drawn = random_directions(settings.directions, directions.shape[1], generator).to(
        directions.device
    )
    null = look_through(drawn, given.unembedding, members, projection.tokens, threads)
    table = look_through(
        directions, given.unembedding, members, projection.tokens, threads, progress
    )
    tested = p_values(table, null, given.sets, len(given.vocabulary.ids))
    enrichment = enriched(table, tested, given.sets, settings.test, settings.level)
    pairs = split_pairs(enrichment, given.sets, SPLIT_FIGURES)
    return LensResult(
        latents=_latents(given, directions, table, null, settings.false_positive_rate),
        tokens=token_table(table, given.vocabulary),
        histograms=_histograms(table),
        scores=_scores(table, given.sets),
        enrichment=with_leading_edges(
            enrichment, directions, given.unembedding, given.sets, given.vocabulary.ids
        ),
        splits=splits(pairs, directions, given.unembedding, given.sets),
        gsea=_gsea(given, directions, table, settings.gsea, seed) if settings.gsea else None,
    )


def _gains(given: LensInput, scale: str) -> Float[Tensor, " latents"]:
    """What each decoder row is multiplied by; a latent that never fires keeps its own length."""
    if scale == "unit" or given.typical is None:
        return torch.ones(len(given.decoder), device=given.decoder.device)
    typical = torch.from_numpy(np.where(given.typical > 0, given.typical, 1.0)).float()
    return typical.to(given.decoder.device)


def _latents(
    given: LensInput,
    directions: Float[Tensor, "latents d_model"],
    table: LensTable,
    null: LensTable,
    rate: float,
) -> pl.DataFrame:
    beyond = thresholds(null.column("std"), null.column("skewness"), null.column("kurtosis"), rate)
    lengths = np.maximum(directions.norm(dim=1).double().cpu().numpy(), 1e-30)
    std, skewness, kurtosis = (table.column(name) for name in ("std", "skewness", "kurtosis"))
    with np.errstate(divide="ignore"):
        log_density = None if given.density is None else np.log10(given.density)
    density = pl.Series([None] * len(std) if log_density is None else log_density, dtype=pl.Float32)
    columns = {
        "latent": np.arange(len(std)),
        **{name: table.column(name) for name in ("mean", "std", "skewness", "kurtosis", "entropy")},
        "log10_density": density.set(density.is_infinite(), None)
        if log_density is not None
        else density,
        "class": classify(std / lengths, skewness, kurtosis, beyond),
        "class_published": classify_as_published(std / lengths, skewness, kurtosis),
        "decoder_norm": given.decoder.float().norm(dim=1).cpu().numpy(),
        "layer": np.full(len(std), given.layer),
    }
    return pl.DataFrame(columns).select(pl.col(name).cast(kind) for name, kind in LATENTS.items())


def token_table(table: LensTable, vocabulary: Vocabulary) -> pl.DataFrame:
    """The tokens at either end of every direction, with the columns of `TOKENS`."""
    rows, k = table.top.shape
    texts = np.array(vocabulary.texts, dtype=object)
    parts = []
    for side, places, weights in (
        ("top", table.top, table.top_weights),
        ("bottom", table.bottom, table.bottom_weights),
    ):
        columns = {
            "latent": np.repeat(np.arange(rows), k),
            "rank": np.tile(np.arange(k), rows),
            "token_id": vocabulary.ids[places.ravel()],
            "token": texts[places.ravel()],
            "weight": weights.ravel(),
        }
        parts.append(pl.DataFrame(columns).with_columns(side=pl.lit(side)))
    tokens = pl.concat(parts).select(pl.col(name).cast(kind) for name, kind in TOKENS.items())
    return tokens.sort("latent", pl.col("side") == "bottom", "rank")


def _histograms(table: LensTable) -> pl.DataFrame:
    columns = {
        "latent": np.arange(len(table.low), dtype=np.int32),
        "low": table.low,
        "high": table.high,
        "counts": pl.Series(table.counts).arr.to_list(),
    }
    return pl.DataFrame(columns, schema=HISTOGRAMS)


def _scores(table: LensTable, sets: Sequence[MemberSet]) -> pl.DataFrame:
    rows = len(table.ks)
    names = pl.Series([member_set.name for member_set in sets], dtype=pl.Categorical)
    columns = {
        "latent": np.repeat(np.arange(rows, dtype=np.int32), len(sets)),
        "set": names.gather(np.tile(np.arange(len(sets), dtype=np.uint32), rows)),
        "ks": table.ks.ravel().astype(np.float32),
        "auc": table.auc.ravel().astype(np.float32),
    }
    return pl.DataFrame(columns)


def _gsea(
    given: LensInput,
    directions: Float[Tensor, "latents d_model"],
    table: LensTable,
    settings: Gsea,
    seed: int,
) -> pl.DataFrame:
    """The weighted scores of the most skewed latents; all sets and latents are one family of
    tests."""
    skewed = np.argsort(-np.abs(table.column("skewness")), kind="stable")[: settings.latents]
    chosen = np.sort(skewed).tolist()
    rows = []
    for first, part in logit_weights(directions[chosen], given.unembedding):
        for latent, weights in zip(chosen[first:], part, strict=False):
            for member_set in given.sets:
                generator = numpy_generator(seed, "gsea", latent, member_set.name)
                tested = gsea.permuted(
                    weights, member_set.members, settings.weight, settings.permutations, generator
                )
                rows.append((latent, member_set.name, *tested))
    scores = pl.DataFrame(
        rows, schema={name: kind for name, kind in GSEA.items() if name != "q_bh"}, orient="row"
    )
    return scores.with_columns(q_bh=pl.Series(q_values(scores["p"].to_numpy(), "bh")))
