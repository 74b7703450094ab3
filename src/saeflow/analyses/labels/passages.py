"""Passages of text that labels are made from and held against: those in which a latent fires, by
how strongly, and those in which it is silent.

Blocks of text are dealt to two sides: what is shown to a model that explains comes from one, what
labels are scored on from the other. So no label is scored on text that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int64

from saeflow.analyses.examples.entries import Firings
from saeflow.analyses.labels.settings import Passages
from saeflow.seeds import numpy_generator, row_keys, uniforms
from saeflow.tables import Schema

PASSAGES: Schema = {
    "latent": pl.Int32,
    "use": pl.String,
    "quantile": pl.Int32,
    "block": pl.Int32,
    "start": pl.Int32,
    "token_ids": pl.List(pl.Int32),
    "activations": pl.List(pl.Float32),
}
"""``use``: shown, tested, silent; ``quantile`` 0 is the strongest, null of silent ones."""


class Cached(NamedTuple):
    """What the cache holds of some latents.

    Attributes:
        windows: block and number of every window of text with a row in the cache.
        latents, blocks, positions, values: of every firing.
    """

    windows: Int64[np.ndarray, "windows 2"]
    latents: Int64[np.ndarray, " n"]
    blocks: Int64[np.ndarray, " n"]
    positions: Int64[np.ndarray, " n"]
    values: Float32[np.ndarray, " n"]


def read_cached(entries: Iterable[Firings], latents: Sequence[int], window: int) -> Cached:
    """Read what some latents do in the sparse table of activations, a shard at a time."""
    windows, parts = [], []
    for part in entries:
        places = np.stack([part.places.blocks, part.places.positions // window], axis=1)
        windows.append(np.unique(places.astype(np.int64), axis=0))
        own = np.isin(part.latents, latents)
        parts.append((part.latents[own], part.blocks[own], part.positions[own], part.values[own]))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    own_latents, blocks, positions = (column.astype(np.int64) for column in columns[:3])
    every = np.unique(np.concatenate(windows), axis=0)
    return Cached(every, own_latents, blocks, positions, columns[3])


def gather(
    cached: Cached,
    latents: Sequence[int],
    tokens: np.ndarray,
    asked: Passages,
    sae: str,
    seed: int,
) -> pl.DataFrame:
    """Draw the passages of each latent.

    Args:
        cached: what the latents do.
        latents: which.
        tokens: of all blocks, ``[blocks, pos]``.
        asked: how many passages of what length.
        sae: whose latents they are; it names the draws.
        seed: of the study.

    Returns:
        The columns of `PASSAGES`. A latent that fires in few passages has few.
    """
    blocks = np.unique(cached.windows[:, 0])
    share = asked.shown / (asked.shown + asked.tested)
    drawn = uniforms(row_keys(seed, "labels/blocks", ((int(b),) for b in blocks)), 1)[:, 0]
    shown_blocks = blocks[drawn < share] if asked.shown else blocks[:0]
    order = np.argsort(cached.latents, kind="stable")
    ends = np.searchsorted(cached.latents[order], [[each, each + 1] for each in latents])
    rows: list[tuple[object, ...]] = []
    for latent, (first, last) in zip(latents, ends, strict=True):
        own = order[first:last]
        firing = _Firing(cached, own, asked.window)
        generator = numpy_generator(seed, "labels", "passages", sae, latent)
        to_show = np.isin(firing.windows[:, 0], shown_blocks)
        for use, side, count in (
            ("shown", to_show, asked.shown),
            ("tested", ~to_show, asked.tested),
        ):
            for quantile, place in _by_quantile(firing, side, count, asked.quantiles, generator):
                block, start = firing.place(place, asked.window)
                activations = firing.activations(place, asked.window)
                rows.append((latent, use, quantile, block, start, activations))
        quiet = _silent(cached.windows, firing.windows, shown_blocks)
        count = min(asked.silent, len(quiet))
        for place in generator.choice(len(quiet), count, replace=False):
            block, number = quiet[place].tolist()
            rows.append((latent, "silent", None, block, number * asked.window, None))
    return _table(rows, tokens, asked.window)


class _Firing:
    """Where one latent fires: its windows, strongest first."""

    def __init__(self, cached: Cached, own: np.ndarray, window: int) -> None:
        places = np.stack([cached.blocks[own], cached.positions[own] // window], axis=1)
        self._offsets, self._values = cached.positions[own] % window, cached.values[own]
        windows, self._of = np.unique(places, axis=0, return_inverse=True)
        self._of = self._of.reshape(-1)
        strength = np.zeros(len(windows), np.float32)
        np.maximum.at(strength, self._of, self._values)
        order = np.lexsort((windows[:, 1], windows[:, 0], -strength))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        self.windows, self._of = windows[order], rank[self._of]

    def place(self, place: int, window: int) -> tuple[int, int]:
        block, number = self.windows[place].tolist()
        return block, number * window

    def activations(self, place: int, window: int) -> list[float]:
        values = np.zeros(window, np.float32)
        inside = self._of == place
        values[self._offsets[inside]] = self._values[inside]
        return values.tolist()


def _by_quantile(
    firing: _Firing,
    side: Bool[np.ndarray, " windows"],
    count: int,
    quantiles: int,
    generator: np.random.Generator,
) -> list[tuple[int, int]]:
    """Places of windows of one side, as many of every quantile of their strength as can be."""
    drawn = []
    for quantile, part in enumerate(np.array_split(np.flatnonzero(side), quantiles)):
        wanted = (quantile + 1) * count // quantiles - quantile * count // quantiles
        kept = generator.choice(part, min(wanted, len(part)), replace=False) if len(part) else part
        drawn += [(quantile, int(place)) for place in sorted(kept)]
    return drawn


def _silent(
    windows: Int64[np.ndarray, "windows 2"],
    firing: Int64[np.ndarray, "own 2"],
    shown_blocks: Int64[np.ndarray, " blocks"],
) -> Int64[np.ndarray, "silent 2"]:
    """Windows of the tested side in which a latent never fires."""
    tested = windows[~np.isin(windows[:, 0], shown_blocks)]
    most = int(windows[:, 1].max()) + 1
    keys = tested[:, 0] * most + tested[:, 1]
    return tested[~np.isin(keys, firing[:, 0] * most + firing[:, 1])]


def _table(rows: list[tuple[object, ...]], tokens: np.ndarray, window: int) -> pl.DataFrame:
    columns: dict[str, list[object]] = {name: [] for name in PASSAGES}
    for latent, use, quantile, block, start, activations in rows:
        own = tokens[block, start : start + window].tolist()  # type: ignore[index, operator]
        values = activations[: len(own)] if activations else [0.0] * len(own)  # type: ignore[index]
        row = (latent, use, quantile, block, start, own, values)
        for name, value in zip(PASSAGES, row, strict=True):
            columns[name].append(value)
    return pl.DataFrame(columns, schema=PASSAGES)
