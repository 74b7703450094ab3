"""Latents of many rows, of which few are not zero: held by latent, never as a dense matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int32, Int64
from scipy import sparse
from torch import Tensor

from saeflow.errors import SaeflowError

_SIGN = np.uint32(0x80000000)


@dataclass(frozen=True, eq=False)
class SparseLatents:
    """Latents of rows, latent after latent; within a latent by rising value. 8 bytes per value
    that is not zero.

    Attributes:
        values: those that are not zero.
        rows: the row of each.
        offsets: latent ``j`` is ``offsets[j]:offsets[j + 1]``.
        n: number of rows.
    """

    values: Float32[np.ndarray, " entries"]
    rows: Int32[np.ndarray, " entries"]
    offsets: Int64[np.ndarray, " d_sae_1"]
    n: int

    @classmethod
    def of(cls, batches: Iterable[Float[Tensor, "rows d_sae"]]) -> SparseLatents:
        """From dense batches, each of which is forgotten before the next is read.

        Raises:
            SaeflowError: a latent is not a number somewhere.
        """
        rows, latents, values, n, d_sae = [], [], [], 0, 0
        for batch in batches:
            d_sae = batch.shape[1]
            row, latent = batch.nonzero(as_tuple=True)
            values.append(batch[row, latent].float().cpu().numpy())
            rows.append((row + n).to(torch.int32).cpu().numpy())
            latents.append(latent.to(torch.int32).cpu().numpy())
            n += len(batch)
        if not n:
            return cls(np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(1, np.int64), 0)
        every = np.concatenate(values)
        if (broken := np.isnan(every)).any():
            raise SaeflowError(
                f"in {len(np.unique(np.concatenate(rows)[broken]))} of {n} rows latents are not "
                "numbers (NaN); check the weights of the model and of the SAE"
            )
        return cls._sorted(np.concatenate(rows), np.concatenate(latents), every, n, d_sae)

    @classmethod
    def _sorted(
        cls,
        rows: Int32[np.ndarray, " entries"],
        latents: Int32[np.ndarray, " entries"],
        values: Float32[np.ndarray, " entries"],
        n: int,
        d_sae: int,
    ) -> SparseLatents:
        # A latent and the bits of a float, turned so that they sort as the float does, are one
        # integer.
        bits = values.view(np.uint32).copy()
        bits ^= (bits.view(np.int32) >> 31).view(np.uint32) | _SIGN
        order = np.argsort((latents.astype(np.uint64) << np.uint64(32)) | bits, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(latents, minlength=d_sae))]).astype(
            np.int64
        )
        return cls(values[order], rows[order], offsets, n)

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return len(self.offsets) - 1

    @property
    def active(self) -> Int64[np.ndarray, " d_sae"]:
        """In how many rows each latent is not zero."""
        return np.diff(self.offsets)

    @cached_property
    def latents(self) -> Int32[np.ndarray, " entries"]:
        """The latent of every entry."""
        return np.repeat(np.arange(self.d_sae, dtype=np.int32), self.active)

    def of_latent(
        self, latent: int
    ) -> tuple[Int32[np.ndarray, " entries"], Float32[np.ndarray, " entries"]]:
        """The rows in which a latent is not zero, and its values there."""
        part = slice(self.offsets[latent], self.offsets[latent + 1])
        return self.rows[part], self.values[part]

    def column(self, latent: int) -> Float32[np.ndarray, " n"]:
        """A latent's value in every row."""
        dense = np.zeros(self.n, np.float32)
        rows, values = self.of_latent(latent)
        dense[rows] = values
        return dense

    def part(self, kept: Int64[np.ndarray, " m"]) -> SparseLatents:
        """The latents of some rows, which are counted anew, in the order given."""
        place = np.full(self.n, -1, np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        rows = place[self.rows]
        mask = rows >= 0
        return self._sorted(
            rows[mask], self.latents[mask], self.values[mask], len(kept), self.d_sae
        )

    @cached_property
    def ranks(self) -> Ranks:
        """Where the values of each latent stand among all its values, zeros included."""
        return Ranks.of(self)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Mid-ranks of a latent's values among those of all rows; its zeros are one tie.

    Attributes:
        zero: the mid-rank of a zero, per latent.
        above_zero: of every entry, its mid-rank less that of a zero.
        ties: sum of t³ - t over runs of t equal values, per latent.
    """

    zero: Float64[np.ndarray, " d_sae"]
    above_zero: Float64[np.ndarray, " entries"]
    ties: Float64[np.ndarray, " d_sae"]

    @classmethod
    def of(cls, latents: SparseLatents) -> Ranks:
        """Rank all latents at once; their entries are sorted already."""
        values, owner, offsets = latents.values, latents.latents, latents.offsets
        negative = np.bincount(owner[values < 0], minlength=latents.d_sae)
        zeros = latents.n - latents.active
        zero = negative + (zeros + 1) / 2
        place = np.arange(len(values)) - offsets[:-1][owner] + 1.0
        new = np.ones(len(values), bool)
        new[1:] = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])
        start = np.flatnonzero(new)
        run = np.diff(np.append(start, len(values)))
        middle = np.repeat(place[start] + (run - 1) / 2, run)
        rank = middle + np.where(values > 0, zeros[owner], 0)
        cubes = np.bincount(
            owner[start], run.astype(np.float64) ** 3 - run, minlength=latents.d_sae
        )
        return cls(zero, rank - zero[owner], cubes + zeros.astype(np.float64) ** 3 - zeros)

    def column(self, latents: SparseLatents, latent: int) -> Float64[np.ndarray, " n"]:
        """The mid-rank of a latent's value in every row."""
        part = slice(latents.offsets[latent], latents.offsets[latent + 1])
        ranks = np.full(latents.n, self.zero[latent])
        ranks[latents.rows[part]] += self.above_zero[part]
        return ranks

    def matrix(self, latents: SparseLatents, chunk: slice) -> sparse.csr_array:
        """`above_zero` as a matrix ``[latents, n]`` of some latents."""
        offsets = latents.offsets[chunk.start : chunk.stop + 1]
        part = slice(offsets[0], offsets[-1])
        shape = (len(offsets) - 1, latents.n)
        return sparse.csr_array(
            (self.above_zero[part], latents.rows[part], offsets - offsets[0]), shape=shape
        )
