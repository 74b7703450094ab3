"""Columns of the stage's tables; apart, so that readers of a table need not load torch."""

import polars as pl

COMPLETIONS_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "goal": pl.String,
    "method": pl.String,
    "scale": pl.Float64,
    "scale_index": pl.Int64,
    "prompt": pl.String,
    "sample": pl.Int64,
    "seed": pl.Int64,
    "completion_id": pl.String,
    "text": pl.String,
    "continuation": pl.String,
    "prompt_ids": pl.List(pl.Int32),
    "continuation_ids": pl.List(pl.Int32),
    "ended": pl.Boolean,
}
SEARCHED_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    **COMPLETIONS_SCHEMA,
    "layer": pl.Int64,
}
"""The ``layer`` behind which the vector is added."""
PROMPTS_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "prompt": pl.String,
    "given": pl.String,
    "given_ids": pl.List(pl.Int32),
}
CAPABILITY_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "goal": pl.String,
    "method": pl.String,
    "scale": pl.Float64,
    "scale_index": pl.Int64,
    "measure": pl.String,
    "item": pl.Int64,
    "value": pl.Float64,
}
