"""JumpReLU: a threshold per latent, trained, and a price on the number of active latents.

Source: Rajamanoharan et al. 2024, arXiv 2407.14435.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from saeflow.saes.architectures.architecture import Architecture, Scan
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.sae import SAE
from saeflow.saes.sparse import Entries, above


class JumpReLU(Architecture):
    """Neither the activation nor L0 has a gradient to the threshold θ, so both get that of a step
    smoothed by a rectangle of width ε, `bandwidth`."""

    inference = "jumprelu"
    in_units_of_pre = ("threshold",)
    rates = MappingProxyType({"threshold": 10.0})  # slower, L0 hardly follows its price

    def own_parameters(self, n_latents: int) -> dict[str, Tensor]:
        return {"threshold": torch.zeros(n_latents)}

    def start_at(self, floor: Tensor, weights: Dictionary) -> None:
        weights.own["threshold"].copy_(floor.clamp(min=0))

    def select(self, scan: Scan, own: Mapping[str, Tensor]) -> Entries:
        """All above the kernel's lower edge, active or not: the others pass no gradient to θ."""
        return scan(partial(above, floor=own["threshold"].detach() - self.settings.bandwidth / 2))

    def activation(self, pre: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        """``pre`` where it exceeds θ, with ∂/∂θ = -θ/ε · 1[|pre - θ| < ε/2] (eq. 11)."""
        threshold = own["threshold"]
        fixed = threshold.detach()
        active, window = self._step_and_window(pre, fixed)
        # The last factor is zero, and its gradient is that of θ.
        return pre * active - fixed * window * (threshold - fixed)

    def penalty(self, pre: Tensor, own: Mapping[str, Tensor], rows: int) -> Tensor:
        """Number of active latents, or its squared relative miss of a target, with ∂L0/∂θ = -1/ε ·
        1[|pre - θ| < ε/2] (eq. 12 and, for the target, appendix G)."""
        settings, threshold = self.settings, own["threshold"]
        active, window = self._step_and_window(pre, threshold.detach())
        active = (active - window * (threshold - threshold.detach())).sum()
        l0 = self.parallel.all_sum(active) / rows
        if settings.target_l0 is None:
            return settings.coefficient * l0
        return settings.coefficient * (l0 / settings.target_l0 - 1).square()

    def _step_and_window(self, pre: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        distance, width = pre.detach() - threshold, self.settings.bandwidth
        return (distance > 0).to(pre.dtype), (distance.abs() < width / 2).to(pre.dtype) / width

    def project(self, weights: Dictionary) -> None:
        weights.own["threshold"].clamp_(min=0)

    def revive(self, dead: Tensor, alive: Tensor, weights: Dictionary, share: float) -> None:
        threshold = weights.own["threshold"]
        living = self.parallel.all_gather(torch.where(alive, threshold, torch.nan))
        threshold[dead] = living.nanmedian().nan_to_num(0.0) * share

    def fields(self, own: Mapping[str, Tensor], norm: Tensor, b_enc: Tensor) -> dict[str, Any]:
        return {"b_enc": b_enc.float(), "threshold": (own["threshold"] * norm).float()}

    def own_of(self, sae: SAE, norm: Tensor) -> dict[str, Tensor]:
        threshold = torch.zeros_like(norm) if sae.threshold is None else sae.threshold
        return {"threshold": threshold.clamp_min(0) / norm}


ARCHITECTURE = JumpReLU
