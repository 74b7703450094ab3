"""Shuffled batches of a cache that may be larger than memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.activations.io import ActivationStore, Piece
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator


class ShuffledReader:
    """An endless run of batches; every epoch holds every row exactly once, in an order of its own.

    An epoch permutes the pieces of the cache, cuts the permutation into portions that fit the buffer, and permutes the
    rows of each portion. A cache that fits the buffer is one portion: a plain permutation, read from disk once. The
    order follows from (seed, epoch) alone, so any batch can be sought without reading those before it.

    Attributes:
        store: the cache.
        batch_size: rows per batch; batches run across the ends of portions and epochs, so all are full.
    """

    def __init__(self, store: ActivationStore, batch_size: int, seed: int, buffer_rows: int = 1 << 20) -> None:
        """Set up a reader at its first batch.

        Args:
            store: the cache.
            batch_size: rows per batch.
            seed: of the order.
            buffer_rows: most rows held in memory; a batch and, while it is read, a piece come on top.

        Raises:
            SaeflowError: the buffer does not hold a piece of the cache.
        """
        self.store, self.batch_size, self._seed, self._buffer_rows = store, batch_size, seed, buffer_rows
        self._pieces = store.pieces()
        largest = max(piece.rows for piece in self._pieces)
        if buffer_rows < largest:
            raise SaeflowError(f"activations: a buffer of {buffer_rows} rows is too small; give at least {largest}")
        whole = store.rows <= buffer_rows
        self._n_portions = 1 if whole else -(-len(self._pieces) // (buffer_rows // largest))
        self._batch = 0
        self._epoch = -1
        self._portions: list[list[Piece]] = []
        self._starts: list[int] = []
        self._loaded: list[Piece] = []
        self._buffer = torch.empty(0, store.d_model, dtype=store.dtype)
        self._order: tuple[int, int, Tensor] = (-1, -1, torch.empty(0, dtype=torch.long))

    @property
    def identity(self) -> list[Any]:
        """Everything the order of rows is determined by."""
        return [self.store.identity, self.batch_size, self._seed, self._buffer_rows]

    def state(self) -> dict[str, int]:
        """The place of the next batch."""
        return {"batch": self._batch}

    def seek(self, state: dict[str, int]) -> None:
        """Go to a place that `state` gave."""
        self._batch = state["batch"]

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_model"]]:
        return self

    def __next__(self) -> Float[Tensor, "batch d_model"]:
        """The next batch, in the cache's dtype."""
        first = self._batch * self.batch_size
        batch = torch.empty(self.batch_size, self.store.d_model, dtype=self.store.dtype)
        filled = 0
        while filled < self.batch_size:
            rows = self._rows(first + filled, self.batch_size - filled)
            torch.index_select(self._buffer, 0, rows, out=batch[filled : filled + len(rows)])
            filled += len(rows)
        self._batch += 1
        return batch

    def _rows(self, place: int, most: int) -> Tensor:
        """Where in the buffer the rows from ``place`` of the endless run lie, up to the end of a portion."""
        epoch, offset = divmod(place, self.store.rows)
        if epoch != self._epoch:
            self._plan(epoch)
        portion = bisect_right(self._starts, offset) - 1
        self._load(self._portions[portion])
        if self._order[:2] != (epoch, portion):
            generator = numpy_generator(self._seed, "rows", epoch, portion)
            self._order = (epoch, portion, torch.from_numpy(generator.permutation(len(self._buffer))))
        start = offset - self._starts[portion]
        return self._order[2][start : start + most]

    def _plan(self, epoch: int) -> None:
        """Permute the pieces and cut them into portions."""
        order = numpy_generator(self._seed, "pieces", epoch).permutation(len(self._pieces))
        parts = np.array_split(order, self._n_portions)
        self._portions = [[self._pieces[index] for index in np.sort(part)] for part in parts]
        sizes = [sum(piece.rows for piece in portion) for portion in self._portions]
        self._starts = [0, *accumulate(sizes)][:-1]
        self._epoch = epoch

    def _load(self, portion: list[Piece]) -> None:
        """Read a portion into the buffer, whose old rows are let go first."""
        if portion == self._loaded:
            return
        self._loaded = []
        rows = sum(piece.rows for piece in portion)
        if len(self._buffer) != rows:
            self._buffer = torch.empty(0)
            self._buffer = torch.empty(rows, self.store.d_model, dtype=self.store.dtype)
        start = 0
        for piece in portion:
            self._buffer[start : start + piece.rows] = self.store.read(piece)
            start += piece.rows
        self._loaded = portion
