"""Gated: one linear map tells which latents are active, another scale and bias how strongly.

Source: Rajamanoharan et al. 2024, arXiv 2404.16014.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor

from saeflow.saes.architectures.standard import Standard
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.objective import Fit, PreActivations
from saeflow.saes.sae import SAE


class Gated(Standard):
    """The L1 of `Standard` is on the gate, ``pre``.

    Its own parameters are ``r_mag``, the logarithm of the magnitude's scale relative to the gate's,
    and ``b_mag``, the magnitude's bias.
    """

    inference = "gated"
    longest_row = inf
    in_units_of_pre = ("b_mag",)

    def own_parameters(self, n_latents: int) -> dict[str, Tensor]:
        return {"r_mag": torch.zeros(n_latents), "b_mag": torch.zeros(n_latents)}

    def start_at(self, floor: Tensor, weights: Dictionary) -> None:
        super().start_at(floor, weights)
        weights.own["b_mag"].copy_(floor)  # else the gate's bias would lower the magnitude, too

    def activation(self, pre: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        """``relu(exp(r_mag) pre + b_mag)`` where the gate is open, which passes no gradient
        (eq. 6).

        The gate's bias is part of ``pre`` and so of the magnitude, whose own bias makes up for it.
        """
        return (own["r_mag"].exp() * pre + own["b_mag"]).relu() * (pre.detach() > 0)

    def fit(self, pre: PreActivations, latents: Tensor, target: Tensor, weights: Dictionary) -> Fit:
        """The gate's pre-activations reconstruct, too, by a decoder that does not follow them
        (eq. 8)."""
        fit = super().fit(pre, latents, target, weights)
        gate = super().fit(pre, pre.values.relu(), target, weights.detached())
        return fit._replace(loss=fit.loss + gate.loss)

    def fields(self, own: Mapping[str, Tensor], norm: Tensor, b_enc: Tensor) -> dict[str, Any]:
        """The bias is told apart into that of the gate and that of the magnitude."""
        return {
            "b_enc": torch.zeros(len(norm)),
            "r_mag": own["r_mag"].float(),
            "b_gate": b_enc.float(),
            "b_mag": (own["b_mag"] * norm + own["r_mag"].exp() * b_enc).float(),
        }

    def own_of(self, sae: SAE, norm: Tensor) -> dict[str, Tensor]:
        assert sae.r_mag is not None, "a gated SAE has it"
        assert sae.b_mag is not None, "a gated SAE has it"
        assert sae.b_gate is not None, "a gated SAE has it"
        # The gate's bias is part of what is multiplied here, and the magnitude's makes up for it.
        return {
            "r_mag": sae.r_mag,
            "b_mag": (sae.b_mag - sae.r_mag.exp() * sae.b_gate) / norm,
        }


ARCHITECTURE = Gated
