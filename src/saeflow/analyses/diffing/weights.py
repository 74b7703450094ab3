"""How far apart two models' parameters are, module by module."""

from __future__ import annotations

import re

import polars as pl
import torch
from torch import nn

WEIGHTS = {
    "parameter": pl.String,
    "layer": pl.Int32,
    "module": pl.String,
    "numbers": pl.Int64,
    "base_norm": pl.Float64,
    "difference_norm": pl.Float64,
    "relative": pl.Float64,
}
LAYER = re.compile(r"\.(\d+)\.")


@torch.no_grad()
def weight_differences(base: nn.Module, tuned: nn.Module) -> pl.DataFrame:
    """Norms of the differences of all parameters that both models have in one shape.

    Args:
        base: with the modules of `transformers`.
        tuned: too.

    Returns:
        The columns of `WEIGHTS`: ``module`` is the parameter's name without its layer, ``relative``
        the norm of the difference relative to that of the base.
    """
    others = dict(tuned.named_parameters())
    rows = []
    for name, own in base.named_parameters():
        other = others.get(name)
        if other is None or other.shape != own.shape:
            continue
        layer = LAYER.search(name)
        before = float(own.double().norm())
        moved = float((other.double() - own.double()).norm())
        relative = moved / before if before else None
        module = LAYER.sub(".", name, count=1)
        number = int(layer[1]) if layer else None
        rows.append((name, number, module, own.numel(), before, moved, relative))
    return pl.DataFrame(rows, schema=WEIGHTS, orient="row")
