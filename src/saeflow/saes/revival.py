"""Dead latents and the two ways to bring them back: an auxiliary loss, and resampling."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from saeflow.saes.dictionary import Dictionary

_SHARE_OF_ROWS = 4  # one row in so many bears the auxiliary loss: enough for its gradient, and a bound on its cost
_ENCODER_NORM = 0.2  # of a resampled latent relative to the living ones (Bricken et al. 2023)


def auxiliary_loss(
    x: Float[Tensor, "rows d_model"],
    residual: Float[Tensor, "rows d_model"],
    weights: Dictionary,
    dead: Int64[Tensor, " n_dead"],
) -> Float[Tensor, ""]:
    """How badly the dead latents alone, the d_model / 2 largest of every row, explain what the living ones left.

    Args:
        x: normalised activations.
        residual: x - x̂ of the living latents.
        dead: indices of the dead latents.

    Returns:
        Mean squared error as a share of the activations' variance.

    Source: Gao et al. 2024, arXiv 2406.04093, appendix A.2.
    """
    rows = max(1, len(x) // _SHARE_OF_ROWS)
    pre = torch.addmm(weights.b_enc[dead], x[:rows], weights.encoder[dead].T)
    values, indices = pre.topk(min(x.shape[1] // 2, len(dead)), dim=-1, sorted=False)
    latents = torch.zeros_like(pre).scatter(-1, indices, values.relu())
    return mse_loss(latents @ weights.decoder[dead], residual[:rows])


@torch.no_grad()
def resample(
    residual: Float[Tensor, "rows d_model"],
    weights: Dictionary,
    dead: Int64[Tensor, " n_dead"],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Point dead latents at badly explained rows and let the optimiser forget them.

    Rows are drawn with a probability proportional to their squared error.

    Source: Bricken et al. 2023, "Towards Monosemanticity", appendix on neuron resampling, simplified to one batch.
    """
    error = residual.square().sum(dim=1)
    rows = torch.multinomial(error.cpu(), len(dead), replacement=True, generator=generator)
    directions = normalize(residual[rows.to(residual.device)], dim=1)
    alive = torch.ones(len(weights.encoder), dtype=torch.bool, device=residual.device)
    alive[dead] = False
    norm = weights.encoder[alive].norm(dim=1).mean() if alive.any() else 1.0
    weights.decoder[dead] = directions
    weights.encoder[dead] = directions * norm * _ENCODER_NORM
    weights.b_enc[dead] = 0.0
    if weights.threshold.ndim:
        weights.threshold[dead] = weights.threshold[alive].median() * _ENCODER_NORM if alive.any() else 0.0
    for tensor in (weights.encoder, weights.decoder, weights.b_enc, weights.threshold):
        for name, moment in optimiser.state.get(tensor, {}).items():
            if name != "step":
                moment[dead] = 0.0
