"""The text around places where latents fire, and how much they fire along it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Float32, Int32, Int64

from saeflow.analyses.examples.entries import Firings
from saeflow.analyses.examples.examples import ContextPlaces
from saeflow.columns import column
from saeflow.tables import Schema

CONTEXTS: Schema = {
    "latent": pl.Int32,
    "group": pl.String,
    "rank": pl.Int32,
    "activation": pl.Float32,
    "block": pl.Int32,
    "position": pl.Int32,
    "offset": pl.Int32,
    "token_ids": pl.List(pl.Int32),
    "activations": pl.List(pl.Float32),
}


class Windows:
    """Windows of text around contexts; filled from the entries and the blocks of text, both a part
    at a time."""

    def __init__(self, places: ContextPlaces, before: int, after: int) -> None:
        """Know where the contexts are, and nothing of their text.

        Args:
            places: of the contexts.
            before, after: tokens on either side of the one that fires.
        """
        self._places, self._before, self._width = places, before, before + 1 + after
        count = len(places.rows)
        self._blocks, self._positions = np.full(count, -1, np.int32), np.zeros(count, np.int32)
        self._activations = np.zeros((count, self._width), np.float32)
        self._tokens = np.zeros((count, self._width), np.int32)
        self._inside = np.zeros((count, self._width), np.bool_)
        self._by_row = np.argsort(places.rows, kind="stable")

    def locate(self, part: Firings) -> None:
        """Find block and position of the contexts among the rows of a part; after it, call `fill`
        with the same."""
        rows = self._places.rows[self._by_row]
        own = self._by_row[
            slice(*np.searchsorted(rows, [part.first, part.first + len(part.places.tokens)]))
        ]
        at = self._places.rows[own] - part.first
        self._blocks[own], self._positions[own] = part.places.blocks[at], part.places.positions[at]

    def fill(self, part: Firings) -> None:
        """Put in how much the latents fire along the windows that lie in a part; all contexts must
        be located."""
        shift = int(self._blocks.max(initial=0)) + 1
        keys = self._places.latents.astype(np.int64) * shift + self._blocks
        order = np.argsort(keys, kind="stable")
        entry_keys = part.latents.astype(np.int64) * shift + part.blocks
        entry_keys[part.blocks >= shift] = -1
        low, high = (np.searchsorted(keys[order], entry_keys, side) for side in ("left", "right"))
        entries = np.repeat(np.arange(len(entry_keys)), high - low)
        if not len(entries):
            return
        within = np.arange(len(entries)) - np.repeat(
            np.cumsum(high - low) - (high - low), high - low
        )
        contexts = order[low[entries] + within]
        columns = part.positions[entries] - self._positions[contexts] + self._before
        seen = (columns >= 0) & (columns < self._width)
        self._activations[contexts[seen], columns[seen]] = part.values[entries[seen]]

    def read(self, first: int, tokens: Int32[np.ndarray, "blocks pos"]) -> None:
        """Put in the text of the windows that lie in some blocks, whose first has this number."""
        own = np.flatnonzero((self._blocks >= first) & (self._blocks < first + len(tokens)))
        columns = self._positions[own, None] - self._before + np.arange(self._width)
        inside = (columns >= 0) & (columns < tokens.shape[1])
        self._inside[own] = inside
        rows = np.broadcast_to((self._blocks[own] - first)[:, None], columns.shape)
        self._tokens[own] = np.where(
            inside, tokens[rows, np.clip(columns, 0, tokens.shape[1] - 1)], 0
        )

    def tables(self, latents_at_once: int = 2048) -> Iterator[pl.DataFrame]:
        """The table of contexts, some latents at a time."""
        if not len(self._places.latents):
            yield pl.DataFrame(schema=CONTEXTS)
            return
        for first in range(0, int(self._places.latents[-1]) + 1, latents_at_once):
            ends = np.searchsorted(self._places.latents, [first, first + latents_at_once])
            if ends[0] < ends[1]:
                yield self._table(slice(*ends))

    def _table(self, part: slice) -> pl.DataFrame:
        inside = self._inside[part]
        lengths, opening = inside.sum(axis=1), inside.argmax(axis=1)
        offsets = np.append(0, np.cumsum(lengths))
        groups = self._places.groups[part]
        columns = {
            "latent": self._places.latents[part],
            "group": np.where(groups == 0, "top", np.char.add("q", groups.astype(str))),
            "rank": self._places.ranks[part],
            "activation": self._activations[part, self._before],
            "block": self._blocks[part],
            "position": self._positions[part],
            "offset": (self._before - opening).astype(np.int32),
            "token_ids": _lists(self._tokens[part][inside], offsets),
            "activations": _lists(self._activations[part][inside], offsets),
        }
        return pl.DataFrame(columns).select(
            pl.col(name).cast(kind) for name, kind in CONTEXTS.items()
        )


class Blocks(NamedTuple):
    """Some consecutive blocks of text."""

    first: int
    tokens: Int32[np.ndarray, "blocks pos"]


def fill(
    windows: Windows, entries: Iterable[Firings], again: Iterable[Firings], text: Iterable[Blocks]
) -> None:
    """Fill windows.

    Args:
        windows: what to fill.
        entries, again: all entries, twice: a block may reach from one part into the next.
        text: all blocks.
    """
    for part in entries:
        windows.locate(part)
    for part in again:
        windows.fill(part)
    for first, tokens in text:
        windows.read(first, tokens)


def _lists(
    values: Int32[np.ndarray, " n"] | Float32[np.ndarray, " n"], offsets: Int64[np.ndarray, " m"]
) -> pl.Series:
    """Lists that lie one after another in an array."""
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(column(offsets), column(values))))
