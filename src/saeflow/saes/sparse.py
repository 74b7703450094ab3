"""Forward and backward passes that touch only the active latents; the encoder's product is the one dense step.

Of `rows × d_sae` pre-activations a few in a hundred matter. They are found while the pre-activations of a few rows
lie in the cache, and every other product of a training step, forward or backward, is a weighted sum of some rows of
a matrix: an embedding bag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd, log2
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from saeflow.products import linear, packed

ROWS_AT_ONCE = 256  # their pre-activations stay in the cache between the product and the choice
_PACKED_FROM = 1024  # rows for which the encoder is worth packing


class Choice(NamedTuple):
    """Which latents of some rows matter, row after row.

    Attributes:
        rows: the row of every entry, ascending.
        columns: its latent.
    """

    rows: Int64[Tensor, " entries"]
    columns: Int64[Tensor, " entries"]


class ByLatent(NamedTuple):
    """The same entries, latent after latent.

    Attributes:
        order: places of the entries in the order by rows.
        rows: the row of every entry.
        offsets: latent ``j`` is ``offsets[j]:offsets[j + 1]``.
    """

    order: Int64[Tensor, " entries"]
    rows: Int64[Tensor, " entries"]
    offsets: Int64[Tensor, " d_sae+1"]


@dataclass(frozen=True, eq=False)
class Entries:
    """A sparse matrix of pre-activations, compressed by rows.

    Attributes:
        values: the pre-activations.
        rows: the row of every entry, ascending.
        columns: its latent.
        offsets: row ``i`` is ``offsets[i]:offsets[i + 1]``.
        d_sae: number of latents.
    """

    values: Float[Tensor, " entries"]
    rows: Int64[Tensor, " entries"]
    columns: Int64[Tensor, " entries"]
    offsets: Int64[Tensor, " rows+1"]
    d_sae: int

    @cached_property
    def by_latent(self) -> ByLatent:
        """The order that the gradients of decoder and encoder are added up in."""
        columns, order = self.columns.sort(stable=True)
        return ByLatent(order, self.rows[order], _offsets(columns, self.d_sae))

    def keep(self, mask: Bool[Tensor, " entries"]) -> Entries:
        """Only the entries where ``mask`` is true."""
        kept = mask.nonzero()[:, 0]
        rows = self.rows[kept]
        offsets = _offsets(rows, len(self.offsets) - 1)
        return Entries(self.values[kept], rows, self.columns[kept], offsets, self.d_sae)


def _offsets(ascending: Int64[Tensor, " entries"], bins: int) -> Int64[Tensor, " bins+1"]:
    """Where the entries of every row, or of every latent, begin and end."""
    return pad(torch.bincount(ascending, minlength=bins).cumsum(0), (1, 0))


Choose = Callable[[Float[Tensor, "rows d_sae"]], Choice]


def largest_per_row(pre: Float[Tensor, "rows d_sae"], k: int) -> Choice:
    """The ``k`` largest of every row."""
    rows = torch.arange(len(pre), device=pre.device).repeat_interleave(k)
    size = gcd(1 << int(log2(pre.shape[1] / k) / 2), pre.shape[1]) if pre.device.type == "cpu" else 1
    if size == 1:
        return Choice(rows, pre.topk(k, dim=-1, sorted=False).indices.flatten())
    # They lie in the k groups with the largest maxima: two small searches take half as long as one large one.
    groups = pre.view(len(pre), size, -1)
    best = groups.amax(dim=1).topk(k, dim=-1, sorted=False).indices
    members = (best[:, None] + torch.arange(size)[:, None] * groups.shape[2]).flatten(1)
    largest = pre.gather(1, members).topk(k, dim=-1, sorted=False).indices
    return Choice(rows, members.gather(1, largest).flatten())


def above(pre: Float[Tensor, "rows d_sae"], floor: Tensor | float) -> Choice:
    """All that exceed ``floor``, a number or one number per latent."""
    places = (pre > floor).flatten().nonzero()[:, 0]  # of rows and columns at once takes twice as long
    rows = places.div(pre.shape[1], rounding_mode="floor")
    return Choice(rows, places - rows * pre.shape[1])


def scan(
    x: Float[Tensor, "rows d_model"],
    encoder: Float[Tensor, "d_sae d_model"],
    b_enc: Float[Tensor, " d_sae"],
    choose: Choose,
    dtype: torch.dtype = torch.float32,
) -> Entries:
    """Compute all pre-activations ``x encoderᵀ + b_enc`` and keep the chosen ones; no gradient.

    Args:
        choose: is given the pre-activations of up to `ROWS_AT_ONCE` rows.
        dtype: of the product. A narrow one only chooses: the values of what is chosen are computed again, exactly.
    """
    with torch.no_grad():
        if dtype == torch.float32:
            weight = packed(encoder, ROWS_AT_ONCE) if len(x) >= _PACKED_FROM else encoder
            parts = [_chosen(linear(part, weight, b_enc), choose) for part in torch.split(x, ROWS_AT_ONCE)]
            return _compressed(parts, len(x), len(b_enc))
        narrow = packed(encoder.to(dtype), ROWS_AT_ONCE)
        products = (linear(part, narrow) for part in torch.split(x.to(dtype), ROWS_AT_ONCE))
        found = _compressed([_chosen(product.float().add_(b_enc), choose) for product in products], len(x), len(b_enc))
        return replace(found, values=_dots(x, encoder, found).add_(b_enc[found.columns]))


def scan_dense(pre: Float[Tensor, "rows d_sae"], choose: Choose) -> Entries:
    """The same for pre-activations that are at hand."""
    return _compressed([_chosen(pre.detach(), choose)], len(pre), pre.shape[1])


def _chosen(pre: Tensor, choose: Choose) -> tuple[Tensor, Choice]:
    choice = choose(pre)
    return pre[choice.rows, choice.columns], choice


def _compressed(parts: list[tuple[Tensor, Choice]], n_rows: int, d_sae: int) -> Entries:
    rows = torch.cat([choice.rows + number * ROWS_AT_ONCE for number, (_, choice) in enumerate(parts)])
    return Entries(
        values=torch.cat([values for values, _ in parts]),
        rows=rows,
        columns=torch.cat([choice.columns for _, choice in parts]),
        offsets=_offsets(rows, n_rows),
        d_sae=d_sae,
    )


class _Encoded(torch.autograd.Function):
    """Pre-activations that `scan` has computed, with their gradient to the encoder."""

    @staticmethod
    def forward(ctx: Any, encoder: Tensor, b_enc: Tensor, x: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(x)
        ctx.entries = entries
        return entries.values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (x,), entries = ctx.saved_tensors, ctx.entries
        bias = torch.bincount(entries.columns, gradient, entries.d_sae).to(x)
        return _sums_by_latent(x, gradient, entries), bias, None, None


class _Decoded(torch.autograd.Function):
    """Weighted sums of decoder rows, with their gradients to weights and rows."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, decoder: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(latents, decoder)
        ctx.entries = entries
        return _bags(decoder, entries.columns, entries.offsets, latents)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (latents, decoder), entries = ctx.saved_tensors, ctx.entries
        gradient = gradient.contiguous()
        of_latents = _dots(gradient, decoder, entries) if ctx.needs_input_grad[0] else None
        return of_latents, _sums_by_latent(gradient, latents, entries) if ctx.needs_input_grad[1] else None, None


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
    return _Decoded.apply(latents, decoder, entries)  # type: ignore[no-untyped-call]


def _bags(matrix: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(indices, matrix, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def _sums_by_latent(matrix: Tensor, weights: Tensor, entries: Entries) -> Tensor:
    """For every latent the sum of the rows of ``matrix`` that it has entries in, weighted."""
    by_latent = entries.by_latent
    return _bags(matrix, by_latent.rows, by_latent.offsets, weights.detach()[by_latent.order])


def _dots(left: Tensor, right: Tensor, entries: Entries) -> Tensor:
    """For every entry the product of its row of ``left`` with its latent's row of ``right``."""
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left, right.detach(), entries.columns, entries.offsets[:-1], entries.rows, 0
    )
