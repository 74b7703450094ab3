"""What tells one architecture from another: which latents are active, their values, and the loss.

Everything is in the normalised units of training. The functions of values work on dense tensors and
on the entries of a sparse one alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.config.sections import SAETraining
from saeflow.saes.parallel import Share
from saeflow.saes.sparse import Choose, Entries, Largest, above

Scan = Callable[[Choose], Entries]


class Own(NamedTuple):
    """Parameters that some architectures have besides encoder and decoder; a lone zero where one
    has none.

    Attributes:
        threshold: ``jumprelu``: of every latent; ``batchtopk`` and ``matryoshka``: one for all, a
            running mean.
        r_mag: ``gated``: logarithm of the magnitude's scale relative to the gate's.
        b_mag: ``gated``: the magnitude's bias.
        price: what one unit of a latent costs: the sum over sources of its decoder row's norms; 1
            with one source.
    """

    threshold: Float[Tensor, " d_sae"] | Float[Tensor, ""]
    r_mag: Float[Tensor, " d_sae"] | Float[Tensor, ""]
    b_mag: Float[Tensor, " d_sae"] | Float[Tensor, ""]
    price: Float[Tensor, " d_sae"] | Float[Tensor, ""]


class Form(Protocol):
    """The pre-activations of a batch, dense or sparse."""

    @property
    def pre(self) -> Tensor:
        """Those that are at hand."""

    def decode(self, latents: Tensor, decoder: Tensor, part: slice) -> Float[Tensor, "rows d_out"]:
        """Sums of decoder rows, weighted by those latents that are in ``part``."""


class Step(NamedTuple):
    """What the functions of an architecture are told besides pre-activations.

    Attributes:
        own: the architecture's parameters.
        settings: of the SAE.
        share: which latents this process has.
    """

    own: Own
    settings: SAETraining
    share: Share


class Fit(NamedTuple):
    """How well a batch is reconstructed.

    Attributes:
        loss: what is minimised, the penalty aside.
        error: of the whole reconstruction: mean squared error as a share of the variance.
        excess: reconstruction less target, without gradient.
    """

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]
    excess: Float[Tensor, "rows d_out"]


class Architecture(NamedTuple):
    """One entry of the registry.

    Attributes:
        select: finds the entries through which a value or a gradient passes, from a scan of the
            pre-activations.
        activation: pre-activations to latents, element by element, for selected entries.
        penalty: pre-activations to the price of their activity, per row.
        fit: latents, target, decoder and its bias to the reconstruction's loss.
        inference: the architecture it is saved as.
    """

    select: Callable[[Scan, Step], Entries]
    activation: Callable[[Tensor, Step], Tensor]
    penalty: Callable[[Tensor, Step, int], Tensor]
    fit: Callable[[Form, Tensor, Tensor, Tensor, Tensor, Step], Fit]
    inference: str


def relu(pre: Tensor, step: Step) -> Tensor:
    """Positive pre-activations."""
    return pre.relu()


def jumprelu(pre: Tensor, step: Step) -> Tensor:
    """``pre`` where it exceeds the threshold θ, with ∂/∂θ = -θ/ε · 1[|pre - θ| < ε/2].

    Source: Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 11 (rectangle kernel).
    """
    threshold = step.own.threshold
    fixed = threshold.detach()
    active, window = _step_and_window(pre, fixed, step.settings.bandwidth)
    return pre * active - fixed * window * (threshold - fixed)


def gated(pre: Tensor, step: Step) -> Tensor:
    """``relu(exp(r_mag) pre + b_mag)`` where the gate, ``pre > 0``, is open; the gate itself passes
    no gradient.

    The gate's bias is part of ``pre`` and so of the magnitude, whose own bias makes up for it.

    Source: Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 6 and 7.
    """
    return (step.own.r_mag.exp() * pre + step.own.b_mag).relu() * (pre.detach() > 0)


def no_penalty(pre: Tensor, step: Step, rows: int) -> Tensor:
    """The number of active latents is given, so activity costs nothing."""
    return pre.new_zeros(())


def l1(pre: Tensor, step: Step, rows: int) -> Tensor:
    """Sum of positive pre-activations times the norms of their decoder rows.

    Source: Bricken et al. 2023, "Towards Monosemanticity"; over sources, Lindsey et al. 2024,
        "Sparse Crosscoders".
    """
    return step.settings.coefficient * step.share.total((pre.relu() * step.own.price).sum()) / rows


def l0(pre: Tensor, step: Step, rows: int) -> Tensor:
    """Number of active latents, or its squared relative miss of a target, with ∂L0/∂θ = -1/ε ·
    1[|pre - θ| < ε/2].

    Source: Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 12 and, for the target, appendix G.
    """
    settings, threshold = step.settings, step.own.threshold
    active, window = _step_and_window(pre, threshold.detach(), settings.bandwidth)
    count = step.share.total((active - window * (threshold - threshold.detach())).sum()) / rows
    if settings.target_l0 is None:
        return settings.coefficient * count
    return settings.coefficient * (count / settings.target_l0 - 1).square()


def _step_and_window(pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    distance = pre.detach() - threshold
    return (distance > 0).to(pre.dtype), (distance.abs() < bandwidth / 2).to(pre.dtype) / bandwidth


def whole(
    form: Form, latents: Tensor, target: Tensor, decoder: Tensor, b_dec: Tensor, step: Step
) -> Fit:
    """All latents together reconstruct the target."""
    decoded = step.share.total(form.decode(latents, decoder, slice(None)))
    excess = decoded.sub(target).add_(b_dec)
    error = _mean_square(excess)
    return Fit(error, error, excess.detach())


def whole_and_gate(
    form: Form, latents: Tensor, target: Tensor, decoder: Tensor, b_dec: Tensor, step: Step
) -> Fit:
    """The gate's pre-activations reconstruct the target, too, by a decoder that does not follow
    them.

    Source: Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 8.
    """
    fit = whole(form, latents, target, decoder, b_dec, step)
    gate = whole(form, form.pre.relu(), target, decoder.detach(), b_dec.detach(), step)
    return fit._replace(loss=fit.loss + gate.loss)


def nested(
    form: Form, latents: Tensor, target: Tensor, decoder: Tensor, b_dec: Tensor, step: Step
) -> Fit:
    """Every prefix of the latents reconstructs the target; the loss is the mean over prefixes.

    Source: Bussmann et al. 2025, arXiv 2503.17547, eq. 4.
    """
    d_sae, mine = step.settings.d_sae, step.share.part(step.settings.d_sae)
    bounds = [
        0,
        *sorted({max(1, round(share * d_sae)) for share in step.settings.prefixes} | {d_sae}),
    ]
    excess, errors = b_dec - target, []
    for first, last in pairwise(bounds):
        part = slice(max(0, first - mine.start), max(0, last - mine.start))
        excess = excess + step.share.total(form.decode(latents, decoder, part))
        errors.append(_mean_square(excess))
    return Fit(torch.stack(errors).mean(), errors[-1], excess.detach())


class _MeanSquare(torch.autograd.Function):
    """The mean of squares and its gradient, in one pass over the numbers each."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.linalg.vector_norm(values).square() / values.numel()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return values * (2 / values.numel() * gradient)


def _mean_square(values: Tensor) -> Tensor:
    return _MeanSquare.apply(values)  # type: ignore[no-untyped-call]


def positive(scan: Scan, step: Step) -> Entries:
    """All positive pre-activations."""
    return scan(partial(above, floor=0.0))


def row_top_k(scan: Scan, step: Step) -> Entries:
    """The k largest of every row (Gao et al. 2024, arXiv 2406.04093)."""
    k, share = step.settings.k, step.share
    here = min(k, step.settings.d_sae // share.world)
    entries = scan(Largest(here))
    if share.world == 1:
        return entries
    smallest = share.kth_largest(entries.values.view(-1, here), k)
    return entries.keep(entries.values >= smallest[:, 0][entries.rows])


_CANDIDATES_ABOVE = (0.8, 0.4, 0.0)  # of the running threshold


def batch_top_k(scan: Scan, step: Step) -> Entries:
    """The k × rows of the batch whose latents are worth most, as far as positive.

    A latent is worth its value times its price. The running threshold, somewhat lowered, leaves out
    nearly all candidates beforehand; should it leave out too many, it is lowered further.

    Source: Bussmann et al. 2024, arXiv 2412.06410; over sources, Minder, Dumas et al. 2025, arXiv
        2504.02922.
    """
    price, threshold, share = step.own.price.detach(), step.own.threshold, step.share
    for lowered in _CANDIDATES_ABOVE if threshold > 0 else (0.0,):
        entries = scan(partial(above, floor=lowered * threshold / price))
        wanted, found = (
            step.settings.k * (len(entries.offsets) - 1),
            share.count(len(entries.values)),
        )
        if found >= wanted:
            break
    if found <= wanted:
        return entries
    worth = entries.values * (price[entries.columns] if price.ndim else price)
    return entries.keep(worth >= share.kth_largest(worth, wanted))


def near_threshold(scan: Scan, step: Step) -> Entries:
    """All above the lower edge of the kernel, active or not: the others pass no gradient to the
    threshold."""
    return scan(partial(above, floor=step.own.threshold.detach() - step.settings.bandwidth / 2))


ARCHITECTURES: dict[str, Architecture] = {
    "standard": Architecture(positive, relu, l1, whole, inference="standard"),
    "gated": Architecture(positive, gated, l1, whole_and_gate, inference="gated"),
    "jumprelu": Architecture(near_threshold, jumprelu, l0, whole, inference="jumprelu"),
    "topk": Architecture(row_top_k, relu, no_penalty, whole, inference="topk"),
    "batchtopk": Architecture(batch_top_k, relu, no_penalty, whole, inference="jumprelu"),
    "matryoshka": Architecture(batch_top_k, relu, no_penalty, nested, inference="jumprelu"),
}
