"""What two models hold at one hook on the same text: the mean of the difference, and along which
directions it varies.

Source: Minder, Dumas et al. 2025, arXiv 2510.13900, "Narrow Finetuning Leaves Clearly Readable
    Traces in Activation Differences", for means at the first positions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from saeflow.analyses.diffing.lens import extreme_tokens
from saeflow.analyses.diffing.settings import Baselines
from saeflow.analyses.diffing.texts import Text
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel

DIFFERENCES = {
    "position": pl.Int32,
    "norm": pl.Float64,
    "base_norm": pl.Float64,
    "relative": pl.Float64,
    "split_half": pl.Float64,
    "n": pl.Int64,
}
COMPONENTS = {
    "component": pl.Int32,
    "variance": pl.Float64,
    "share": pl.Float64,
    "cosine": pl.Float64,
}
LENS = {
    "kind": pl.String,
    "number": pl.Int32,
    "side": pl.String,
    "rank": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "weight": pl.Float64,
}


class Differences(NamedTuple):
    """Means of what the tuned model holds less what the base holds.

    Attributes:
        mean: over all positions that count.
        by_position: at the first positions after BOS; zero where none counts.
        components: principal directions of the difference about its mean, unit norm, the largest
            variance first.
        table: the columns of `DIFFERENCES`; position null is all.
        spectrum: the columns of `COMPONENTS`.
        activation_norm: the mean norm of the base's activations.
    """

    mean: Float64[Tensor, " d_model"]
    by_position: Float64[Tensor, "positions d_model"]
    components: Float64[Tensor, "components d_model"]
    table: pl.DataFrame
    spectrum: pl.DataFrame
    activation_norm: float


@torch.no_grad()
def measure_differences(text: Text, settings: Baselines) -> Differences:
    """Means and principal components of the difference, in one pass; memory does not grow with the
    text.

    Args:
        text: with the base as the first source, the tuned model as the second.
        settings: how many positions and components.

    Raises:
        SaeflowError: no position counts.
    """
    positions, d_model = settings.positions, text.sources[0].lm.d_model
    # Of two halves of the blocks: the first positions, then all.
    sums = torch.zeros(2, positions + 1, d_model, dtype=torch.float64)
    counts = torch.zeros(2, positions + 1, dtype=torch.float64)
    norms = torch.zeros(positions + 1, dtype=torch.float64)
    products = torch.zeros(d_model, d_model, dtype=torch.float64)
    for passed in text.passes():
        difference = (passed.x[:, 1] - passed.x[:, 0]).double().cpu()
        size = passed.x[:, 0].double().norm(dim=1).cpu()
        half = torch.from_numpy(passed.block() % 2)
        place = passed.kept.nonzero()[:, 1].cpu() - 1
        products += difference.T @ difference
        for number in range(positions + 1):
            here = (
                place == number if number < positions else torch.ones_like(place, dtype=torch.bool)
            )
            norms[number] += size[here].sum()
            for side in (0, 1):
                own = here & (half == side)
                sums[side, number] += difference[own].sum(0)
                counts[side, number] += own.sum()
    total = counts.sum(0)
    if not total[-1]:
        raise SaeflowError("diffing: no position of the text counts; check activations.exclude")
    means = sums.sum(0) / total.clamp_min(1)[:, None]
    halves = sums / counts.clamp_min(1)[..., None]
    covariance = products / total[-1] - torch.outer(means[-1], means[-1])
    values, vectors = torch.linalg.eigh(covariance)
    kept = min(settings.components, d_model)
    values, components = values.flip(0).clamp_min(0), vectors.T.flip(0)[:kept]
    variance = values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    table = (
        pl.DataFrame(
            {
                "position": [*range(1, positions + 1), None],
                "norm": means.norm(dim=1).numpy(),
                "base_norm": (norms / total).numpy(),
                "relative": (means.norm(dim=1) * total / norms).numpy(),
                "split_half": _cosines(halves[0], halves[1]),
                "n": total.numpy().astype(np.int64),
            },
            schema=DIFFERENCES,
        )
        .filter(pl.col("n") > 0)
        .with_columns(pl.selectors.float().fill_nan(None))
    )
    spectrum = pl.DataFrame(
        {
            "component": range(kept),
            "variance": values[:kept].numpy(),
            "share": (values[:kept] / variance).numpy(),
            "cosine": _cosines(components, means[-1].expand_as(components)),
        },
        schema=COMPONENTS,
    ).with_columns(pl.selectors.float().fill_nan(None))
    usual = float(norms[-1] / total[-1])
    return Differences(means[-1], means[:-1], components, table, spectrum, usual)


def _cosines(
    first: Float64[Tensor, "rows d_model"], second: Float64[Tensor, "rows d_model"]
) -> Float64[np.ndarray, " rows"]:
    """Of directions row by row; NaN where one is zero."""
    cosines = torch.cosine_similarity(first, second, dim=1)
    whole = first.any(dim=1) & second.any(dim=1)
    return cosines.masked_fill(~whole, torch.nan).numpy()


def lens_table(lm: LanguageModel, measured: Differences, k: int) -> pl.DataFrame:
    """What mean differences and components do to the logits.

    Args:
        lm: whose unembedding is looked through.
        measured: the directions.
        k: tokens of either side.

    Returns:
        The columns of `LENS`; the number of a ``position`` is that of the position, 0 for the mean
        over all, and of a ``component`` its own. A direction that is zero, or along which nothing
        varies, has no rows.
    """
    varies = torch.from_numpy(measured.spectrum["variance"].to_numpy() > 0)
    directions: Float[Tensor, "directions d_model"] = torch.cat(
        [measured.mean[None], measured.by_position, measured.components * varies[:, None]]
    )
    first = 1 + len(measured.by_position)
    rows = []
    for token in extreme_tokens(lm, directions, k):
        component = token.direction >= first
        number = token.direction - first if component else token.direction
        rows.append(("component" if component else "position", number, *token[1:]))
    return pl.DataFrame(rows, schema=LENS, orient="row")
