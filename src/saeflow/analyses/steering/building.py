"""A goal's vectors, from files to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch

from saeflow import config, options
from saeflow.analyses.effects.io import read_approximation
from saeflow.analyses.steering.io import (
    SteeringVector,
    load_choice,
    load_contrast,
    save_vector,
)
from saeflow.analyses.steering.latents import (
    DENSITY_TOKENS,
    best_detector,
    differing_latents,
    firing_density,
    pursued_latents,
)
from saeflow.analyses.steering.methods import PLANTED, method_of
from saeflow.analyses.steering.settings import SteeringVectors
from saeflow.analyses.steering.vectors import Built, VectorInputs, build_vector, caa
from saeflow.parts import Parts
from saeflow.tables import Schema, read_table

BUILT_SCHEMA: Schema = {
    "vector": pl.List(pl.Float32),
    "norm": pl.Float64,
    "targets": pl.List(pl.Int64),
    "weights": pl.List(pl.Float64),
}
"""A vector as it is kept: one row, with the latents that it aims at and their weights."""
_MODULES = ("building", "latents", "vectors")
CODE = ("analyses/effects", "pursuits", *(f"analyses/steering/{name}.py" for name in _MODULES))


class VectorFiles(NamedTuple):
    """What vectors are built from."""

    sae: Path
    """The folder of the SAE."""
    latents: Path
    contrast: Path
    manifest: Path
    """Of the cache on which latents are counted."""
    approximator: Path | None = None
    recovery: Path | None = None
    """Which latents detect planted topics."""
    goal: Path | None = None
    """The goal's YAML file, which names its topic."""


def build_vectors(
    files: VectorFiles,
    settings: SteeringVectors,
    hook: str,
    goal: str,
    seed: int,
    output: Path,
    parts: Path | None = None,
) -> None:
    """Build the vector of every method and write it as ``<method>/vector.safetensors``.

    Args:
        files: what they are built from.
        settings: the methods, and what they obey.
        hook: where the vectors will be added.
        goal: its name.
        seed: of the study.
        output: the folder of the goal.
        parts: see `saeflow.parts.Parts`.

    Raises:
        SaeflowError: a file cannot be read, or a vector cannot be built.
    """
    weights, contrast = options.open_sae(files.sae), load_contrast(files.contrast)
    planted: dict[int, float] = {}
    if files.recovery and files.goal:
        topic = str(config.read_goal(files.goal).topic)
        planted = {best_detector(read_table(files.recovery), topic): 1.0}
    inputs = VectorInputs(
        W_dec=weights.W_dec.cpu(),
        approximation=read_approximation(files.approximator)[0] if files.approximator else None,
        targets=load_choice(files.latents).weights,
        planted=planted,
        goal=goal,
        seed=seed,
        positive=getattr(contrast, f"positive_{settings.caa_positions}"),
        negative=getattr(contrast, f"negative_{settings.caa_positions}"),
        bias_weight=settings.bias_weight,
        pinverse_form=settings.pinverse_form,
    )

    def build(method: str) -> pl.DataFrame:
        own = inputs
        if method_of(method).needs_differing:
            store = options.open_store(files.manifest)
            cached = (store.read(piece) for piece in store.pieces())
            density = firing_density(weights, cached, DENSITY_TOKENS)
            differing = differing_latents(
                contrast.difference, contrast.from_bos, density, settings.fgaa
            )
            own = replace(inputs, differing=differing, targets=differing)
        if method_of(method).pursues:
            pursued = pursued_latents(caa(inputs), inputs.W_dec, settings.pursuit)
            own = replace(inputs, pursued=pursued, targets=pursued)
        built = build_vector(method, own)
        aimed = planted if method.endswith(PLANTED) else own.targets
        return _as_table(built, aimed)

    kept = Parts(
        parts,
        "vectors",
        CODE,
        {name: tensor.numpy() for name, tensor in contrast._asdict().items()},
        [files.sae / "cfg.json", files.sae / "sae_weights.safetensors"],
        inputs.targets,
        settings.model_dump_json(exclude={"methods", "published", "source"}),
        goal,
        seed,
    )
    for method in settings.methods:
        made_from = _made_from(files, method, planted)
        built, aimed = _of_table(
            kept.table(method, BUILT_SCHEMA, made_from, partial(build, method))
        )
        vector = SteeringVector.towards(
            aimed, built.vector, hook=hook, goal=goal, method=method, norm=built.norm
        )
        save_vector(output / method / "vector.safetensors", vector)


def _made_from(files: VectorFiles, method: str, planted: dict[int, float]) -> list[Any]:
    """What one vector is built from, beside what all are."""
    definition = method_of(method)
    return [
        files.approximator if definition.needs_effects else None,
        files.manifest if definition.needs_differing else None,
        planted if method.endswith(PLANTED) else None,
    ]


def _as_table(built: Built, aimed: Mapping[int, float]) -> pl.DataFrame:
    row = {
        "vector": [built.vector.cpu().numpy()],
        "norm": [built.norm],
        "targets": [list(aimed.keys())],
        "weights": [list(aimed.values())],
    }
    return pl.DataFrame(row, schema=BUILT_SCHEMA)


def _of_table(table: pl.DataFrame) -> tuple[Built, dict[int, float]]:
    row = table.row(0, named=True)
    vector = torch.tensor(row["vector"], dtype=torch.float32)
    return Built(vector, row["norm"]), dict(zip(row["targets"], row["weights"], strict=True))
