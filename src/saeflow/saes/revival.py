"""Dead latents and the two ways to bring them back: an auxiliary loss, and resampling."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from saeflow.saes.adam import Adam
from saeflow.saes.architectures.architecture import Architecture
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.parallel import ALONE, TensorParallel

# one row in so many bears the auxiliary loss: enough for its gradient, and a bound on its cost
_SHARE_OF_ROWS = 4
_ENCODER_NORM = 0.2  # of a resampled latent relative to the living ones (Bricken et al. 2023)


def auxiliary_loss(
    x: Float[Tensor, "rows d_in"],
    residual: Float[Tensor, "rows d_out"],
    weights: Dictionary,
    dead: Int64[Tensor, " n_dead"],
    parallel: TensorParallel = ALONE,
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
    k = min(x.shape[1] // 2, parallel.all_count(len(dead)))
    encoder, decoder = weights.rows("encoder", dead), weights.rows("decoder", dead)
    pre = torch.addmm(weights.b_enc[dead], x[:rows], encoder.T)
    latents = torch.where(pre >= parallel.kth_largest(pre.detach(), k), pre, 0.0).relu()
    return mse_loss(parallel.all_sum(latents @ decoder), residual[:rows])


class Unexplained(NamedTuple):
    """What a batch's reconstruction left, and what it was read from.

    Attributes:
        read: what an encoder is pointed at: the residual, or the rows themselves where a transcoder
            reads another activation than it writes, or where a matrix is frozen.
        residual: what the living latents leave of the target.
    """

    read: Float[Tensor, "rows d_in"]
    residual: Float[Tensor, "rows d_out"]


@torch.no_grad()
def resample(
    dead: Int64[Tensor, " n_dead"],
    weights: Dictionary,
    architecture: Architecture,
    rows: Unexplained,
    adam: Adam,
    generator: torch.Generator,
) -> None:
    """Point dead latents at badly explained rows and let Adam forget them.

    Where a matrix is frozen, a latent cannot be pointed anywhere: it gets a bias by which it fires
    on those rows again that it reads most.

    Rows are drawn with a probability proportional to their squared error, one for every latent of
    all processes, so that a latent's row does not depend on which others are dead.

    Args:
        dead: indices of this process's dead latents.
        weights: changed in place.
        architecture: theirs.
        rows: of one batch.
        adam: what follows the weights' gradients.
        generator: of the draws.

    Source: Bricken et al. 2023, "Towards Monosemanticity", appendix on neuron resampling,
        simplified to one batch.
    """
    parallel, here = architecture.parallel, len(weights.encoder)
    n_latents = here * parallel.world
    error = rows.residual.square().sum(dim=1).cpu()
    drawn = torch.multinomial(error, n_latents, replacement=True, generator=generator)
    chosen = drawn[parallel.latents(n_latents)].to(rows.residual.device)[dead]
    alive = torch.ones(here, dtype=torch.bool, device=rows.residual.device)
    alive[dead] = False
    norms = parallel.all_gather(torch.where(alive, weights.encoder.norm(dim=1), torch.nan))
    norm = norms.nanmean().nan_to_num(1.0)
    if weights.frozen:
        largest = (rows.read @ weights.encoder[dead].T).amax(dim=0)
        weights.b_enc[dead] = (_ENCODER_NORM - 1) * largest
    else:
        weights.decoder[dead] = normalize(rows.residual[chosen], dim=1)
        weights.encoder[dead] = normalize(rows.read[chosen], dim=1) * norm * _ENCODER_NORM
        weights.b_enc[dead] = 0.0
    architecture.revive(dead, alive, weights, _ENCODER_NORM)
    adam.forget(dead)
