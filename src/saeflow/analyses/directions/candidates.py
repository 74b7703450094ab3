"""Candidates of a direction: a difference of means at every position and layer, how sure each is,
and how well it tells prompts apart that it was not made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from saeflow.seeds import numpy_generator
from saeflow.statistics.areas import area_error, area_interval, areas_between, placements

GEOMETRY = {
    "position": pl.String,
    "layer": pl.Int32,
    "norm": pl.Float64,
    "activation_norm": pl.Float64,
    "norm_shuffled": pl.Float64,
    "stability": pl.Float64,
    "stability_low": pl.Float64,
    "split_half": pl.Float64,
    "split_half_shuffled": pl.Float64,
    "auc": pl.Float64,
    "auc_low": pl.Float64,
    "auc_high": pl.Float64,
    "auc_shuffled": pl.Float64,
}
TAIL = 0.05


class Material(NamedTuple):
    """What a direction is a mean, or a difference of means, of.

    Attributes:
        values: activations of prompts, or the differences of two models on them.
        on: which count positive; all where there is one class.
    """

    values: Float[Tensor, "prompts positions layers d_model"]
    on: Bool[np.ndarray, " prompts"]

    def weights(self, counts: Float64[np.ndarray, "draws prompts"]) -> Tensor:
        """The weight of every prompt in the difference, where each counts so often."""
        on = counts * self.on / np.maximum((counts * self.on).sum(1, keepdims=True), 1e-12)
        off = counts * ~self.on
        off = off / np.maximum(off.sum(1, keepdims=True), 1e-12)
        return torch.from_numpy(on - off).float()

    def differences(
        self, counts: Float64[np.ndarray, "draws prompts"]
    ) -> Float[Tensor, "draws positions layers d_model"]:
        """The differences where each prompt counts so often."""
        return torch.einsum("bn,npld->bpld", self.weights(counts), self.values)

    @property
    def difference(self) -> Float[Tensor, "positions layers d_model"]:
        """The difference of means, in float64 sums."""
        weights = self.weights(np.ones((1, len(self.on))))[0].double()
        return torch.einsum("n,npld->pld", weights, self.values.double()).float()

    def shuffled(self, generator: np.random.Generator) -> Material:
        """The same under the null: labels are exchanged; where there is one class, the signs of
        prompts are drawn anew."""
        if not self.on.all():
            return self._replace(on=generator.permutation(self.on))
        signs = torch.from_numpy(generator.choice([-1.0, 1.0], len(self.on))).float()
        return self._replace(values=self.values * signs[:, None, None, None])

    def resampled(self, generator: np.random.Generator) -> Float64[np.ndarray, " prompts"]:
        """How often each prompt counts in a bootstrap within the classes."""
        counts = np.zeros(len(self.on))
        for members in (np.flatnonzero(self.on), np.flatnonzero(~self.on)):
            if len(members):
                np.add.at(counts, generator.choice(members, len(members)), 1)
        return counts

    def halves(self, generator: np.random.Generator) -> Float64[np.ndarray, "2 prompts"]:
        """The prompts in two halves, each with half of either class."""
        first = np.zeros(len(self.on))
        for members in (np.flatnonzero(self.on), np.flatnonzero(~self.on)):
            first[generator.permutation(members)[: len(members) // 2]] = 1
        return np.stack([first, 1 - first])


class Held(NamedTuple):
    """Prompts that directions were not made of.

    Attributes:
        values: activations of the model that is edited.
        on: which are of the class that the direction points to.
        groups: of the prompts.
    """

    values: Float[Tensor, "prompts positions layers d_model"]
    on: Bool[np.ndarray, " prompts"]
    groups: Int64[np.ndarray, " prompts"]


def unit(vectors: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
    """Brought to length 1; zero stays zero."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-30)


def geometry(
    material: Material,
    held: Held,
    positions: Sequence[str],
    layers: Sequence[int],
    draws: int,
    level: float,
    seed: int,
    name: str,
) -> pl.DataFrame:
    """How large, how stable and how telling every candidate is.

    Args:
        material: of the train prompts.
        held: test prompts.
        positions: names.
        layers: numbers.
        draws: bootstraps, halves and shuffles.
        level: of the areas' intervals.
        seed: of the study.
        name: of the direction, for draws.

    Returns:
        A row per candidate, the columns of `GEOMETRY`: norm of the difference, mean norm of the
        activations, mean norm of differences with shuffled labels; mean cosine of bootstraps with
        the difference and its 5 % quantile; mean cosine of two halves, and of two halves with
        shuffled labels; the area for telling test prompts apart with its interval, and the 95 %
        quantile of the area by directions of shuffled labels.
    """
    generator = numpy_generator(seed, "directions", name, "stability")
    whole = material.difference
    counts = np.stack([material.resampled(generator) for _ in range(draws)])
    stable = cosine_similarity(material.differences(counts), whole[None], dim=-1)
    half, half_null, null_norm, null_auc = [], [], [], []
    flat = held.values.flatten(1, 2)
    for _ in range(draws):
        half.append(_between_halves(material, generator))
        null = material.shuffled(generator)
        half_null.append(_between_halves(null, generator))
        null_norm.append(null.difference.norm(dim=-1))
        along = _along(flat, unit(null.difference).flatten(0, 1))
        null_auc.append(areas_between(along[held.on], along[~held.on]))
    areas = list(_areas(_along(flat, unit(whole).flatten(0, 1)), held, level))
    highest = np.quantile(np.stack(null_auc), 1 - TAIL, axis=0)
    size = material.values.norm(dim=-1).mean(0)
    rows = [
        (
            position,
            layer,
            float(whole[p, place].norm()),
            float(size[p, place]),
            float(torch.stack(null_norm).mean(0)[p, place]),
            float(stable[:, p, place].mean()),
            float(stable[:, p, place].quantile(TAIL)),
            float(torch.stack(half).mean(0)[p, place]),
            float(torch.stack(half_null).mean(0)[p, place]),
            *areas[p * len(layers) + place],
            float(highest[p * len(layers) + place]),
        )
        for p, position in enumerate(positions)
        for place, layer in enumerate(layers)
    ]
    return pl.DataFrame(rows, schema=GEOMETRY, orient="row")


def telling(
    vector: Float[Tensor, " d_model"], held: Held, position: str, layer: int, level: float
) -> pl.DataFrame:
    """The row of `GEOMETRY` of a vector that was not made of prompts: how well it tells them apart.

    Args:
        vector: unit norm.
        held: test prompts, at its one place.
        position: where they are read.
        layer: after which they are read.
        level: of the area's interval.
    """
    ((auc, low, high),) = _areas(_along(held.values.flatten(1, 2), vector[None]), held, level)
    row = {"position": position, "layer": layer, "auc": auc, "auc_low": low, "auc_high": high}
    return pl.DataFrame([{name: row.get(name) for name in GEOMETRY}], schema=GEOMETRY)


def _between_halves(
    material: Material, generator: np.random.Generator
) -> Float[Tensor, "positions layers"]:
    first, second = material.differences(material.halves(generator))
    return cosine_similarity(first, second, dim=-1)


def _along(
    values: Float[Tensor, "prompts candidates d_model"], units: Float[Tensor, "candidates d_model"]
) -> Float64[np.ndarray, "prompts candidates"]:
    """Projections of activations onto the candidate of their place."""
    return torch.einsum("ncd,cd->nc", values.double(), units.double()).numpy()


def _areas(
    along: Float64[np.ndarray, "prompts candidates"], held: Held, level: float
) -> Iterator[tuple[float, float, float]]:
    clusters = np.unique(held.groups, return_inverse=True)[1]
    for column in along.T:
        error = area_error(placements(column, held.on), held.on, clusters)
        area = area_interval(error, level)
        yield area.auc, area.low, area.high
