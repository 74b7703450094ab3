"""Latents of crosscoders and of SAEs of differences: labels from what `diffing` tells of them, and
the passages in which they fire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch

from saeflow.analyses.diffing.contexts import part_of
from saeflow.analyses.diffing.texts import Text
from saeflow.analyses.labels.choosing import CHOSEN
from saeflow.analyses.labels.passages import Cached
from saeflow.analyses.labels.settings import TokenWording
from saeflow.analyses.labels.wording import LABELS, one_line, quoted_token
from saeflow.saes.crosscoder import Crosscoder

BASE = "the base"


def shown_latents(decoders: pl.DataFrame, latents: pl.DataFrame) -> pl.DataFrame:
    """The latents that `diffing` shows, of whichever model that is compared; the columns of
    `CHOSEN`.

    Args:
        decoders: latent: of those that are shown.
        latents: of all, latent and density.
    """
    shown = decoders.select("latent").unique().sort("latent")
    densities = latents.group_by("latent").agg(pl.col("density").max())
    table = shown.join(densities, on="latent", how="left").with_columns(
        why=pl.lit("shown"), tokens=None, maximum=None
    )
    return table.select(pl.col(name).cast(kind) for name, kind in CHOSEN.items())


def decoder_labels(
    latents: pl.DataFrame, decoders: pl.DataFrame, contexts: pl.DataFrame, asked: TokenWording
) -> pl.DataFrame:
    """A label per latent from what its directions promote in either model and what it fires on.

    Args:
        latents: which, column latent.
        decoders: model, latent, side, rank, token: what each model's direction raises.
        contexts: latent, token: of the places where it fires most.
        asked: how many tokens are named.

    Returns:
        The columns of `LABELS`.
    """
    rows = []
    for latent in latents["latent"].to_list():
        parts = _promoted(decoders.filter(latent=latent), asked.promoted)
        places = contexts.filter(latent=latent).unique(["block", "position"])["token"].to_list()
        if places:
            (token, count), *_ = sorted(Counter(places).items(), key=lambda pair: (-pair[1], pair))
            if count >= asked.frequent * len(places):
                of = f"{count} of the {len(places)} places where it fires most"
                parts.append(f"fires on {quoted_token(token)} ({of})")
        if parts:
            rows.append((latent, "tokens", one_line("; ".join(parts)), "decoders, firing tokens"))
    return pl.DataFrame(rows, schema=LABELS, orient="row")


def _promoted(own: pl.DataFrame, most: int) -> list[str]:
    """What a latent predicts, model by model, and once where models predict the same."""
    top = own.filter(pl.col("rank") < most).sort("rank")
    models: dict[str, list[str]] = {}
    for (model, side), table in top.group_by("model", "side", maintain_order=True):
        tokens = ", ".join(map(quoted_token, table["token"].to_list()))
        models.setdefault(tokens, []).append(BASE if side == "base" else str(model))
    return [
        f"predicts {tokens} in {' and '.join(dict.fromkeys(names))}"
        for tokens, names in models.items()
    ]


@torch.no_grad()
def read_firings(
    crosscoder: Crosscoder,
    text: Text,
    latents: Sequence[int],
    window: int,
    progress: Callable[[int, int], None] | None = None,
) -> Cached:
    """Read what some latents do on text, pass by pass.

    Args:
        crosscoder: on the models' device.
        text: all its sources, in its order.
        latents: which.
        window: tokens of a passage.
        progress: told how many blocks are read.
    """
    part, numbers = part_of(crosscoder, list(latents)), np.array(latents)
    windows, columns = [], []
    for passed in text.passes():
        values = part.encode(passed.x).float().cpu().numpy()
        block, position = passed.block(), passed.kept.nonzero()[:, 1].cpu().numpy()
        windows.append(np.unique(np.stack([block, position // window], axis=1), axis=0))
        row, column = np.nonzero(values > 0)
        columns.append((numbers[column], block[row], position[row], values[row, column]))
        if progress:
            progress(passed.first + len(passed.tokens), len(text.tokens))
    own_latents, blocks, positions, activations = map(np.concatenate, zip(*columns, strict=True))
    every = np.unique(np.concatenate(windows), axis=0)
    return Cached(every, own_latents, blocks, positions, activations)
