"""Dead latents and the two ways to bring them back: an auxiliary loss, and resampling."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from saeflow.saes.dictionary import Dictionary
from saeflow.saes.parallel import ALONE, Share

# one row in so many bears the auxiliary loss: enough for its gradient, and a bound on its cost
_SHARE_OF_ROWS = 4
_ENCODER_NORM = 0.2  # of a resampled latent relative to the living ones (Bricken et al. 2023)


def auxiliary_loss(
    x: Float[Tensor, "rows d_in"],
    residual: Float[Tensor, "rows d_out"],
    weights: Dictionary,
    dead: Int64[Tensor, " n_dead"],
    share: Share = ALONE,
) -> Float[Tensor, ""]:
    """How badly the dead latents alone, the d_in / 2 largest of every row, explain what the living
    ones left.

    Args:
        x: what is read, normalised.
        residual: what the living latents leave of the target.
        dead: indices of this process's dead latents.

    Returns:
        Mean squared error as a share of the target's variance.

    Source: Gao et al. 2024, arXiv 2406.04093, appendix A.2.
    """
    rows = max(1, len(x) // _SHARE_OF_ROWS)
    k = min(x.shape[1] // 2, share.count(len(dead)))
    pre = torch.addmm(weights.b_enc[dead], x[:rows], weights.encoder[dead].T)
    latents = torch.where(pre >= share.kth_largest(pre.detach(), k), pre, 0.0).relu()
    return mse_loss(share.total(latents @ weights.decoder[dead]), residual[:rows])


@torch.no_grad()
def resample(
    read: Float[Tensor, "rows d_in"],
    residual: Float[Tensor, "rows d_out"],
    weights: Dictionary,
    dead: Int64[Tensor, " n_dead"],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    share: Share = ALONE,
) -> None:
    """Point dead latents at badly explained rows and let the optimiser forget them.

    Rows are drawn with a probability proportional to their squared error, one for every latent of
    all processes, so that a latent's row does not depend on which others are dead.

    Args:
        read: what the encoder is pointed at: the residual, or the rows themselves where a
            transcoder reads another activation than it writes.
        residual: what the living latents leave of the target.
        dead: indices of this process's dead latents.

    Source: Bricken et al. 2023, "Towards Monosemanticity", appendix on neuron resampling,
        simplified to one batch.
    """
    error = residual.square().sum(dim=1).cpu()
    here = len(weights.encoder)
    drawn = torch.multinomial(error, here * share.world, replacement=True, generator=generator)
    rows = drawn[share.part(here * share.world)].to(residual.device)[dead]
    alive = torch.ones(here, dtype=torch.bool, device=residual.device)
    alive[dead] = False
    norms = (
        share.joined(torch.where(alive, weights.encoder.norm(dim=1), torch.nan))
        .nanmean()
        .nan_to_num(1.0)
    )
    weights.decoder[dead] = normalize(residual[rows], dim=1)
    weights.encoder[dead] = normalize(read[rows], dim=1) * norms * _ENCODER_NORM
    for tensor in (weights.b_enc, weights.r_mag, weights.b_mag):
        if tensor.ndim:
            tensor[dead] = 0.0
    if weights.threshold.ndim:
        living = share.joined(torch.where(alive, weights.threshold, torch.nan))
        weights.threshold[dead] = living.nanmedian().nan_to_num(0.0) * _ENCODER_NORM
    for tensor in weights.trained().values():
        if len(tensor) == here and tensor is not weights.b_dec:
            for name, moment in optimiser.state.get(tensor, {}).items():
                if name != "step":
                    moment[dead] = 0.0
