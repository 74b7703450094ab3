"""Forward and backward passes that touch only the active latents; the encoder's product is the one dense step.

Of `rows × d_sae` pre-activations a few in a hundred matter. They are found while the pre-activations of a few rows
lie in the cache, and every other product of a training step, forward or backward, is a weighted sum of some rows of
a matrix: an embedding bag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

ROWS_AT_ONCE = 256  # their pre-activations stay in the cache between the product and the choice


class Choice(NamedTuple):
    """Which latents of some rows matter, row after row.

    Attributes:
        counts: how many in each row.
        columns: their indices.
    """

    counts: Int64[Tensor, " rows"]
    columns: Int64[Tensor, " entries"]


class Entries(NamedTuple):
    """A sparse matrix of pre-activations, compressed by rows.

    Attributes:
        values: the pre-activations.
        columns: their latents.
        offsets: row ``i`` is ``offsets[i]:offsets[i + 1]``.
    """

    values: Float[Tensor, " entries"]
    columns: Int64[Tensor, " entries"]
    offsets: Int64[Tensor, " rows+1"]

    @property
    def rows(self) -> Int64[Tensor, " entries"]:
        """The row of every entry."""
        return torch.repeat_interleave(self.offsets.diff())

    def keep(self, mask: Bool[Tensor, " entries"]) -> Entries:
        """Only the entries where ``mask`` is true."""
        kept = pad(mask.cumsum(0), (1, 0))[self.offsets]
        return Entries(self.values[mask], self.columns[mask], kept)


Choose = Callable[[Float[Tensor, "rows d_sae"]], Choice]


def largest_per_row(pre: Float[Tensor, "rows d_sae"], k: int) -> Choice:
    """The ``k`` largest of every row."""
    columns = pre.topk(k, dim=-1, sorted=False).indices
    return Choice(torch.full((len(pre),), k, device=pre.device), columns.flatten())


def above(pre: Float[Tensor, "rows d_sae"], floor: Tensor | float) -> Choice:
    """All that exceed ``floor``, a number or one number per latent."""
    mask = pre > floor
    return Choice(mask.sum(dim=1), mask.nonzero()[:, 1])


def scan(
    x: Float[Tensor, "rows d_model"],
    encoder: Float[Tensor, "d_sae d_model"],
    b_enc: Float[Tensor, " d_sae"],
    choose: Choose,
) -> Entries:
    """Compute all pre-activations ``x encoderᵀ + b_enc`` and keep the chosen ones; no gradient.

    Args:
        choose: is given the pre-activations of up to `ROWS_AT_ONCE` rows.
    """
    with torch.no_grad():
        return _compressed(
            [_chosen(torch.addmm(b_enc, part, encoder.T), choose) for part in torch.split(x, ROWS_AT_ONCE)]
        )


def scan_dense(pre: Float[Tensor, "rows d_sae"], choose: Choose) -> Entries:
    """The same for pre-activations that are at hand."""
    return _compressed([_chosen(pre.detach(), choose)])


def _chosen(pre: Tensor, choose: Choose) -> tuple[Tensor, Choice]:
    choice = choose(pre)
    rows = torch.repeat_interleave(choice.counts)
    return pre[rows, choice.columns], choice


def _compressed(parts: list[tuple[Tensor, Choice]]) -> Entries:
    counts = torch.cat([choice.counts for _, choice in parts])
    return Entries(
        values=torch.cat([values for values, _ in parts]),
        columns=torch.cat([choice.columns for _, choice in parts]),
        offsets=pad(counts.cumsum(0), (1, 0)),
    )


class _Encoded(torch.autograd.Function):
    """Pre-activations that `scan` has computed, with their gradient to the encoder."""

    @staticmethod
    def forward(ctx: Any, encoder: Tensor, b_enc: Tensor, x: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(x, entries.columns, entries.rows)
        ctx.d_sae = len(b_enc)
        return entries.values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, columns, rows = ctx.saved_tensors
        columns, order = columns.sort(stable=True)
        gradient = gradient[order]
        offsets = pad(torch.bincount(columns, minlength=ctx.d_sae).cumsum(0), (1, 0))
        return _bags(x, rows[order], offsets, gradient), torch.bincount(columns, gradient, ctx.d_sae).to(x), None, None


def encoded(
    x: Float[Tensor, "rows d_model"],
    encoder: Float[Tensor, "d_sae d_model"],
    b_enc: Float[Tensor, " d_sae"],
    entries: Entries,
) -> Float[Tensor, " entries"]:
    """The entries' values as a function of the encoder, for autograd; ``x`` gets no gradient."""
    return _Encoded.apply(encoder, b_enc, x, entries)  # type: ignore[no-untyped-call]


def decoded(
    latents: Float[Tensor, " entries"],
    entries: Entries,
    decoder: Float[Tensor, "d_sae d_model"],
) -> Float[Tensor, "rows d_model"]:
    """The sum of decoder rows, weighted by the latents; differentiable in both."""
    return _bags(decoder, entries.columns, entries.offsets, latents)


def _bags(matrix: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(indices, matrix, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)
