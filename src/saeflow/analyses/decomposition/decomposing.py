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
from saeflow.analyses.decomposition.directions import Direction, load_rows, read_vector
from saeflow.analyses.decomposition.fidelity import FIDELITY, fidelity_row, occurrence_of
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


class Sources(NamedTuple):
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


def decompose_in(
    sources: Sources,
    asked: DecomposedDirections,
    settings: PursuitCurves,
    activations: Path,
    vectors: Sequence[Path],
    files: Mapping[str, Path],
    seed: int,
) -> dict[str, pl.DataFrame]:
    """Decompose every direction.

    Args:
        sources: the SAE.
        asked: which directions there are.
        settings: how they are decomposed.
        activations: of the texts of contrasts, from `directions.save_rows`.
        vectors: files of steering vectors.
        files: other files with one vector, by the name of the direction.
        seed: of the study.

    Returns:
        The tables of `SCHEMAS`.

    Raises:
        SaeflowError: a file cannot be read, or a direction is of another hook or width, or zero.
    """
    sae, rows = sources.sae, load_rows(activations, list(asked.contrasts))
    directions = [
        *(
            Direction(name, own.part(held_out=False).difference, own.part(held_out=False))
            for name, own in rows.items()
        ),
        *(_steering_direction(path, sources) for path in vectors),
        *(read_vector(path, name, sae.d_out) for name, path in files.items()),
    ]
    subject = Subject(sae, Dictionary(sae.W_dec), sources.store.mean_norm, seed)
    pieces = (sources.store.read(piece) for piece in sources.store.pieces())
    density = firing_density(sae, pieces, DENSITY_TOKENS)
    kept = []
    for direction in directions:
        if direction.rows is None:
            continue
        words = asked.contrasts[direction.name].concept
        occurrence = (
            occurrence_of(words, sources.trained_on, sources.tokenizer.decode) if words else None
        )
        held_out = rows[direction.name].part(held_out=True)
        kept.append(fidelity_row(subject, direction, held_out, settings, density, occurrence))
    return {
        "curves": curve_table(subject, directions, settings, _of_activations(sources, settings)),
        "latents": latent_table(subject, directions, settings, density),
        "stability": stability_table(subject, directions, settings),
        "encoder": encoder_table(subject, directions, settings),
        "fidelity": pl.DataFrame(kept, schema=FIDELITY),
    }


def _of_activations(sources: Sources, settings: PursuitCurves) -> Dictionary | None:
    """The dictionary of activations, if there is to be one."""
    if not (asked := settings.itda):
        return None
    store, left = sources.store, asked.tokens
    pieces = []
    for piece in store.pieces():
        pieces.append(store.read(piece)[:left])
        left -= len(pieces[-1])
        if not left:
            break
    size = asked.atoms or sources.sae.d_sae
    return Dictionary(itda(pieces, store.mean, size, asked.k, asked.error))


def _steering_direction(path: Path, sources: Sources) -> Direction:
    loaded = load_vector(path)
    if loaded.hook != sources.hook:
        raise SaeflowError(
            f"{path}: is added at {loaded.hook}, and the SAE reads {sources.hook}; name another"
        )
    vector = loaded.of_width(sources.sae.d_out).double()
    return Direction(f"{loaded.goal}/{loaded.method}", vector)


def write_tables(output: Path, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write every table of an SAE as ``<name>.parquet``."""
    for name, table in tables.items():
        write_table(output / f"{name}.parquet", table, SCHEMAS[name])
