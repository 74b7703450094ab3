"""How far apart two models' predictions are, token by token, and where they differ most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from saeflow.analyses.diffing.settings import Baselines, Classes
from saeflow.analyses.diffing.texts import Text, vocabulary_size
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import final_states, position_chunks, unembed
from saeflow.models.vocabulary import vocabulary
from saeflow.saes.evaluation import blocks_per_pass
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import POSITIVE, Resampling, cells

DIVERGENCE = {
    "measure": pl.String,
    "position": pl.Int32,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
}
PLACES = {
    "rank": pl.Int32,
    "kl": pl.Float64,
    "block": pl.Int32,
    "position": pl.Int32,
    "before": pl.String,
    "next": pl.String,
    "base_says": pl.String,
    "tuned_says": pl.String,
}
TOKENS = {
    "token_id": pl.Int32,
    "token": pl.String,
    "kl": pl.Float64,
    "count": pl.Int64,
    "share": pl.Float64,
}
MEASURES = ("kl", "kl_reverse", "loss_base", "loss_tuned")
CONTEXT = 24
"""Tokens shown before a place."""
SAID = 3
"""Tokens shown of what each model would say."""


class Divergence(NamedTuple):
    """What became of a text.

    Attributes:
        table: means with intervals over blocks: the columns of `DIVERGENCE`, position null for all.
        places: where the models differ most: the columns of `PLACES`.
        tokens: after which tokens they differ most: the columns of `TOKENS`.
    """

    table: pl.DataFrame
    places: pl.DataFrame
    tokens: pl.DataFrame


def token_divergence(
    p: Float[Tensor, "rows d_vocab"], q: Float[Tensor, "rows d_vocab"]
) -> Float64[Tensor, " rows"]:
    """KL(p ‖ q) of distributions from their log-probabilities, in nats; what is never drawn counts
    nothing."""
    terms = torch.where(p.isneginf(), 0.0, p.exp() * (p - q))
    return terms.double().sum(-1).clamp_min(0)


@torch.no_grad()
def measure_divergence(
    text: Text, settings: Baselines, resampled: Classes, seed: int
) -> Divergence:
    """KL(tuned ‖ base), KL(base ‖ tuned) and the losses of both at every position that counts, but
    the last of a block.

    Args:
        text: with the base as the first source, the tuned model as the second.
        settings: how many places and tokens are listed.
        resampled: level and draws of the intervals.
        seed: of the study.
    """
    base, tuned = (source.lm for source in text.sources)
    size = vocabulary_size(base, tuned)
    pos, of_token = text.tokens.shape[1], np.zeros((2, size))
    measured = np.full((len(MEASURES), *text.tokens.shape), np.nan)
    for first, tokens, kept, values in _token_by_token(text, size):
        where = kept.cpu().numpy()
        for measure, own in zip(measured, values, strict=True):
            measure[first : first + len(tokens)][where] = own
        read = tokens[kept].cpu().numpy()
        of_token[0] += np.bincount(read, values[0], size)
        of_token[1] += np.bincount(read, minlength=size)
    clusters = np.repeat(np.arange(len(text.tokens)), pos)
    generator = numpy_generator(seed, "diffing", "divergence")
    resampling = Resampling(clusters, resampled.draws, resampled.level, generator)
    rows = []
    for name, values in zip(MEASURES, measured, strict=True):
        positions = [None, *range(1, min(settings.positions + 1, pos - 1))]
        for position in positions if name == "kl" else [None]:
            own = values if position is None else np.full_like(values, np.nan)
            if position is not None:
                own[:, position] = values[:, position]
            if count := int((~np.isnan(own)).sum()):
                rows.append((name, position, *cells(resampling.mean(own.ravel(), POSITIVE)), count))
    return Divergence(
        pl.DataFrame(rows, schema=DIVERGENCE, orient="row"),
        _largest(text, measured[0], settings.tokens, size),
        _by_token(base, of_token, settings.tokens),
    )


def _token_by_token(
    text: Text, size: int
) -> Iterator[
    tuple[int, Int64[Tensor, "blocks pos"], Bool[Tensor, "blocks pos"], Float64[np.ndarray, "4 n"]]
]:
    """By pass the first block, tokens, where there are values, and the values of `MEASURES`."""
    base, tuned = (source.lm for source in text.sources)
    most = blocks_per_pass(base, text.tokens.shape[1])
    for first in range(0, len(text.tokens), most):
        tokens = torch.from_numpy(text.tokens[first : first + most]).long().to(base.device)
        kept = text.kept(tokens)
        kept[:, -1] = False
        following = tokens.roll(-1, 1)[kept]
        states = [final_states(lm, tokens)[kept] for lm in (base, tuned)]
        values = torch.zeros(len(MEASURES), len(following), dtype=torch.float64)
        for part in position_chunks(tuned, len(following)):
            p, q = (
                unembed(lm, of[part]).float()[:, :size].log_softmax(-1)
                for lm, of in zip((tuned, base), states[::-1], strict=True)
            )
            said = following[part, None]
            values[0, part] = token_divergence(p, q).cpu()
            values[1, part] = token_divergence(q, p).cpu()
            values[2, part] = -q.gather(1, said)[:, 0].double().cpu()
            values[3, part] = -p.gather(1, said)[:, 0].double().cpu()
        yield first, tokens, kept, values.numpy()


def _largest(text: Text, kl: Float64[np.ndarray, "blocks pos"], k: int, size: int) -> pl.DataFrame:
    """The places where the models differ most, with what each would say."""
    base, tuned = (source.lm for source in text.sources)
    flat = np.nan_to_num(kl, nan=-1.0).ravel()
    order = [place for place in np.argsort(-flat, kind="stable")[:k] if flat[place] > 0]
    rows = []
    for rank, place in enumerate(order):
        block, position = divmod(int(place), kl.shape[1])
        ids = text.tokens[block]
        read = torch.from_numpy(ids[None, : position + 1]).long().to(base.device)
        says = [_says(lm, read, size) for lm in (base, tuned)]
        before = base.tokenizer.decode(ids[max(0, position + 1 - CONTEXT) : position + 1])
        said = base.tokenizer.decode(ids[position + 1 : position + 2])
        rows.append((rank, flat[place], block, position, before, said, *says))
    return pl.DataFrame(rows, schema=PLACES, orient="row")


def _says(lm: LanguageModel, tokens: Int64[Tensor, "1 pos"], size: int) -> str:
    """The most probable next tokens, with their probabilities."""
    logits = unembed(lm, final_states(lm, tokens)[:, -1])[0, :size]
    likely = logits.float().softmax(-1).topk(min(SAID, size))
    return ", ".join(
        f"{lm.tokenizer.decode([token])!r} {probability:.2f}"
        for probability, token in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
    )


def _by_token(
    lm: LanguageModel, of_token: Float64[np.ndarray, "2 d_vocab"], k: int
) -> pl.DataFrame:
    """The tokens after which most of the divergence lies."""
    words = vocabulary(lm.tokenizer, of_token.shape[1])
    texts = dict(zip(words.ids.tolist(), words.texts, strict=True))
    sums, counts = of_token
    order = [token for token in np.argsort(-sums, kind="stable")[:k] if sums[token] > 0]
    whole = sums.sum()
    rows = [
        (int(t), texts.get(int(t), ""), sums[t] / counts[t], int(counts[t]), sums[t] / whole)
        for t in order
    ]
    return pl.DataFrame(rows, schema=TOKENS, orient="row")
