"""How well predicted effects match measured ones, on rows that were held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from saeflow.analyses.effects.approximation import Approximation

TOP_K = 10
SAMPLED_POINTS = 20_000
TOP_POINTS_PER_ROW = 3

PREDICTIONS_SCHEMA = {
    "row": pl.Int64,
    "latent": pl.Int64,
    "predicted": pl.Float32,
    "measured": pl.Float32,
    "kind": pl.String,
}


LATENTS_SCHEMA = {
    "latent": pl.Int64,
    "r2": pl.Float64,
    "measured_std": pl.Float64,
    "rmse": pl.Float64,
    "r2_ceiling": pl.Float64,
}


class TestRows(NamedTuple):
    """The rows held out."""

    rows: NDArray[np.int64]
    """Their indices among all rows."""
    chunks: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    """Their vectors and effects in the same order, some at a time."""


class Score(NamedTuple):
    """How well effects are predicted on the rows held out."""

    metrics: dict[str, Any]
    """``r2`` over all numbers, ``r2_median`` over latents, ``r2_ceiling`` that noise sets,
    ``cosine`` and ``top_k_overlap`` as means over rows; null where undefined."""
    latents: pl.DataFrame
    """Per latent: R² (null where the latent never moves), standard deviation of its measured
    effects, root mean squared error, ceiling of R² (null where standard errors are not known)."""
    predictions: pl.DataFrame
    """A uniform sample of the numbers (``kind`` is ``sample``) and every row's largest measured
    effects (``top``)."""


def score(
    approximation: Approximation,
    test: TestRows,
    generator: np.random.Generator,
    noise: Float[Tensor, " d_sae"] | None = None,
) -> Score:
    """Compare predicted with measured effects.

    No map can predict the noise of a measurement, so R² cannot be expected above the share of the
    spread of measured effects that is not noise, its ceiling. Noise that vectors have in common, as
    their rollouts share random numbers, is counted in it although a map's ``b`` can hold it: the
    ceiling is rather too low than too high.

    Args:
        approximation: the map.
        test: the rows held out.
        generator: draws the points of the table.
        noise: of every latent the mean squared standard error of its effects on those rows; None if
            not known.
    """
    d_sae, device = approximation.M.shape[1], approximation.M.device
    errors, total, squares = (
        torch.zeros(d_sae, dtype=torch.float64, device=device) for _ in range(3)
    )
    cosines, overlaps, tables, done = [], [], [], 0
    k = min(TOP_K, d_sae)
    for x, measured in test.chunks():
        predicted = approximation.predict(x)
        errors += (measured - predicted).square().sum(0, dtype=torch.float64)
        total += measured.sum(0, dtype=torch.float64)
        squares += measured.double().square().sum(0)
        cosines.append(torch.nn.functional.cosine_similarity(predicted, measured, dim=1))
        overlaps.append(_overlap(predicted, measured, k))
        rows = test.rows[done : done + len(x)]
        tables += _points(
            predicted, measured, rows, SAMPLED_POINTS * len(x) // len(test.rows), generator
        )
        done += len(x)
    spread = squares - total.square() / done
    # a latent that never moves has nothing to predict; rounding leaves its spread a little off zero
    moves = spread > 1e-12 * squares.clamp_min(1e-30)
    per_latent = 1 - errors[moves] / spread[moves]
    ceiling = None if noise is None else (1 - noise.to(spread) * done / spread).clamp(0, 1)
    metrics = {
        "r2": float(1 - errors.sum() / spread.sum()) if moves.any() else None,
        "r2_median": float(per_latent.median()) if moves.any() else None,
        "r2_ceiling": None
        if noise is None or not moves.any()
        else _ceiling(noise.to(spread) * done, spread),
        "cosine": float(torch.cat(cosines).mean()),
        "top_k": k,
        "top_k_overlap": float(torch.cat(overlaps).mean()),
    }
    return Score(
        metrics, _by_latent(errors / done, spread / done, moves, ceiling), pl.concat(tables)
    )


def _ceiling(noise: Tensor, spread: Tensor) -> float | None:
    """Over all latents; None where a standard error is not a number."""
    share = float(noise.sum() / spread.sum())
    return min(max(1 - share, 0.0), 1.0) if math.isfinite(share) else None


def _by_latent(
    error: Tensor, variance: Tensor, moves: Tensor, ceiling: Tensor | None
) -> pl.DataFrame:
    error, variance, moves = error.cpu(), variance.clamp_min(0).cpu(), moves.cpu()
    columns = {
        "latent": range(len(error)),
        "r2": (1 - error / variance).numpy(),
        "measured_std": variance.sqrt().numpy(),
        "rmse": error.sqrt().numpy(),
        "r2_ceiling": np.full(len(error), np.nan) if ceiling is None else ceiling.cpu().numpy(),
    }
    moving = pl.Series(moves.numpy())
    table = pl.DataFrame(columns, schema=LATENTS_SCHEMA)
    return table.with_columns(
        r2=pl.when(moving).then("r2"),
        r2_ceiling=pl.when(moving).then(pl.col("r2_ceiling").fill_nan(None)),
    )


def _overlap(predicted: Tensor, measured: Tensor, k: int) -> Float[Tensor, " rows"]:
    """Share of the k latents with the largest measured effects that are among the k with the
    largest predicted ones."""
    chosen = torch.zeros_like(predicted, dtype=torch.bool).scatter_(
        1, predicted.topk(k, 1).indices, True
    )
    return chosen.gather(1, measured.topk(k, 1).indices).float().mean(1)


def _points(
    predicted: Tensor,
    measured: Tensor,
    rows: NDArray[np.int64],
    sampled: int,
    generator: np.random.Generator,
) -> list[pl.DataFrame]:
    d_sae = predicted.shape[1]
    sampled = min(sampled, predicted.numel())
    flat = np.sort(generator.choice(predicted.numel(), size=sampled, replace=False))
    top = measured.topk(min(TOP_POINTS_PER_ROW, d_sae), dim=1).indices.cpu().numpy()
    top_flat = (np.arange(len(rows))[:, None] * d_sae + top).ravel()
    return [
        pl.DataFrame(
            {
                "row": rows[index // d_sae],
                "latent": index % d_sae,
                "predicted": predicted.flatten().cpu().numpy()[index],
                "measured": measured.flatten().cpu().numpy()[index],
                "kind": [kind] * len(index),
            },
            schema=PREDICTIONS_SCHEMA,
        )
        for kind, index in (("sample", flat), ("top", top_flat))
    ]
