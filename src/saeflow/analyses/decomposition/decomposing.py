"""All tables of one SAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from saeflow.analyses.decomposition.curves import (
    CURVES,
    ENCODER,
    LATENTS,
    STABILITY,
    Subject,
    curve_table,
    encoder_table,
    latent_table,
    stability_table,
)
from saeflow.analyses.decomposition.directions import Direction, load_rows
from saeflow.analyses.decomposition.fidelity import FIDELITY, fidelity_row, occurrence_of
from saeflow.analyses.directions.io import read_vector
from saeflow.analyses.directions.placing import placed
from saeflow.analyses.steering.io import load_vector
from saeflow.analyses.steering.latents import DENSITY_TOKENS, firing_density
from saeflow.errors import SaeflowError
from saeflow.pursuits.dictionary import Dictionary
from saeflow.pursuits.itda import itda
from saeflow.tables import Schema, write_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from saeflow.activations.io import ActivationStore
    from saeflow.analyses.decomposition.settings import DecomposedDirections, PursuitCurves
    from saeflow.corpora.tokens import TokenBlocks
    from saeflow.saes.sae import SAE

SCHEMAS: dict[str, Schema] = {
    "curves": CURVES,
    "latents": LATENTS,
    "stability": STABILITY,
    "encoder": ENCODER,
    "fidelity": FIDELITY,
}


class Material(NamedTuple):
    """What an SAE is looked at with."""

    sae: SAE
    hook: str
    """Where it reads."""
    store: ActivationStore
    """Activations of the study's corpus at the hook."""
    trained_on: TokenBlocks
    """The corpus that the SAE was trained on."""
    tokenizer: PreTrainedTokenizerBase
    """Of the model."""


class Files(NamedTuple):
    """Where directions lie that are no contrasts of the config."""

    measured: Sequence[Path] = ()
    """direction.safetensors of `directions`."""
    steering: Sequence[Path] = ()
    """vector.safetensors of `steering`."""
    vectors: Mapping[str, Path] = {}
    """Files with one vector, by the name of the direction."""


def directions_of(
    asked: DecomposedDirections, contrasts: Path, files: Files, hook: str, d_model: int
) -> list[Direction]:
    """Everything that is decomposed.

    Args:
        asked: which directions there are.
        contrasts: activations of their texts, from `directions.save_rows`.
        files: the others.
        hook: where the SAE reads.
        d_model: the width there.

    Raises:
        SaeflowError: a file cannot be read, or a direction is of another hook or width, or zero.
    """
    rows = load_rows(contrasts, list(asked.contrasts))
    return [
        *(
            Direction(name, own.part(held_out=False).difference, own, asked.contrasts[name].concept)
            for name, own in rows.items()
        ),
        *(_measured_direction(path, asked, int(hook.split(".")[1])) for path in files.measured),
        *(_steering_direction(path, hook, d_model) for path in files.steering),
        *(
            Direction(name, read_vector(path, d_model, f"decomposition.directions.files.{name}"))
            for name, path in files.vectors.items()
        ),
    ]


def _measured_direction(file: Path, asked: DecomposedDirections, layer: int) -> Direction:
    own = placed(file, layer)
    said = own.direction.metadata
    if (texts := own.contrast) is None:
        return Direction(f"{said['model']}/{said['name']}", own.vector)
    concept = asked.measured[said["name"]].concept
    vector = texts.part(held_out=False).difference
    return Direction(f"{said['model']}/{said['name']}", vector, texts, concept)


def _steering_direction(path: Path, hook: str, d_model: int) -> Direction:
    loaded = load_vector(path)
    if loaded.hook != hook:
        raise SaeflowError(
            f"{path}: is added at {loaded.hook}, and the SAE reads {hook}; name another"
        )
    return Direction(f"{loaded.goal}/{loaded.method}", loaded.of_width(d_model).double())


def decompose_in(
    material: Material, directions: Sequence[Direction], settings: PursuitCurves, seed: int
) -> dict[str, pl.DataFrame]:
    """Decompose every direction.

    Args:
        material: the SAE.
        directions: from `directions_of`.
        settings: how they are decomposed.
        seed: of the study.

    Returns:
        The tables of `SCHEMAS`.
    """
    sae = material.sae
    subject = Subject(sae, Dictionary(sae.W_dec), material.store.mean_norm, seed)
    pieces = (material.store.read(piece) for piece in material.store.pieces())
    density = firing_density(sae, pieces, DENSITY_TOKENS)
    kept = []
    for direction in (each for each in directions if each.texts):
        words = direction.concept
        occurrence = (
            occurrence_of(words, material.trained_on, material.tokenizer.decode) if words else None
        )
        kept.append(fidelity_row(subject, direction, settings, density, occurrence))
    return {
        "curves": curve_table(subject, directions, settings, _of_activations(material, settings)),
        "latents": latent_table(subject, directions, settings, density),
        "stability": stability_table(subject, directions, settings),
        "encoder": encoder_table(subject, directions, settings),
        "fidelity": pl.DataFrame(kept, schema=FIDELITY),
    }


def _of_activations(material: Material, settings: PursuitCurves) -> Dictionary | None:
    """The dictionary of activations, if there is to be one."""
    if not (asked := settings.itda):
        return None
    store, left = material.store, asked.tokens
    pieces = []
    for piece in store.pieces():
        pieces.append(store.read(piece)[:left])
        left -= len(pieces[-1])
        if not left:
            break
    size = asked.atoms or material.sae.d_sae
    return Dictionary(itda(pieces, store.mean, size, asked.k, asked.error))


def write_tables(output: Path, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write every table of an SAE as ``<name>.parquet``."""
    for name, table in tables.items():
        write_table(output / f"{name}.parquet", table, SCHEMAS[name])
