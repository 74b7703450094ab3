"""A cache of activations less some blocks of its text, read as any cache is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int

from saeflow.activations.formats import Raw
from saeflow.activations.io import ActivationStore, Piece, Places
from saeflow.activations.store import merge, statistics
from saeflow.errors import SaeflowError


@dataclass(frozen=True)
class PartOfStore(ActivationStore):
    """The rows of a cache that are not of some blocks, with statistics of their own.

    Attributes:
        whole: the cache.
        kept: by shard and group of each of its pieces, which of the rows.
    """

    whole: ActivationStore
    kept: Mapping[tuple[int, int], Bool[np.ndarray, " rows"]]

    @property
    def identity(self) -> list[str]:
        """What the part holds: the checksums of the shards, and one of which rows."""
        masks = (np.packbits(self.kept[place]).tobytes() for place in sorted(self.kept))
        return [*self.whole.identity, hashlib.sha256(b"".join(masks)).hexdigest()]

    @property
    def text(self) -> list[str]:
        """As of the whole."""
        return self.whole.text

    def pieces(self) -> list[Piece]:
        """The rows of the part, in pieces that can be read alone; none is empty."""
        counted = (
            piece._replace(rows=int(self.kept[piece.shard, piece.group].sum()))
            for piece in self.whole.pieces()
        )
        return [piece for piece in counted if piece.rows]

    def read_into(self, piece: Piece, out: Raw) -> None:
        """As of the whole; ``out`` has a row for each that is kept."""
        kept = self.kept[piece.shard, piece.group]
        every = np.empty((len(kept), out.shape[1]), np.uint8)
        self.whole.read_into(piece._replace(rows=len(kept)), every)
        np.compress(kept, every, axis=0, out=out)

    def with_places(self) -> Iterator[tuple[Piece, tuple[Places, Places, Places]]]:
        """As of the whole, of the rows that are kept."""
        for piece, (tokens, blocks, positions) in self.whole.with_places():
            kept = self.kept[piece.shard, piece.group]
            if kept.any():
                own = piece._replace(rows=int(kept.sum()))
                yield own, (tokens[kept], blocks[kept], positions[kept])


def without_blocks(store: ActivationStore, left_out: Int[np.ndarray, " blocks"]) -> ActivationStore:
    """The rows of a cache that are not of some blocks, measured anew in one pass.

    Args:
        store: the cache.
        left_out: numbers of blocks.

    Raises:
        SaeflowError: no row is left.
    """
    kept = {
        (piece.shard, piece.group): ~np.isin(blocks, left_out)
        for piece, (_, blocks, _) in store.with_places()
    }
    if not any(rows.any() for rows in kept.values()):
        raise SaeflowError(
            f"{store.directory}: no block of text is left to train on; leave out fewer words "
            "(leave_out)"
        )
    plain = {field.name: getattr(store, field.name) for field in fields(ActivationStore)}
    part = partial(PartOfStore, whole=store, kept=kept)
    unmeasured = part(**plain)
    own = merge(statistics(unmeasured.read(piece)) for piece in unmeasured.pieces())
    measured = {
        "rows": own.rows,
        "mean": torch.from_numpy(own.mean),
        "variance": own.variance,
        "mean_norm": own.mean_norm,
    }
    return part(**{**plain, **measured})
