"""Forward and backward passes that touch only the active latents; the encoder's product is the one
dense step.

Of `rows × d_sae` pre-activations a few in a hundred matter. They are found while the
pre-activations of a few rows lie in the cache, and every other product of a training step, forward
or backward, is a weighted sum of some rows of a matrix: an embedding bag.
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
from saeflow.saes import gpu_kernels

ROWS_AT_ONCE = 256  # their pre-activations stay in the cache between the product and the choice
_ROUNDED_AT_ONCE = 128  # rows, so that they stay in the cache
_HALF_STEP = 2.0**-8  # how much a number may change when it is rounded to bfloat16, relative to it
_DEVIATIONS = 8.0  # standard deviations of a product in bfloat16 that are allowed for
_NARROW_FROM = 1024  # rows for which the encoder is worth rounding
# of rows: in short ones rounding errors do not even out, and too much must be looked at again
_NARROW_FROM_WIDTH = 256
_PACKED_FROM = 4096  # and worth packing


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

    def sums(self, matrix: Float[Tensor, "rows width"], weights: Tensor) -> WeightedSums:
        """Of rows of a matrix by the latents that have entries in them."""
        by_latent = self.by_latent
        weights = weights.detach()[by_latent.order]
        return WeightedSums(matrix, weights, by_latent.rows, by_latent.offsets)

    def keep(self, mask: Bool[Tensor, " entries"]) -> Entries:
        """Only the entries where ``mask`` is true."""
        kept = mask.nonzero()[:, 0]
        rows = self.rows[kept]
        offsets = _offsets(rows, len(self.offsets) - 1)
        return Entries(self.values[kept], rows, self.columns[kept], offsets, self.d_sae)


class WeightedSums(NamedTuple):
    """A gradient, or a part of one, that has not been added up: for every latent a weighted sum of
    some rows of a matrix.

    Attributes:
        matrix: whose rows.
        weights: of every entry, latent after latent.
        rows: of every entry.
        offsets: latent ``j`` has the entries ``offsets[j]:offsets[j + 1]``.
    """

    matrix: Float[Tensor, "rows width"]
    weights: Float[Tensor, " entries"]
    rows: Int64[Tensor, " entries"]
    offsets: Int64[Tensor, " d_sae+1"]

    def of(self, latents: slice) -> Float[Tensor, "latents width"]:
        """The sums of some latents."""
        offsets = self.offsets[latents.start : latents.stop + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        return _bags(self.matrix, self.rows[entries], offsets - offsets[0], self.weights[entries])


class SomeRows(NamedTuple):
    """A part of a gradient that is zero but for some latents.

    Attributes:
        latents: which, each at most once.
        values: their rows.
    """

    latents: Int64[Tensor, " some"]
    values: Float[Tensor, "some width"]

    def of(self, latents: slice) -> Float[Tensor, "latents width"]:
        """The rows of some latents."""
        rows = self.values.new_zeros(latents.stop - latents.start, self.values.shape[1])
        within = (self.latents >= latents.start) & (self.latents < latents.stop)
        rows[self.latents[within] - latents.start] = self.values[within]
        return rows


# Where the gradient of a matrix waits, in parts, instead of being added up and written as a whole.
Unsummed = list[WeightedSums | SomeRows]


def _offsets(ascending: Int64[Tensor, " entries"], bins: int) -> Int64[Tensor, " bins+1"]:
    """Where the entries of every row, or of every latent, begin and end."""
    return pad(torch.bincount(ascending, minlength=bins).cumsum(0), (1, 0))


Choose = Callable[[Float[Tensor, "rows d_sae"]], Choice]


def largest_per_row(pre: Float[Tensor, "rows d_sae"], k: int) -> Choice:
    """The ``k`` largest of every row."""
    rows = torch.arange(len(pre), device=pre.device).repeat_interleave(k)
    size = 1
    if pre.device.type == "cpu":
        # Two searches, over n / size groups and k · size members, are shortest at √(n / k).
        size = gcd(1 << round(log2(pre.shape[1] / k) / 2), pre.shape[1])
    if size == 1:
        return Choice(rows, pre.topk(k, dim=-1, sorted=False).indices.flatten())
    if pre.dtype == torch.bfloat16:
        # Compiles, and is loaded where it is wanted.
        from saeflow.saes.selection import largest_positive

        largest = largest_positive(pre, k, pre.shape[1] // size)
        if largest is not None:
            return Choice(rows, largest.flatten())
    # They lie in the k groups with the largest maxima: two small searches take half as long as one
    # large one.
    groups = pre.view(len(pre), size, pre.shape[1] // size)  # not -1, which no rows leave open
    best = groups.amax(dim=1).topk(k, dim=-1, sorted=False).indices
    members = (best[:, None] + torch.arange(size)[:, None] * groups.shape[2]).flatten(1)
    largest = pre.gather(1, members).topk(k, dim=-1, sorted=False).indices
    return Choice(rows, members.gather(1, largest).flatten())


@dataclass(frozen=True)
class Largest:
    """A choice of the ``k`` largest of every row, which `scan` can make without the whole product
    in float32."""

    k: int

    def __call__(self, pre: Float[Tensor, "rows d_sae"]) -> Choice:
        """The largest among exact pre-activations."""
        return largest_per_row(pre, self.k)


def above(pre: Float[Tensor, "rows d_sae"], floor: Tensor | float) -> Choice:
    """All that exceed ``floor``, a number or one number per latent."""
    if pre.device.type == "cpu":
        from saeflow.saes.selection import BLOCK, places_above

        if pre.shape[1] % BLOCK == 0:
            return Choice(*places_above(pre, floor))
    # To look for rows and columns at once takes twice as long.
    places = (pre.float() > floor).flatten().nonzero()[:, 0]
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
        dtype: of the product. A narrow one only chooses: the values of what is chosen are computed
            again, exactly.
    """
    with torch.no_grad():
        if isinstance(choose, Largest) and _worth_narrowing(x, b_enc, choose.k, dtype):
            return _largest(x, encoder, b_enc, choose.k)
        if dtype == torch.float32:
            weight = _ready(encoder, len(x))
            parts = [
                _chosen(linear(part, weight, b_enc), choose)
                for part in torch.split(x, ROWS_AT_ONCE)
            ]
            return _compressed(parts, len(x), len(b_enc))
        weight, bias = _ready(encoder.to(dtype), len(x)), b_enc.to(dtype)
        products = (linear(part, weight, bias) for part in torch.split(x.to(dtype), ROWS_AT_ONCE))
        none = x.new_empty(0)
        choices = [(none, choose(pre)) for pre in products]
        entries = _compressed(choices, len(x), len(b_enc))
        return replace(entries, values=_dots(x, encoder, entries).add_(b_enc[entries.columns]))


def _ready(encoder: Tensor, rows: int) -> Tensor:
    """The encoder as products of so many rows, some at a time, want it."""
    return packed(encoder, ROWS_AT_ONCE) if rows >= _PACKED_FROM else encoder


def _worth_narrowing(x: Tensor, b_enc: Tensor, k: int, dtype: torch.dtype) -> bool:
    """Whether the product is better made in bfloat16 first: where the processor has instructions
    for it."""
    large = x.shape[0] >= _NARROW_FROM and x.shape[1] >= _NARROW_FROM_WIDTH and len(b_enc) >= 4 * k
    return (
        large
        and dtype == torch.float32
        and x.device.type == "cpu"
        and torch.cpu._is_avx512_bf16_supported()
    )


def _largest(
    x: Float[Tensor, "rows d_model"],
    encoder: Float[Tensor, "d_sae d_model"],
    b_enc: Float[Tensor, " d_sae"],
    k: int,
) -> Entries:
    """The ``k`` largest of every row, as of float32, for little more than a product in bfloat16.

    With x = x̂ + δx and w = ŵ + δw, of which x̂ and ŵ are rounded to bfloat16, a product is off by
    δx w + x̂ δw. The lengths of all four are known. Rounding errors have either sign, so the sum's
    deviation is its largest possible size over √d_model, and `_DEVIATIONS` of these are allowed
    for. Whatever may then be among the largest is computed again in float32, which also tells how
    far the products were off: a row with more candidates than were kept, or with an error beyond
    half of what is allowed for, is multiplied in float32 as a whole.
    """
    narrow = _rounded(encoder)
    weight, bias = _ready(narrow.values, len(x)), b_enc.to(torch.bfloat16)
    longest, farthest, off = narrow.norms.max(), narrow.errors.max(), (b_enc - bias).abs().max()
    kept = k + k // 2
    parts = []
    for part in torch.split(x, ROWS_AT_ONCE):
        read = _rounded(part)
        pre = linear(read.values, weight, bias)
        columns = largest_per_row(pre, kept).columns.view(-1, kept)
        values = pre.gather(1, columns).float()
        kth = values.topk(k, dim=1).values[:, -1:]
        error = (
            torch.hypot(read.errors * longest, read.norms * farthest)[:, None] * x.shape[1] ** -0.5
        )
        slack = _DEVIATIONS * error + off
        parts.append((columns, values, slack, values >= kth - 2 * (slack + _HALF_STEP * kth.abs())))
    columns, values, slack, may = (torch.cat(each) for each in zip(*parts, strict=True))
    places = may.flatten().nonzero()[:, 0]
    offsets = pad(may.sum(dim=1).cumsum(0), (1, 0))
    row = places.div(kept, rounding_mode="floor")
    candidates = Entries(values.new_empty(0), row, columns.flatten()[places], offsets, len(b_enc))
    exact = values.new_full(values.shape, -torch.inf)
    exact.view(-1)[places] = _dots(x, encoder, candidates) + b_enc[candidates.columns]
    apart = torch.where(may, (exact - values).abs() - _HALF_STEP * values.abs(), 0.0)
    unclear = (may.all(dim=1) | (2 * apart > slack).any(dim=1)).nonzero()[:, 0]
    best = exact.topk(k, dim=1, sorted=False)
    values, columns = best.values, columns.gather(1, best.indices)
    for rows in torch.split(unclear, ROWS_AT_ONCE) if len(unclear) else ():
        pre = linear(x[rows], encoder, b_enc)
        columns[rows] = largest_per_row(pre, k).columns.view(-1, k)
        values[rows] = pre.gather(1, columns[rows])
    starts = torch.arange(len(x) + 1) * k
    return Entries(
        values.flatten(),
        torch.arange(len(x)).repeat_interleave(k),
        columns.flatten(),
        starts,
        len(b_enc),
    )


class _Rounded(NamedTuple):
    """Rows in bfloat16, their lengths, and the lengths of what rounding took from them."""

    values: Tensor
    norms: Tensor
    errors: Tensor


def _rounded(rows: Tensor) -> _Rounded:
    rounded = _Rounded(
        rows.new_empty(rows.shape, dtype=torch.bfloat16), *rows.new_empty(2, len(rows))
    )
    for start in range(0, len(rows), _ROUNDED_AT_ONCE):
        part = slice(start, start + _ROUNDED_AT_ONCE)
        rounded.values[part] = rows[part]
        rounded.norms[part] = torch.linalg.vector_norm(rows[part], dim=1)
        rounded.errors[part] = torch.linalg.vector_norm(rows[part] - rounded.values[part], dim=1)
    return rounded


def scan_dense(pre: Float[Tensor, "rows d_sae"], choose: Choose) -> Entries:
    """The same for pre-activations that are at hand."""
    return _compressed([_chosen(pre.detach(), choose)], len(pre), pre.shape[1])


def _chosen(pre: Tensor, choose: Choose) -> tuple[Tensor, Choice]:
    choice = choose(pre)
    return pre[choice.rows, choice.columns], choice


def _compressed(parts: list[tuple[Tensor, Choice]], n_rows: int, d_sae: int) -> Entries:
    rows = torch.cat(
        [choice.rows + number * ROWS_AT_ONCE for number, (_, choice) in enumerate(parts)]
    )
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
    def forward(
        ctx: Any,
        encoder: Tensor,
        b_enc: Tensor,
        x: Tensor,
        entries: Entries,
        unsummed: Unsummed | None,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.entries, ctx.unsummed = entries, unsummed
        return entries.values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        (x,), entries = ctx.saved_tensors, ctx.entries
        bias = torch.bincount(entries.columns, gradient, entries.d_sae).to(x)
        of_encoder = (
            _gradient(entries.sums(x, gradient), ctx.unsummed) if ctx.needs_input_grad[0] else None
        )
        return of_encoder, bias, None, None, None


class _Decoded(torch.autograd.Function):
    """Weighted sums of decoder rows, with their gradients to weights and rows."""

    @staticmethod
    def forward(
        ctx: Any, latents: Tensor, decoder: Tensor, entries: Entries, unsummed: Unsummed | None
    ) -> Tensor:
        ctx.save_for_backward(latents, decoder)
        ctx.entries, ctx.unsummed = entries, unsummed
        return _bags(decoder, entries.columns, entries.offsets, latents)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (latents, decoder), entries = ctx.saved_tensors, ctx.entries
        gradient = gradient.contiguous()
        of_latents = _dots(gradient, decoder, entries) if ctx.needs_input_grad[0] else None
        of_decoder = (
            _gradient(entries.sums(gradient, latents), ctx.unsummed)
            if ctx.needs_input_grad[1]
            else None
        )
        return of_latents, of_decoder, None, None


class _OfEntries(torch.autograd.Function):
    """A number per latent for every entry, whose gradient is added up in the order of the entries:
    torch adds up many by several threads in whatever order these come to be."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, entries: Entries) -> Tensor:
        ctx.entries = entries
        return value[entries.columns]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        entries = ctx.entries
        return torch.bincount(entries.columns, gradient, entries.d_sae).to(gradient), None


class _Rows(torch.autograd.Function):
    """Some rows of a matrix, whose gradient waits with others."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, latents: Tensor, unsummed: Unsummed) -> Tensor:
        ctx.latents, ctx.unsummed = latents, unsummed
        return matrix[latents]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        ctx.unsummed.append(SomeRows(ctx.latents, gradient))
        return None, None, None


def _gradient(sums: WeightedSums, unsummed: Unsummed | None) -> Tensor | None:
    """The gradient for autograd, or none, because it waits with others to be added up."""
    if unsummed is None:
        return sums.of(slice(0, len(sums.offsets) - 1))
    unsummed.append(sums)
    return None


def encoded(
    x: Float[Tensor, "rows d_model"],
    encoder: Float[Tensor, "d_sae d_model"],
    b_enc: Float[Tensor, " d_sae"],
    entries: Entries,
    unsummed: Unsummed | None = None,
) -> Float[Tensor, " entries"]:
    """The entries' values as a function of the encoder, for autograd; ``x`` gets no gradient."""
    return _Encoded.apply(encoder, b_enc, x, entries, unsummed)  # type: ignore[no-untyped-call]


def decoded(
    latents: Float[Tensor, " entries"],
    entries: Entries,
    decoder: Float[Tensor, "d_sae d_model"],
    unsummed: Unsummed | None = None,
) -> Float[Tensor, "rows d_model"]:
    """The sum of decoder rows, weighted by the latents; differentiable in both."""
    return _Decoded.apply(latents, decoder, entries, unsummed)  # type: ignore[no-untyped-call]


def of_entries(value: Float[Tensor, " d_sae"], entries: Entries) -> Float[Tensor, " entries"]:
    """The number of every entry's latent, differentiable."""
    return _OfEntries.apply(value, entries)  # type: ignore[no-untyped-call]


def some_rows(
    matrix: Float[Tensor, "d_sae d_model"],
    latents: Int64[Tensor, " some"],
    unsummed: Unsummed | None = None,
) -> Float[Tensor, "some d_model"]:
    """The rows of some latents, each at most once; for autograd."""
    if unsummed is None:
        return matrix[latents]
    return _Rows.apply(matrix, latents, unsummed)  # type: ignore[no-untyped-call]


def _bags(matrix: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    if gpu_kernels.fits(matrix, weights):
        return gpu_kernels.bags(matrix, indices, offsets, weights)
    return embedding_bag(
        indices, matrix, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _dots(left: Tensor, right: Tensor, entries: Entries) -> Tensor:
    """For every entry the product of its row of ``left`` with its latent's row of ``right``."""
    if gpu_kernels.fits(left, right):
        return gpu_kernels.dots(left, right, entries.rows, entries.columns)
    # Latent after latent, so that every row of the larger matrix comes from memory once.
    by_latent = entries.by_latent
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left,
        right.detach(),
        entries.columns[by_latent.order],
        by_latent.offsets[:-1],
        by_latent.rows,
        0,
    )
    return torch.empty_like(products).index_copy_(0, by_latent.order, products)
