"""The vectors whose effects are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.config.sections import Effects


def vector_ids(settings: Effects, d_sae: int, block: int) -> range:
    """The ids of one block's vectors.

    Raises:
        SaeflowError: there is no such block.
    """
    count = settings.count or d_sae
    ids = range(count)[block * settings.block_size : (block + 1) * settings.block_size]
    if not ids:
        raise SaeflowError(
            f"effects: block {block} is empty; {count} vectors make {n_blocks(settings, d_sae)} blocks "
            f"of {settings.block_size}, counted from 0"
        )
    return ids


def n_blocks(settings: Effects, d_sae: int) -> int:
    """How many blocks the vectors make."""
    return -(-(settings.count or d_sae) // settings.block_size)


def candidate_vectors(
    settings: Effects, W_dec: Float[Tensor, "d_sae d_model"], ids: Sequence[int], seed: int
) -> Float[Tensor, "n d_model"]:
    """The vectors of these ids, unit norm; a vector depends on its id, not on the others.

    Args:
        settings: which kind of vectors.
        W_dec: decoder of the SAE they are taken from.
        ids: for decoder rows, the latents.
        seed: of the study.

    Raises:
        SaeflowError: a decoder row that does not exist, or a mixture of a decoder with fewer than two rows.
    """
    rows = W_dec.double().cpu()
    vectors = torch.stack([KINDS[settings.vectors](rows, index, seed) for index in ids])
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()


def _decoder(rows: Float[Tensor, "d_sae d_model"], index: int, _seed: int) -> Float[Tensor, " d_model"]:
    if index >= len(rows):
        raise SaeflowError(f"effects.count: the decoder has {len(rows)} rows and row {index} is asked for; lower count")
    return rows[index]


def _random(rows: Float[Tensor, "d_sae d_model"], index: int, seed: int) -> Float[Tensor, " d_model"]:
    return torch.from_numpy(numpy_generator(seed, "effects", "random", index).standard_normal(rows.shape[1]))


def _mixture(rows: Float[Tensor, "d_sae d_model"], index: int, seed: int) -> Float[Tensor, " d_model"]:
    """Two different rows with weights drawn from (0, 1]."""
    if len(rows) < 2:
        raise SaeflowError("effects.vectors: mixtures need a decoder of two rows or more; set vectors: random")
    generator = numpy_generator(seed, "effects", "mixtures", index)
    pair = generator.choice(len(rows), size=2, replace=False)
    weights = 1.0 - generator.random(2)
    units = rows[torch.from_numpy(pair)]
    units = units / units.norm(dim=1, keepdim=True)
    return torch.from_numpy(np.asarray(weights)) @ units


KINDS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "decoder": _decoder,
    "random": _random,
    "mixtures": _mixture,
}
