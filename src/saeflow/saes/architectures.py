"""What tells one architecture from another: which latents are active, their values, and the price of activity.

Everything is in the normalised units of training. A threshold has one number per latent (``jumprelu``) or one for all
(``batchtopk``); the functions of values work on dense tensors and on the entries of a sparse one alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.config.sections import SAETraining
from saeflow.saes.sparse import Choose, Entries, above, largest_per_row

Scan = Callable[[Choose], Entries]


class Architecture(NamedTuple):
    """One entry of the registry.

    Attributes:
        select: finds the entries through which a value or a gradient passes, from a scan of the pre-activations.
        activation: pre-activations and threshold to latents, element by element, for selected entries.
        penalty: pre-activations and threshold to the price of their activity, summed.
        competitive: a latent is active only where it is larger than others, which the activation cannot know.
        inference: the architecture it is saved as.
    """

    select: Callable[[Scan, Tensor, SAETraining, int], Entries]
    activation: Callable[[Tensor, Tensor, SAETraining], Tensor]
    penalty: Callable[[Tensor, Tensor, SAETraining], Tensor]
    competitive: bool
    inference: str


def relu(pre: Tensor, threshold: Tensor, settings: SAETraining) -> Tensor:
    """Positive pre-activations."""
    return pre.relu()


def jumprelu(pre: Tensor, threshold: Tensor, settings: SAETraining) -> Tensor:
    """``pre`` where it exceeds the threshold θ, with ∂/∂θ = -θ/ε · 1[|pre - θ| < ε/2].

    Source: Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 11 (rectangle kernel).
    """
    fixed = threshold.detach()
    active, window = _step_and_window(pre, fixed, settings.bandwidth)
    return pre * active - fixed * window * (threshold - fixed)


def no_penalty(pre: Tensor, threshold: Tensor, settings: SAETraining) -> Tensor:
    """The number of active latents is given, so activity costs nothing."""
    return pre.new_zeros(())


def l1(pre: Tensor, threshold: Tensor, settings: SAETraining) -> Tensor:
    """Sum of latents times the norms of their decoder rows, which training keeps at 1."""
    return settings.sparsity_coefficient * pre.relu().sum()


def l0(pre: Tensor, threshold: Tensor, settings: SAETraining) -> Tensor:
    """Number of active latents, with ∂/∂θ = -1/ε · 1[|pre - θ| < ε/2].

    Source: Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 12.
    """
    active, window = _step_and_window(pre, threshold.detach(), settings.bandwidth)
    return settings.sparsity_coefficient * (active - window * (threshold - threshold.detach())).sum()


def _step_and_window(pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    distance = pre.detach() - threshold
    return (distance > 0).to(pre.dtype), (distance.abs() < bandwidth / 2).to(pre.dtype) / bandwidth


def positive(scan: Scan, threshold: Tensor, settings: SAETraining, rows: int) -> Entries:
    """All positive pre-activations."""
    return scan(partial(above, floor=0.0))


def row_top_k(scan: Scan, threshold: Tensor, settings: SAETraining, rows: int) -> Entries:
    """The k largest of every row (Gao et al. 2024, arXiv 2406.04093)."""
    return scan(partial(largest_per_row, k=settings.k))


def batch_top_k(scan: Scan, threshold: Tensor, settings: SAETraining, rows: int) -> Entries:
    """The k × rows largest of the batch, as far as positive (Bussmann et al. 2024, arXiv 2412.06410).

    Half the running threshold leaves out nearly all candidates beforehand; should it leave out too many, all are seen.
    """
    wanted = settings.k * rows
    entries = scan(partial(above, floor=threshold / 2))
    if len(entries.values) < wanted and threshold > 0:
        entries = scan(partial(above, floor=0.0))
    if len(entries.values) <= wanted:
        return entries
    smallest = entries.values.topk(wanted, sorted=False).values.min()
    return entries.keep(entries.values >= smallest)


def near_threshold(scan: Scan, threshold: Tensor, settings: SAETraining, rows: int) -> Entries:
    """All above the lower edge of the kernel, active or not: the others pass no gradient to the threshold."""
    return scan(partial(above, floor=threshold.detach() - settings.bandwidth / 2))


ARCHITECTURES: dict[str, Architecture] = {
    "standard": Architecture(positive, relu, l1, competitive=False, inference="standard"),
    "topk": Architecture(row_top_k, relu, no_penalty, competitive=True, inference="topk"),
    "batchtopk": Architecture(batch_top_k, relu, no_penalty, competitive=True, inference="jumprelu"),
    "jumprelu": Architecture(near_threshold, jumprelu, l0, competitive=False, inference="jumprelu"),
}


def initial_threshold(settings: SAETraining) -> Float[Tensor, " d_sae"] | Float[Tensor, ""]:
    """The threshold before the first step; zero where the architecture has none."""
    if settings.architecture == "jumprelu":
        return torch.full((settings.d_sae,), 0.5)
    return torch.zeros(())
