"""Ridge regression from sums over rows, so that the rows need not be in memory together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.products import linear


class Moments(NamedTuple):
    """Sums over rows that a least-squares fit needs; float64. Moments of disjoint rows add up."""

    rows: int
    x: Float[Tensor, " d_model"]
    y: Float[Tensor, " n_latents"]
    xx: Float[Tensor, "d_model d_model"]
    xy: Float[Tensor, "d_model n_latents"]
    yy: float

    def plus(self, other: Moments) -> Moments:
        """The moments of the rows of both."""
        return Moments(
            self.rows + other.rows,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
            self.yy + other.yy,
        )

    def less(self, other: Moments) -> Moments:
        """The moments of these rows without those of ``other``, which are among them."""
        return Moments(
            self.rows - other.rows,
            self.x - other.x,
            self.y - other.y,
            self.xx - other.xx,
            self.xy - other.xy,
            self.yy - other.yy,
        )

    def about(self, x: Float[Tensor, " d_model"], y: Float[Tensor, " n_latents"]) -> Moments:
        """The moments of the same rows less ``x`` and ``y``."""
        n = self.rows
        xx = self.xx - torch.outer(self.x, x) - torch.outer(x, self.x - n * x)
        xy = self.xy - torch.outer(self.x, y)
        xy.addr_(x, self.y - n * y, alpha=-1)
        yy = self.yy - 2 * float(self.y @ y) + n * float(y @ y)
        return Moments(n, self.x - n * x, self.y - n * y, xx, xy, yy)

    def centred(self) -> Moments:
        """The moments about the rows' own means."""
        return self.about(self.x / self.rows, self.y / self.rows)


def moments(
    chunks: Iterable[tuple[Tensor, Tensor]], d_model: int, n_latents: int, device: torch.device
) -> Moments:
    """Sum over chunks of vectors ``[rows, d_model]`` and effects ``[rows, n_latents]``.

    Products of vectors and effects are float32, all else is float64.
    """

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    count, x_sum, y_sum, yy = 0, zeros(d_model), zeros(n_latents), 0.0
    xx, xy = zeros(d_model, d_model), zeros(d_model, n_latents)
    for x, y in chunks:
        count += len(x)
        x_sum += x.sum(0, dtype=torch.float64)
        y_sum += y.sum(0, dtype=torch.float64)
        xx += x.double().T @ x.double()
        xy += linear(x.T, y.T)
        yy += y.square().sum(dtype=torch.float64).item()
    return Moments(count, x_sum, y_sum, xx, xy, yy)


def solve(
    sums: Moments, penalty: float
) -> tuple[Float[Tensor, "d_model n_latents"], Float[Tensor, " n_latents"]]:
    """The closed form with an intercept that is not penalised.

    Args:
        sums: of the training rows.
        penalty: a multiple of the mean eigenvalue of the vectors' covariance.

    Returns:
        ``M`` and ``b``, float32.
    """
    centred = sums.centred()
    ridge = penalty * centred.xx.diagonal().mean()
    penalised = centred.xx + ridge * torch.eye(
        len(centred.xx), dtype=centred.xx.dtype, device=centred.xx.device
    )
    M = torch.linalg.solve(penalised, centred.xy)
    b = (sums.y - sums.x @ M) / sums.rows
    return M.float(), b.float()


def validation_errors(
    train: Moments, validation: Moments, penalties: Sequence[float]
) -> list[float]:
    """Mean squared error of the fit with each penalty on rows that it has not seen.

    One eigendecomposition ``xx = Q diag(e) Q^T`` serves all penalties: with ``P = Q^T xy`` the fit
    is ``Q diag(1 / (e + ridge)) P``, and its error is a quadratic form in the small vector ``1 / (e
    + ridge)``.

    Args:
        train: moments of the rows that are fitted.
        validation: moments of those that are not.
        penalties: as in `solve`.
    """
    x, y = train.x / train.rows, train.y / train.rows
    fitted, seen = train.about(x, y), validation.about(x, y)
    eigenvalues, Q = torch.linalg.eigh(fitted.xx)
    P = Q.T @ fitted.xy
    linear = (P * (Q.T @ seen.xy)).sum(1)
    quadratic = (Q.T @ seen.xx @ Q) * (P @ P.T)
    errors = []
    for penalty in penalties:
        shrunk = 1 / (eigenvalues.clamp_min(0) + penalty * fitted.xx.diagonal().mean())
        errors.append(seen.yy - 2 * float(shrunk @ linear) + float(shrunk @ quadratic @ shrunk))
    return [error / (seen.rows * len(y)) for error in errors]
