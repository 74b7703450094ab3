"""How much of every latent each of two models holds, whatever norm its decoder kept there: in
closed form, in both directions, from one pass over text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.saes.crosscoder import Crosscoder

BASE, TUNED = 0, 1
"""The two sides, in the order of all tensors that have both."""


class Sides(NamedTuple):
    """Two models of a crosscoder.

    Attributes:
        base: the places of its sources that are of the base model, one per hook.
        tuned: those of the model that is compared with it, in the same order of hooks.
    """

    base: Sequence[int]
    tuned: Sequence[int]

    def of(
        self, tensor: Float[Tensor, "rows n_sources d_model"]
    ) -> Float[Tensor, "rows 2 hooks_d_model"]:
        """What is there per source, as one vector per model: its hooks side by side."""
        both = (tensor[:, torch.tensor(places, device=tensor.device)] for places in self)
        return torch.stack([part.flatten(1) for part in both], dim=1)


def sides_by_model(places: Sequence[tuple[str, str]], base: str) -> dict[str, Sides]:
    """Both sides of every comparison that a crosscoder allows.

    Args:
        places: model and hook of every source, in the crosscoder's order.
        base: the model that others are compared with.

    Returns:
        By the name of every other model.

    Raises:
        SaeflowError: the base is none of its models, or one is read at other hooks.
    """
    of_models: dict[str, dict[str, int]] = {}
    for place, (model, hook) in enumerate(places):
        of_models.setdefault(model, {})[hook] = place
    if base not in of_models:
        raise SaeflowError(
            f"diffing: the crosscoder reads {', '.join(of_models)} and not '{base}'; name a "
            "crosscoder that does, or another diffing.base"
        )
    first = of_models.pop(base)
    for name, hooks in of_models.items():
        if set(hooks) != set(first):
            raise SaeflowError(
                f"diffing: the crosscoder reads '{base}' and '{name}' at other hooks; compare "
                "models at the same ones"
            )
    return {
        name: Sides(list(first.values()), [hooks[hook] for hook in first])
        for name, hooks in of_models.items()
    }


class Scaling(NamedTuple):
    """β of every latent: how much of its direction in one model there is in each.

    Attributes:
        error: of what the other latents leave of a model unexplained, by the model whose direction
            is looked for, and the model that is looked at; NaN where the latent never fires.
        reconstruction: of the model's reconstruction, less its bias.
    """

    error: Float64[np.ndarray, "d_sae 2 2"]
    reconstruction: Float64[np.ndarray, "d_sae 2 2"]

    def ratios(self) -> tuple[Float64[np.ndarray, "d_sae 2"], Float64[np.ndarray, "d_sae 2"]]:
        """ν of the error and of the reconstruction: β of the other model over that of the owner, by
        owner; NaN where the owner itself does not hold its own direction."""
        betas = self.error, self.reconstruction
        own = [np.stack([beta[:, side, side] for side in (BASE, TUNED)], 1) for beta in betas]
        other = [np.stack([beta[:, side, 1 - side] for side in (BASE, TUNED)], 1) for beta in betas]
        with np.errstate(divide="ignore", invalid="ignore"):
            error, reconstruction = (
                np.where(mine > 0, theirs / mine, np.nan)
                for mine, theirs in zip(own, other, strict=True)
            )
        return error, reconstruction


class Pass:
    """Sums over a text of everything that classes of latents are told by, group by group, so that
    the text can be resampled afterwards; memory does not grow with it.

    Args:
        crosscoder: on the device of the rows.
        sides: the two models.
        groups: parts of the text.

    Source: Minder, Dumas et al. 2025, arXiv 2504.02922, section 2.3; the direction of either model
        is looked for, as a base model may own latents, too.
    """

    def __init__(self, crosscoder: Crosscoder, sides: Sides, groups: int) -> None:
        self.crosscoder, self.sides = crosscoder, sides
        self._directions = sides.of(crosscoder.W_dec / crosscoder.scale[:, None])
        exact = self._directions.double().cpu()
        self._dots = torch.einsum("lod,lsd->los", exact, exact).numpy()
        self.rows = np.zeros(groups)
        self.energy = np.zeros((groups, crosscoder.d_sae))
        self.fired = np.zeros((groups, crosscoder.d_sae))
        self.fired_alone = np.zeros((groups, crosscoder.d_sae, 2))
        self._error = np.zeros((groups, crosscoder.d_sae, 2, 2))
        self._rebuilt = np.zeros((groups, crosscoder.d_sae, 2, 2))

    @torch.no_grad()
    def add(self, x: Float[Tensor, "rows n_sources d_model"], group: int) -> None:
        """Take in some rows of one part of the text."""
        crosscoder, scale = self.crosscoder, self.crosscoder.scale[:, None]
        z = crosscoder.encode(x)
        decoded = crosscoder.decode(z)
        self.rows[group] += len(x)
        self.energy[group] += _sums(z.double().square())
        self.fired[group] += _sums(z > 0)
        for side in (BASE, TUNED):
            alone = crosscoder.encode(as_if_both_were(crosscoder, self.sides, x, side))
            self.fired_alone[group, :, side] += _sums(alone > 0)
        targets = (x - decoded, decoded - crosscoder.b_dec)
        for sums, target in zip((self._error, self._rebuilt), targets, strict=True):
            of_sides = self.sides.of(target / scale)
            for seen in (BASE, TUNED):
                along = z.T @ of_sides[:, seen]
                for owner in (BASE, TUNED):
                    dots = torch.linalg.vecdot(along, self._directions[:, owner]).double()
                    sums[group, :, owner, seen] += dots.cpu().numpy()

    def scaling(self, weights: Float64[np.ndarray, " groups"] | None = None) -> Scaling:
        """β over the text, or over a resample of it.

        Args:
            weights: of the groups; None weighs all alike.
        """
        weights = np.ones(len(self.rows)) if weights is None else weights
        dots = self._dots
        energy = weights @ self.energy
        unit = energy[:, None, None] * np.stack([dots[:, 0, :1], dots[:, 1, 1:]], axis=1)
        error, rebuilt = (
            np.einsum("g,glos->los", weights, sums) for sums in (self._error, self._rebuilt)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return Scaling((error + energy[:, None, None] * dots) / unit, rebuilt / unit)


def as_if_both_were(
    crosscoder: Crosscoder, sides: Sides, x: Float[Tensor, "rows n_sources d_model"], side: int
) -> Float[Tensor, "rows n_sources d_model"]:
    """What a crosscoder would read if two models were one of them, in the other's units."""
    moved = x.clone()
    for mine, other in zip(sides[side], sides[1 - side], strict=True):
        unit = (x[:, mine] - crosscoder.b_dec[mine]) / crosscoder.scale[mine]
        moved[:, other] = unit * crosscoder.scale[other] + crosscoder.b_dec[other]
    return moved


def _sums(values: Tensor) -> Float64[np.ndarray, " d_sae"]:
    summed: Float64[np.ndarray, " d_sae"] = values.sum(dim=0).double().cpu().numpy()
    return summed
