"""The function of each pursuit."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from saeflow.pursuits.dictionary import Decomposition, Dictionary
from saeflow.pursuits.greedy import gradient, gradient_positive, matching, orthogonal
from saeflow.pursuits.lasso import lasso
from saeflow.pursuits.names import PursuitName


class Pursuit(Protocol):
    """Decomposes directions into at most 1, 2, …, k atoms each."""

    def __call__(
        self, directions: Float[Tensor, "n d_model"], dictionary: Dictionary, k: int
    ) -> Decomposition: ...


PURSUITS: dict[PursuitName, Pursuit] = {
    "gradient": gradient,
    "gradient_positive": gradient_positive,
    "orthogonal": orthogonal,
    "matching": matching,
    "lasso": lasso,
}
