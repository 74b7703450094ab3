"""What a goal's vectors do to every latent, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

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


def side_effects(
    methods: Sequence[str], block: EffectBlock, approximation: Approximation
) -> pl.DataFrame:
    """One row per method and latent, columns `SIDE_EFFECTS_SCHEMA`.

    Args:
        methods: that built the vectors, in the order of the block's rows.
        block: the vectors and their measured effects.
        approximation: predicts effects from the vectors alone.
    """
    predicted = approximation.predict(block.vectors).double()
    tables = [
        pl.DataFrame(
            {
                "method": [method] * block.effects.shape[1],
                "latent": range(block.effects.shape[1]),
                "predicted": predicted[row].numpy(),
                "measured": block.effects[row].double().numpy(),
                "standard_error": block.standard_error[row].double().numpy(),
                "scale": [float(block.scale[row])] * block.effects.shape[1],
                "status": [STATUSES[block.status[row]]] * block.effects.shape[1],
            },
            schema=SIDE_EFFECTS_SCHEMA,
        )
        for row, method in enumerate(methods)
    ]
    return pl.concat(tables).with_columns(pl.col("standard_error").fill_nan(None))
