"""The linear map from a unit steering vector to its effects, and what follows from it (arXiv 2411.02193)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Approximation(NamedTuple):
    """``effects ≈ vector @ M + b``."""

    M: Float[Tensor, "d_model d_sae"]
    b: Float[Tensor, " d_sae"]
    rotation: Float[Tensor, "d_model d_model"]
    """Orthogonal; turns decoder rows into columns of ``M``: ``unit(W_dec[i]) @ rotation ≈ unit(M[:, i])``."""
    correction: Float[Tensor, " d_model"]
    """``unit(M b)``: the direction of the bias."""

    @classmethod
    def of(
        cls, M: Float[Tensor, "d_model d_sae"], b: Float[Tensor, " d_sae"], W_dec: Float[Tensor, "d_sae d_model"]
    ) -> Approximation:
        """The map with all that follows from it.

        Args:
            M: of the map.
            b: of the map.
            W_dec: decoder of the SAE whose latents the effects are.
        """
        correction = torch.nn.functional.normalize((M @ b).double(), dim=0).float()
        return cls(M, b, procrustes(M, W_dec), correction)

    def predict(self, vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_sae"]:
        """Effects of unit vectors."""
        return vectors @ self.M + self.b


def procrustes(
    M: Float[Tensor, "d_model d_sae"], W_dec: Float[Tensor, "d_sae d_model"]
) -> Float[Tensor, "d_model d_model"]:
    """The orthogonal matrix that best turns unit decoder rows into unit columns of ``M`` (Schönemann 1966).

    Returns:
        ``rotation`` with ``unit(W_dec[i]) @ rotation ≈ unit(M[:, i])``.
    """
    decoder = torch.nn.functional.normalize(W_dec.double(), dim=1)
    columns = torch.nn.functional.normalize(M.double(), dim=0)
    U, _, Vh = torch.linalg.svd(decoder.T @ columns.T)
    return (U @ Vh).float()
