"""A trained crosscoder: one set of latents for the same tokens seen by several sources (models, or
layers of one).

What tells a shared latent from one that belongs to a single source is read from the decoder's
norms, and checked on activations, since a latent can lose its norm in one source though it explains
that source, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.saes.dictionary import Normalisation
from saeflow.saes.sae import SAE, tensors_of


@dataclass(frozen=True)
class Crosscoder:
    """Weights of a crosscoder in the activations' own units; normalisations are folded in.

    Attributes:
        W_dec: rows of unit norm over all sources together.
        scale: how far the activations of each source are from their mean, root mean square; norms
            of decoder rows are compared in these units, since a source with larger activations has
            larger rows.
        threshold: a latent is active where its pre-activation is above it; None for ReLU.
        metadata: what it was trained on; ``sources`` names the sources in order.

    Source: Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and Model Diffing".
    """

    W_enc: Float[Tensor, "n_sources d_model d_sae"]
    W_dec: Float[Tensor, "d_sae n_sources d_model"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, "n_sources d_model"]
    scale: Float[Tensor, " n_sources"]
    threshold: Float[Tensor, " d_sae"] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return self.W_enc.shape[0]

    @property
    def d_model(self) -> int:
        """Width of every source's activations."""
        return self.W_enc.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[2]

    @property
    def of_difference(self) -> bool:
        """Whether it stands for an SAE of the difference of two sources."""
        return "difference" in self.metadata

    def to(self, device: str | torch.device) -> Crosscoder:
        """The same crosscoder on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors_of(self)}
        return replace(self, **moved)

    def encode(self, x: Float[Tensor, "... n_sources d_model"]) -> Float[Tensor, "... d_sae"]:
        """Values of all latents, ``activation(Σ_s x_s W_enc,s + b_enc)``.

        Raises:
            SaeflowError: the activations are of other sources or another width.
        """
        if x.shape[-2:] != self.b_dec.shape:
            raise SaeflowError(
                f"crosscoder: reads {self.n_sources} sources of width {self.d_model}, these "
                f"activations have the shape {list(x.shape)}; give [rows, {self.n_sources}, "
                f"{self.d_model}]"
            )
        pre = x.to(self.W_enc.dtype).flatten(-2) @ self.W_enc.flatten(0, 1) + self.b_enc
        return (
            pre if self.threshold is None else torch.where(pre > self.threshold, pre, 0.0)
        ).relu()

    def decode(self, z: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... n_sources d_model"]:
        """The activations of all sources that latents stand for, ``z W_dec,s + b_dec,s``."""
        return (z @ self.W_dec.flatten(1)).view(*z.shape[:-1], *self.b_dec.shape) + self.b_dec

    def relative_norms(self) -> Float[Tensor, "d_sae n_sources"]:
        """Every source's share of a latent's decoder norms: 1/n where it is shared equally, 1 where
        it is exclusive."""
        norms = self.W_dec.norm(dim=-1) / self.scale
        return norms / norms.sum(dim=-1, keepdim=True)

    def owners(self) -> Int64[Tensor, " d_sae"]:
        """The source in which each latent has the largest norm."""
        return self.relative_norms().argmax(dim=1)


def as_crosscoder(sae: SAE, n_sources: int, read: Normalisation) -> Crosscoder:
    """An SAE that reads several sources side by side, as what it is.

    Args:
        sae: trained on a feed of several sources.
        n_sources: how many.
        read: the feed's normalisation, which tells how large each source's activations are.
    """
    d_model = sae.b_dec.numel() / n_sources
    return Crosscoder(
        W_enc=sae.W_enc.view(n_sources, -1, sae.d_sae),
        W_dec=sae.W_dec.view(sae.d_sae, n_sources, -1),
        b_enc=sae.b_enc,
        b_dec=sae.b_dec.view(n_sources, -1),
        scale=d_model**0.5 / read.scale.view(n_sources, -1)[:, 0].float().cpu(),
        threshold=sae.threshold,
        metadata=sae.metadata,
    )


def difference_as_crosscoder(sae: SAE) -> Crosscoder:
    """An SAE of the difference of two sources, as a crosscoder that reads both and whose latents
    write to the second alone.

    Raises:
        SaeflowError: it does not say that it is of a difference, or of which sources.
    """
    sources = sae.metadata.get("difference")
    if not isinstance(sources, list) or len(sources) != 2:
        raise SaeflowError(
            "sae: is not of a difference of two models; name a crosscoder, or an SAE with "
            "saes.<name>.difference"
        )
    nothing = torch.zeros_like(sae.W_dec)
    return Crosscoder(
        W_enc=torch.stack([-sae.W_enc, sae.W_enc]),
        W_dec=torch.stack([nothing, sae.W_dec], dim=1),
        b_enc=sae.b_enc,
        b_dec=torch.stack([torch.zeros_like(sae.b_dec), sae.b_dec]),
        scale=torch.ones(2, device=sae.b_dec.device),
        threshold=sae.threshold,
        metadata={**sae.metadata, "sources": sources},
    )


@dataclass(frozen=True)
class LatentScaling:
    """How much of each latent's direction every source holds, whatever norm its decoder kept there.

    Attributes:
        owner: the source whose direction of the latent is looked for.
        error: β of what the other latents leave unexplained; NaN where the latent never fires.
        reconstruction: β of the reconstruction by all latents.
    """

    owner: Int64[Tensor, " d_sae"]
    error: Float[Tensor, "d_sae n_sources"]
    reconstruction: Float[Tensor, "d_sae n_sources"]

    def ratios(self) -> tuple[Float[Tensor, "d_sae n_sources"], Float[Tensor, "d_sae n_sources"]]:
        """ν of the error and of the reconstruction: every source's β relative to the owner's.

        A latent truly exclusive to the owner has both near zero in every other source. A high ν of
        the error says that its norm shrank there though it is needed; a high ν of the
        reconstruction, that others stand for it there.
        """
        owner = self.owner[:, None]
        betas = self.error, self.reconstruction
        nu_error, nu_reconstruction = (beta / beta.gather(1, owner) for beta in betas)
        return nu_error, nu_reconstruction


@torch.no_grad()
def latent_scaling(
    crosscoder: Crosscoder,
    batches: Iterable[Float[Tensor, "rows n_sources d_model"]],
    owner: Int64[Tensor, " d_sae"],
) -> LatentScaling:
    """For every latent and source the β that minimises ``Σ_rows |β z d_owner - target_s|²``, in
    closed form.

    ``d_owner`` is the latent's direction in the source that seems to own it. The target is, for the
    error, what the other latents leave of the source, ``x_s - x̂_s + z d_s``; for the
    reconstruction, ``x̂_s`` less its bias. All of a source is taken in units of its scale.

    Args:
        batches: raw activations, all rows over which the sum goes.
        owner: of each latent, the index of a source; `Crosscoder.owners` gives the likely ones.

    Source: Minder, Dumas et al. 2025, arXiv 2504.02922, section 2.3.
    """
    scale = crosscoder.scale.double()
    rows = crosscoder.W_dec.double() / scale[:, None]
    direction = rows[torch.arange(len(rows), device=rows.device), owner]
    energy = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    residual, rebuilt = (energy.new_zeros(len(rows), crosscoder.n_sources) for _ in range(2))
    for x in batches:
        z = crosscoder.encode(x)
        decoded = crosscoder.decode(z)
        z = z.double()
        energy += z.square().sum(dim=0)
        for total, target in ((residual, x - decoded), (rebuilt, decoded - crosscoder.b_dec)):
            for source, values in enumerate((target.double() / scale[:, None]).unbind(1)):
                total[:, source] += torch.linalg.vecdot(z.T @ values, direction)
    residual += torch.einsum("lsd,ld->ls", rows, direction) * energy[:, None]
    unit = (energy * direction.square().sum(dim=1))[:, None]
    return LatentScaling(owner, residual / unit, rebuilt / unit)
