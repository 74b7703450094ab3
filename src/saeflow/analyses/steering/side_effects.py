"""What a goal's vectors do to every latent, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.measure import EffectBlock
from saeflow.analyses.effects.scale import STATUSES

SIDE_EFFECTS_SCHEMA = {
    "method": pl.String,
    "latent": pl.Int64,
    "predicted": pl.Float64,
    "measured": pl.Float64,
    "standard_error": pl.Float64,
    "scale": pl.Float64,
    "status": pl.String,
}
MEASURED_SCHEMA = {
    name: kind for name, kind in SIDE_EFFECTS_SCHEMA.items() if name not in ("method", "predicted")
}
"""Of one vector."""


def measured_effects(block: EffectBlock) -> list[pl.DataFrame]:
    """What each vector of a block was measured to do: one row per latent, columns
    `MEASURED_SCHEMA`."""
    d_sae = block.effects.shape[1]
    return [
        pl.DataFrame(
            {
                "latent": range(d_sae),
                "measured": block.effects[row].double().numpy(),
                "standard_error": block.standard_error[row].double().numpy(),
                "scale": [float(block.scale[row])] * d_sae,
                "status": [STATUSES[block.status[row]]] * d_sae,
            },
            schema=MEASURED_SCHEMA,
        ).with_columns(pl.col("standard_error").fill_nan(None))
        for row in range(len(block.effects))
    ]


def side_effects(
    measured: Mapping[str, pl.DataFrame],
    vectors: Float[Tensor, "n d_model"],
    approximation: Approximation,
) -> pl.DataFrame:
    """One row per method and latent, columns `SIDE_EFFECTS_SCHEMA`.

    Args:
        measured: by method, from `measured_effects`.
        vectors: of the methods, unit norm.
        approximation: predicts effects from the vectors alone.
    """
    predicted = approximation.predict(vectors).double().numpy()
    tables = [
        table.with_columns(pl.lit(method).alias("method"), pl.Series("predicted", effects))
        for (method, table), effects in zip(measured.items(), predicted, strict=True)
    ]
    return pl.concat(tables).select(*SIDE_EFFECTS_SCHEMA)
