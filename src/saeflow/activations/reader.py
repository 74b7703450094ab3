"""Shuffled batches of caches that may be larger than memory, of one or of several at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from saeflow.activations.io import ActivationStore, Piece
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

_BATCHES = 3  # the one handed out, the one made ahead, and on its way to a device a pinned copy
_LOADERS = 2  # pieces read at once; each is in memory twice, as pages and as rows
_ORDER_BYTES = 8  # of a row's place in the order


class AlignedReader:
    """An endless run of batches of the same rows of several caches; every epoch holds every row
    exactly once.

    An epoch permutes the pieces of the caches, cuts the permutation into portions that fit the
    memory, and permutes the rows of each portion. Caches that fit whole are one portion: a plain
    permutation, read from disk once. The order follows from (seed, epoch) alone, so any batch can
    be sought without reading those before it. While one portion is handed out the next is read, and
    while one batch is used the next is made.

    Attributes:
        stores: the caches, which hold the same tokens at the same rows.
        batch_size: rows per batch; batches run across the ends of portions and epochs, so all are
            full.
    """

    def __init__(
        self,
        stores: Sequence[ActivationStore],
        batch_size: int,
        seed: int,
        memory: int = 1 << 30,
        device: str = "cpu",
    ) -> None:
        """Set up a reader at its first batch.

        Args:
            stores: the caches.
            batch_size: rows per batch.
            seed: of the order, which also depends on ``memory`` where a cache does not fit.
            memory: most bytes held at any time: portions with their order, batches, and the piece
                that is read.
            device: where batches are handed out; from pinned memory to an accelerator.

        Raises:
            SaeflowError: the caches differ in tokens or dtype, a shard is absent or truncated, or
                the memory does not hold two pieces.
        """
        self.stores, self.batch_size, self._seed, self._memory = (
            list(stores),
            batch_size,
            seed,
            memory,
        )
        self._device = torch.device(device)
        _check_aligned(self.stores)
        first = self.stores[0]
        widths = [store.d_model * first.dtype.itemsize for store in self.stores]
        self._sides = [
            slice(end - width, end) for width, end in zip(widths, accumulate(widths), strict=True)
        ]
        # A row lies side by side in all caches.
        self._widest, self._row_bytes = max(widths), sum(widths)
        self._pieces = first.pieces()
        self._largest = max(piece.rows for piece in self._pieces)
        self._n_portions = self._portions_for(memory)
        self._batch = 0
        self._epoch = -1
        self._portions: list[list[Piece]] = []
        self._starts: list[int] = []
        self._held = -1
        most = min(first.rows, -(-len(self._pieces) // self._n_portions) * self._largest)
        self._space = [
            np.empty((most, self._row_bytes), np.uint8) for _ in range(min(2, self._n_portions))
        ]
        self._order: tuple[int, Int64[np.ndarray, " rows"]] = (-1, np.empty(0, np.int64))
        self._loading: tuple[int, list[Future[None]]] = (-1, [])
        self._making: tuple[int, Future[UInt8[Tensor, "batch bytes"]]] | None = None
        self._loader = ThreadPoolExecutor(_LOADERS, "saeflow-portion")
        self._maker = ThreadPoolExecutor(1, "saeflow-batch")

    def _portions_for(self, memory: int) -> int:
        """Into how many portions an epoch is cut: one if all rows fit, else two at a time fit the
        memory."""
        row, largest = self._row_bytes, self._largest
        beside = _BATCHES * self.batch_size * row + _LOADERS * 2 * largest * self._widest
        rows = (memory - beside) // (row + _ORDER_BYTES)
        if self.stores[0].rows <= rows:
            return 1
        if rows < 2 * largest:
            needed = beside + 2 * largest * (row + _ORDER_BYTES)
            raise SaeflowError(
                f"activations: a memory of {memory} bytes is too small; give at least {needed}"
            )
        return -(-len(self._pieces) // (rows // 2 // largest))

    @property
    def identity(self) -> list[Any]:
        """Everything the order of rows is determined by."""
        return [
            *(store.identity for store in self.stores),
            self.batch_size,
            self._seed,
            self._n_portions,
        ]

    def state(self) -> dict[str, int]:
        """The place of the next batch."""
        return {"batch": self._batch}

    def seek(self, state: dict[str, int]) -> None:
        """Go to a place that `state` gave."""
        self._batch = state["batch"]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch, in the caches' dtype: ``[batch, stores, d_model]``; of caches of unlike
        width a tuple.

        Raises:
            SaeflowError: a shard is damaged.
        """
        if not self._making or self._making[0] != self._batch:
            self._make(self._batch)
        assert self._making
        try:
            batch = self._making[1].result()
        finally:
            self._making = None
        self._batch += 1
        self._make(self._batch)
        return self._parted(batch.to(self._device, non_blocking=True))

    def _parted(self, batch: UInt8[Tensor, "batch bytes"]) -> Tensor | tuple[Tensor, ...]:
        first = self.stores[0]
        if len({store.d_model for store in self.stores}) == 1:
            return batch.view(first.dtype).view(len(batch), len(self.stores), first.d_model)
        return tuple(batch[:, side].view(first.dtype) for side in self._sides)

    def _make(self, number: int) -> None:
        """Make a batch in the background, after those asked for before it."""
        self._making = (number, self._maker.submit(self._made, number))

    def _made(self, number: int) -> UInt8[Tensor, "batch bytes"]:
        pinned = self._device.type == "cuda"
        batch = torch.empty(self.batch_size, self._row_bytes, dtype=torch.uint8, pin_memory=pinned)
        raw = batch.numpy()
        filled = 0
        while filled < self.batch_size:
            portion, rows = self._rows(number * self.batch_size + filled, self.batch_size - filled)
            # NumPy gathers in this thread alone; torch would set up a second pool of threads beside
            # the training's.
            np.take(portion, rows, axis=0, out=raw[filled : filled + len(rows)], mode="clip")
            filled += len(rows)
        return batch

    def _rows(
        self, place: int, most: int
    ) -> tuple[UInt8[np.ndarray, "rows bytes"], Int64[np.ndarray, " batch"]]:
        """A portion, and where in it the rows from ``place`` of the endless run lie, up to the
        portion's end."""
        epoch, offset = divmod(place, self.stores[0].rows)
        self._plan(epoch)
        index = bisect_right(self._starts, offset) - 1
        number = epoch * self._n_portions + index
        self._hold(number)
        if self._order[0] != number:
            self._order = (-1, np.empty(0, np.int64))  # let go before the next is drawn
            rows = sum(piece.rows for piece in self._portions[index])
            self._order = (
                number,
                numpy_generator(self._seed, "rows", epoch, index).permutation(rows),
            )
        start = offset - self._starts[index]
        return self._space[number % len(self._space)], self._order[1][start : start + most]

    def _plan(self, epoch: int) -> None:
        """Permute the pieces and cut them into portions."""
        if epoch == self._epoch:
            return
        self._portions = self._portions_of(epoch)
        self._starts = [
            0,
            *accumulate(sum(piece.rows for piece in portion) for portion in self._portions),
        ][:-1]
        self._epoch = epoch

    def _portions_of(self, epoch: int) -> list[list[Piece]]:
        order = numpy_generator(self._seed, "pieces", epoch).permutation(len(self._pieces))
        return [
            [self._pieces[piece] for piece in np.sort(part)]
            for part in np.array_split(order, self._n_portions)
        ]

    def _hold(self, number: int) -> None:
        """Have a portion in memory, and the next one on its way; caches that are one portion
        stay."""
        if self._held == number or (self._n_portions == 1 and self._held >= 0):
            return
        if self._loading[0] != number:
            for piece in self._loading[1]:
                piece.cancel()
            wait(self._loading[1])
            self._load(number)
        pieces = self._loading[1]
        self._held, self._loading = -1, (-1, [])
        wait(pieces)
        for piece in pieces:
            piece.result()
        self._held = number
        if self._n_portions > 1:
            self._load(number + 1)

    def _load(self, number: int) -> None:
        """Read a portion in the background, into the one of two spaces that its neighbours do not
        use."""
        epoch, index = divmod(number, self._n_portions)
        portion = self._portions_of(epoch)[index]
        starts = accumulate((piece.rows for piece in portion), initial=0)
        space = self._space[number % len(self._space)]
        self._loading = (
            number,
            [
                self._loader.submit(store.read_into, piece, space[start : start + piece.rows, side])
                for piece, start in zip(portion, starts, strict=False)
                for side, store in zip(self._sides, self.stores, strict=True)
            ],
        )


class ShuffledReader(AlignedReader):
    """The same of one cache: batches are ``[batch, d_model]``.

    Attributes:
        store: the cache.
    """

    def __init__(
        self,
        store: ActivationStore,
        batch_size: int,
        seed: int,
        memory: int = 1 << 30,
        device: str = "cpu",
    ) -> None:
        """Set up a reader at its first batch; arguments as of `AlignedReader`."""
        super().__init__([store], batch_size, seed, memory, device)
        self.store = store

    def __next__(self) -> Float[Tensor, "batch d_model"]:
        """The next batch, in the cache's dtype; raises as `AlignedReader` does."""
        batch: Tensor = super().__next__()
        return batch.squeeze(1)


def _check_aligned(stores: Sequence[ActivationStore]) -> None:
    """See that caches can be read side by side.

    Raises:
        SaeflowError: two differ in tokens or dtype, or a shard is absent or truncated.
    """
    first = stores[0]
    for store in stores:
        store.check()
        if store.text != first.text:
            raise SaeflowError(
                f"activations: {store.directory} and {first.directory} hold other tokens; "
                "cache both from the same corpus with the same blocks_per_shard and exclusions"
            )
        if store.dtype != first.dtype:
            raise SaeflowError(
                f"activations: {store.directory} holds {store.dtype}, {first.directory} "
                f"{first.dtype}; read side by side, the dtype must be the same"
            )
