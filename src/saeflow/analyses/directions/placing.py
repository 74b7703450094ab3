"""A direction at a layer of choice, with the activations that it was made of and those that it was
not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeflow.analyses.directions.candidates import unit
from saeflow.analyses.directions.io import PROMPTS, Direction, load_activations, load_direction
from saeflow.errors import SaeflowError
from saeflow.tables import read_table


class ContrastRows(NamedTuple):
    """Activations of two classes of prompts, or of two models on the same prompts."""

    activations: Float[Tensor, "texts d_model"]
    positive: Bool[Tensor, " texts"]
    held_out: Bool[Tensor, " texts"]
    """The test prompts; the others made the direction."""

    def part(self, held_out: bool) -> ContrastRows:
        """The rows that the direction is made of, or those that it is not."""
        kept = self.held_out == held_out
        return ContrastRows(self.activations[kept], self.positive[kept], self.held_out[kept])

    @property
    def difference(self) -> Float[Tensor, " d_model"]:
        """The mean of the positive rows less that of the others, float64."""
        rows = self.activations.double()
        return rows[self.positive].mean(0) - rows[~self.positive].mean(0)


class Placed(NamedTuple):
    """A direction at a layer, read at the position at which it was chosen."""

    direction: Direction
    """As it was chosen."""
    layer: int
    vector: Float[Tensor, " d_model"]
    """Unit norm, float64."""
    gap: float
    """Between the mean projections of the classes onto it."""
    contrast: ContrastRows | None
    """What it was made of; None of a vector that is as it is."""


def placed(file: Path, layer: int) -> Placed:
    """A chosen direction at any of the layers that were read.

    Args:
        file: its direction.safetensors, where a study has it: beside its model's prompts and
            activations.
        layer: after which it is wanted.

    Raises:
        SaeflowError: nothing is known of it at the layer.
    """
    direction, folder = load_direction(file), file.parent.parent
    said = direction.metadata
    prompts = read_table(folder / "prompts.parquet", PROMPTS)
    stored = load_activations(folder / "activations.safetensors")
    label, split = prompts["label"].to_numpy(), prompts["split"].to_numpy()
    learned = (split == "train") & prompts["kept"].to_numpy()
    if layer not in stored.layers or not (said["classes"] or layer == direction.layer):
        raise SaeflowError(
            f"{file}: '{said['name']}' was not read after layer {layer}; name that layer in "
            "directions.selection.layers, or a vector or latent at it"
        )
    where = (slice(None), stored.positions.index(said["position"]), stored.layers.index(layer))
    own, contrast = stored.values[where], None
    if said["classes"]:
        sides = [(label == name) & (learned | (split == "test")) for name in said["classes"]]
        values = [own] * 2
        if said["models"]:
            files = [folder.parent / name / "activations.safetensors" for name in said["models"]]
            values, sides = [load_activations(each).values[where] for each in files], sides * 2
        rows = [side.nonzero()[0] for side in sides]
        contrast = ContrastRows(
            torch.cat([each[chosen] for each, chosen in zip(values, rows, strict=True)]),
            torch.arange(sum(map(len, rows))) < len(rows[0]),
            torch.cat([torch.from_numpy(~learned[chosen]) for chosen in rows]),
        )
    if layer == direction.layer:
        return Placed(direction, layer, direction.vector.double(), direction.gap, contrast)
    assert contrast, "without classes it is at its own layer alone"
    vector = unit(contrast.part(held_out=False).difference)
    means = [own[(label == name) & learned].double().mean(0) for name in said["between"]]
    return Placed(direction, layer, vector, float(((means[0] - means[1]) @ vector).abs()), contrast)
