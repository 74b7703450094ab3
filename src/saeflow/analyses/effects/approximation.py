"""The linear map from a unit steering vector to its effects, and what follows from it (arXiv
2411.02193)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.errors import SaeflowError

# of the largest column of M: a column below it has no direction that could be told from rounding
FAINT = 1e-6
# of a latent's bias: a column below it belongs to a latent that moves alike with every vector
CONSTANT = 1e-4


class Approximation(NamedTuple):
    """``effects ≈ vector @ M + b``."""

    M: Float[Tensor, "d_model d_sae"]
    b: Float[Tensor, " d_sae"]
    rotation: Float[Tensor, "d_model d_model"]
    """Orthogonal; turns decoder rows into columns of ``M``: ``unit(W_dec[i]) @ rotation ≈ unit(M[:,
    i])``."""
    correction: Float[Tensor, " d_model"]
    """``unit(M b)``: the direction of the bias."""

    @classmethod
    def of(
        cls,
        M: Float[Tensor, "d_model d_sae"],
        b: Float[Tensor, " d_sae"],
        W_dec: Float[Tensor, "d_sae d_model"],
    ) -> Approximation:
        """The map with all that follows from it.

        Args:
            M: of the map.
            b: of the map.
            W_dec: decoder of the SAE whose latents the effects are.
        """
        correction = normalize((M @ b).double(), dim=0).float()
        return cls(M, b, procrustes(M, W_dec, b), correction)

    def checked(self, where: Path) -> Approximation:
        """The same, once its tensors are finite floats of shapes that fit each other.

        Raises:
            SaeflowError: one is not; ``where`` is the file that it comes from.
        """
        d_model, d_sae = self.M.shape if self.M.ndim == 2 else (0, 0)
        shapes = {
            "M": (d_model, d_sae),
            "b": (d_sae,),
            "rotation": (d_model, d_model),
            "correction": (d_model,),
        }
        for name, shape in shapes.items():
            tensor: Tensor = getattr(self, name)
            if (
                tuple(tensor.shape) != shape
                or not tensor.is_floating_point()
                or not tensor.float().isfinite().all()
            ):
                raise SaeflowError(
                    f"{where}: {name} {list(tensor.shape)} must be finite floats of shape "
                    f"{list(shape)}; get it again"
                )
        return self

    def predict(self, vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_sae"]:
        """Effects of unit vectors."""
        return vectors @ self.M + self.b


def procrustes(
    M: Float[Tensor, "d_model d_sae"],
    W_dec: Float[Tensor, "d_sae d_model"],
    b: Float[Tensor, " d_sae"] | None = None,
) -> Float[Tensor, "d_model d_model"]:
    """The orthogonal matrix that best turns unit decoder rows into unit columns of ``M``
    (Schönemann 1966).

    A latent that no vector moves, or that all move alike, has a column of rounding noise, which
    unit length would make as weighty as any other. Columns are left out whose norm is at most
    `FAINT` of the largest, or at most `CONSTANT` of the latent's bias.

    The release of SAE-TS stores the same matrix in its transpose, ``R_dec = rotation.T``, so that
    ``R_dec @ decoder_row ≈ column``, and then steers with ``R_dec.T @ decoder_row``, which turns
    decoder rows away from the columns by the inverse. Here they are turned towards them.

    Args:
        M: of the map.
        W_dec: decoder of the SAE whose latents the effects are.
        b: of the map; without it only `FAINT` decides.

    Returns:
        ``rotation`` with ``unit(W_dec[i]) @ rotation ≈ unit(M[:, i])``.
    """
    decoder, columns = normalize(W_dec.double(), dim=1), M.double()
    norms = columns.norm(dim=0)
    noise = FAINT * norms.max()
    if b is not None:
        noise = torch.maximum(noise, CONSTANT * b.double().abs())
    clear = norms > noise
    U, _, Vh = torch.linalg.svd(decoder[clear].T @ normalize(columns[:, clear], dim=0).T)
    return (U @ Vh).float()


def less_bias(
    directions: Float[Tensor, "... d_model"],
    M: Float[Tensor, "d_model d_sae"],
    b: Float[Tensor, " d_sae"],
    weight: float,
) -> Float[Tensor, "... d_model"]:
    """Directions at unit norm, less the direction that only serves the approximator's bias: ``u(v)
    - λ u(M b)``.

    Args:
        directions: one per row.
        M: of the approximator.
        b: of the approximator.
        weight: λ.

    Returns:
        float64, of any norm.
    """
    return _unit(directions) - weight * _unit(M.double().cpu() @ b.double().cpu())


def _unit(vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    return torch.nn.functional.normalize(vectors.double().cpu(), dim=-1)
