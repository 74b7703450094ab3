"""Activations made of a known sparse dictionary, cached as a study's would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.activations.io import ActivationStore, shard_path, write_manifest, write_shards
from saeflow.activations.store import ActivationRows
from saeflow.config.sections import Activations

METADATA = {"hook": "blocks.1.hook_resid_post", "model": "planted"}


def planted(
    rows: int = 40_000, d_model: int = 32, features: int = 48, active: float = 2.5
) -> tuple[Tensor, Tensor]:
    """Activations ``[rows, d_model]`` and the unit directions ``[features, d_model]`` they are sums
    of."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(features, d_model, generator=generator), dim=1)
    on = torch.rand(rows, features, generator=generator) < active / features
    weights = on * (0.5 + torch.rand(rows, features, generator=generator))
    mean = torch.randn(d_model, generator=generator)
    noise = 0.02 * torch.randn(rows, d_model, generator=generator)
    return 7 * (weights @ directions + noise + mean), directions


def rows_of(activations: Tensor, first_block: int = 0) -> ActivationRows:
    """Rows with places in a text, eight to a block."""
    place = np.arange(len(activations), dtype=np.int32)
    return ActivationRows(activations, place % 90, place % 8, place // 8 + np.int32(first_block))


def cached(
    directory: Path, activations: Tensor, settings: Activations | None = None, shards: int = 3
) -> ActivationStore:
    """A finished cache of the activations."""
    settings = settings or Activations()
    paths = []
    for index, part in enumerate(torch.tensor_split(activations, shards)):
        paths.append(shard_path(directory, index, settings))
        hook = METADATA["hook"]
        write_shards({hook: paths[-1]}, [{hook: rows_of(part)}], settings, METADATA)
    write_manifest(directory, paths)
    return ActivationStore.open(directory)
