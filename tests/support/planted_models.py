"""Activations of two models made of planted features: of both, of one alone; and a crosscoder that
reads them, with the faults that trainings are known to have."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.saes.crosscoder import Crosscoder

BOTH, BASE_ONLY, TUNED_ONLY = 12, 3, 3


class Planted(NamedTuple):
    """Two models' activations.

    Attributes:
        x: ``[rows, 2, d_model]``.
        base, tuned: unit directions ``[features, d_model]`` in each; zero where it lacks one.
        values: of the features ``[rows, features]``.
    """

    x: Tensor
    base: Tensor
    tuned: Tensor
    values: Tensor


def planted(
    rows: int = 20_000,
    d_model: int = 32,
    exclusive: bool = True,
    rotated: bool = False,
    orthogonal: bool = False,
) -> Planted:
    """Features that fire on 6 % of the rows, between 0.5 and 1.5.

    Args:
        rows: how many.
        d_model: of either model.
        exclusive: whether each model has features of its own.
        rotated: whether the features of both have other directions in the second model.
        orthogonal: whether directions are.
    """
    generator = torch.Generator().manual_seed(0)
    features = BOTH + BASE_ONLY + TUNED_ONLY
    drawn = torch.randn(features, d_model, generator=generator)
    directions = torch.linalg.qr(drawn.T).Q.T if orthogonal else normalize(drawn, dim=1)
    base, tuned = directions.clone(), directions.clone()
    if rotated:
        tuned = tuned @ torch.linalg.qr(torch.randn(d_model, d_model, generator=generator)).Q
    if exclusive:
        base[BOTH + BASE_ONLY :] = 0
        tuned[BOTH : BOTH + BASE_ONLY] = 0
    fires = torch.rand(rows, features, generator=generator) < 0.06
    values = fires * (0.5 + torch.rand(rows, features, generator=generator))
    return Planted(torch.stack([values @ base, values @ tuned], dim=1), base, tuned, values)


LOOSE, WEAK = slice(0, 3), slice(3, 6)
"""Features of both models that `loosely` has not alike in both."""


def loosely(world: Planted) -> Planted:
    """The same where the base holds some features of both with strengths of its own, and others
    two fifths as strongly: L1 then rather pays for one model's direction than for two."""
    generator = torch.Generator().manual_seed(7)
    values = world.values.clone()
    again = 0.5 + torch.rand(values.shape, generator=generator)
    values[:, LOOSE] = (values[:, LOOSE] > 0) * again[:, LOOSE]
    values[:, WEAK] *= 0.4
    return world._replace(x=torch.stack([values @ world.base, world.x[:, 1]], dim=1))


SHRUNK, SPLIT, LEANING = 0, 1, 2
"""Features of both models that `faulty` gets wrong."""


def faulty(world: Planted) -> tuple[Crosscoder, dict[str, list[int]]]:
    """A crosscoder of orthogonal features that reads every one exactly, but keeps no direction of
    one in the base model, has two latents for another, one per model, and has one four times as
    long in one model; a last latent never fires.

    Returns:
        It, and its latents by the class that they are of.
    """
    d_model, features = world.x.shape[2], len(world.base)
    read = torch.stack([world.base, world.tuned])  # sources, features, width
    present = read.square().sum(-1).sum(0)
    encoder = (read / present[None, :, None]).permute(0, 2, 1)
    decoder = read.permute(1, 0, 2).clone()
    decoder[SHRUNK, 0] = 0
    decoder[LEANING, 0] *= 0.25
    twin = decoder[SPLIT].clone()
    decoder[SPLIT, 0], twin[1] = 0, 0
    silent = torch.ones(1, 2, d_model)
    crosscoder = Crosscoder(
        W_enc=torch.cat([encoder, encoder[:, :, SPLIT : SPLIT + 1], silent.permute(1, 2, 0)], 2),
        W_dec=torch.cat([decoder, twin[None], silent]),
        b_enc=torch.tensor([0.0] * (features + 1) + [-1e3]),
        b_dec=torch.zeros(2, d_model),
        scale=torch.ones(2),
        threshold=torch.full((features + 2,), 0.1),
    )
    classes = {
        "shared": list(range(3, BOTH)),
        "base_only": list(range(BOTH, BOTH + BASE_ONLY)),
        "tuned_only": list(range(BOTH + BASE_ONLY, features)),
        "shrunk": [SHRUNK],
        "decoupled": [SPLIT, features],
        "leaning": [LEANING],
        "dead": [features + 1],
        "elsewhere": [],
        "difference": [],
    }
    return crosscoder, classes
