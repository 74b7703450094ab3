"""Caches of several models on the same text, brought to the rows that all of them have: with
``exclude_norm_above`` each model leaves out positions by its own norms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial, reduce

import numpy as np
import torch
from jaxtyping import Int64

from saeflow.activations.formats import PIECE_ROWS, Raw
from saeflow.activations.io import ActivationStore, Piece, Places
from saeflow.activations.store import merge, statistics

AllPlaces = list[tuple[Places, Places, Places]]
"""By shard, the tokens, blocks and positions of all rows."""


@dataclass(frozen=True)
class StoreInStep(ActivationStore):
    """Some rows of a cache, in pieces that are of the same rows as those of other caches.

    Attributes:
        whole: the cache.
        numbers: by shard, which of its rows.
        places: of these rows.
    """

    whole: ActivationStore
    numbers: Sequence[Int64[np.ndarray, " rows"]]
    places: AllPlaces

    @property
    def identity(self) -> list[str]:
        """What the rows are: the checksums of the shards, and of which rows."""
        return [*self.whole.identity, *(_digest(numbers) for numbers in self.numbers)]

    @property
    def text(self) -> list[str]:
        """As of any cache: equal in all that are in step."""
        return [_digest(*places) for places in self.places]

    def pieces(self) -> list[Piece]:
        """The rows, in pieces that can be read alone; none is empty."""
        return [
            Piece(shard, group, min(PIECE_ROWS, len(numbers) - start))
            for shard, numbers in enumerate(self.numbers)
            for group, start in enumerate(range(0, len(numbers), PIECE_ROWS))
        ]

    def read_into(self, piece: Piece, out: Raw) -> None:
        """As of the whole, from the pieces of it in which the rows lie."""
        start = piece.group * PIECE_ROWS
        wanted = self.numbers[piece.shard][start : start + piece.rows]
        begin = 0
        for whole in (each for each in self.whole.pieces() if each.shard == piece.shard):
            within = wanted[(wanted >= begin) & (wanted < begin + whole.rows)] - begin
            if len(within):
                every = np.empty((whole.rows, out.shape[1]), np.uint8)
                self.whole.read_into(whole, every)
                place = np.searchsorted(wanted, begin)
                np.take(every, within, axis=0, out=out[place : place + len(within)], mode="clip")
            begin += whole.rows

    def with_places(self) -> Iterator[tuple[Piece, tuple[Places, Places, Places]]]:
        """As of the whole, of these rows."""
        for piece in self.pieces():
            part = slice(piece.group * PIECE_ROWS, piece.group * PIECE_ROWS + piece.rows)
            tokens, blocks, positions = self.places[piece.shard]
            yield piece, (tokens[part], blocks[part], positions[part])


def in_step(stores: Sequence[ActivationStore]) -> list[ActivationStore]:
    """Caches of one text, each with the rows alone that all of them have, measured anew in one
    pass; the same caches where they have the same rows, or hold other text, which whoever reads
    them side by side refuses.

    Args:
        stores: of the same blocks in as many shards.
    """
    first, *others = stores
    if all(store.text == first.text for store in others):
        return list(stores)
    places = [_places_of(store) for store in stores]
    if len({len(own) for own in places}) > 1:
        return list(stores)
    numbers: list[list[Int64[np.ndarray, " rows"]]] = [[] for _ in stores]
    for of_shard in zip(*places, strict=True):
        keys = [blocks.astype(np.int64) << 32 | positions for _, blocks, positions in of_shard]
        common = reduce(np.intersect1d, keys)
        chosen = [np.searchsorted(own, common) for own in keys]
        tokens = [own[0][rows] for own, rows in zip(of_shard, chosen, strict=True)]
        if not len(common) or any(not np.array_equal(tokens[0], own) for own in tokens):
            return list(stores)
        for own, rows in zip(numbers, chosen, strict=True):
            own.append(rows)
    return [_part(*each) for each in zip(stores, numbers, places, strict=True)]


def _places_of(store: ActivationStore) -> AllPlaces:
    by_shard: dict[int, list[tuple[Places, Places, Places]]] = {}
    for piece, own in store.with_places():
        by_shard.setdefault(piece.shard, []).append(own)
    joined = (map(np.concatenate, zip(*own, strict=True)) for own in by_shard.values())
    return [(tokens, blocks, positions) for tokens, blocks, positions in joined]


def _part(
    store: ActivationStore, numbers: list[Int64[np.ndarray, " rows"]], places: AllPlaces
) -> ActivationStore:
    plain = {field.name: getattr(store, field.name) for field in fields(ActivationStore)}
    kept = [
        (tokens[rows], blocks[rows], positions[rows])
        for (tokens, blocks, positions), rows in zip(places, numbers, strict=True)
    ]
    part = partial(StoreInStep, whole=store, numbers=numbers, places=kept)
    unmeasured = part(**plain)
    measured = merge(statistics(unmeasured.read(piece)) for piece in unmeasured.pieces())
    of_rows = {
        "rows": measured.rows,
        "mean": torch.from_numpy(measured.mean),
        "variance": measured.variance,
        "mean_norm": measured.mean_norm,
    }
    return part(**{**plain, **of_rows})


def _digest(*arrays: np.ndarray) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return whole.hexdigest()
