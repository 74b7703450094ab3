"""Labels and tables of the analyses on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from saeflow import seals
from saeflow.artifacts import sealed, stamp
from saeflow.chess.analyses.concepts.association import ASSOCIATIONS, CONCEPTS
from saeflow.chess.analyses.concepts.example_boards import BOARDS
from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.chess.analyses.concepts.probes import PROBES
from saeflow.chess.analyses.engine.blunders import BLUNDERS, ENGINE
from saeflow.chess.analyses.interventions.interventions import INTERVENTIONS
from saeflow.chess.analyses.skill.skill import AWARENESS, SKILL
from saeflow.chess.analyses.transitions.transitions import TRANSITIONS
from saeflow.chess.games.moves import move_indices
from saeflow.chess.knowledge.concepts import Concept, Labels
from saeflow.chess.player.metrics import CHANGE_SCHEMA
from saeflow.errors import DamagedError, SaeflowError
from saeflow.tables import Schema, read_table, write_table

FINE_TUNING: Schema = {"set": pl.String, **CHANGE_SCHEMA}
TABLES: dict[str, Schema] = {
    "concepts": CONCEPTS,
    "associations": ASSOCIATIONS,
    "probes": PROBES,
    "boards": BOARDS,
    "skill": SKILL,
    "awareness": AWARENESS,
    "interventions": INTERVENTIONS,
    "transitions": TRANSITIONS,
    "engine": ENGINE,
    "blunders": BLUNDERS,
    "fine_tuning": FINE_TUNING,
}


def write_tables(directory: Path, **tables: pl.DataFrame) -> None:
    """Write tables by their names in `TABLES`, as ``<name>.parquet``."""
    for name, table in tables.items():
        write_named(directory / f"{name}.parquet", name, table)


def write_named(path: Path, name: str, table: pl.DataFrame) -> None:
    """Write one table with the columns that `TABLES` has for its name."""
    write_table(path, table, TABLES[name])


def read_named(path: Path, name: str) -> pl.DataFrame:
    """Read one table with the columns that `TABLES` has for its name.

    Raises:
        SaeflowError: the file is absent, damaged, or another table.
    """
    return read_table(path, TABLES[name])


def read_associations(path: Path) -> pl.DataFrame:
    """Read which latents tell which concepts.

    Raises:
        SaeflowError: the file is absent, damaged, or another table.
    """
    return read_table(path, ASSOCIATIONS)


def read_transitions(path: Path) -> pl.DataFrame:
    """Read from which ratings on positions are solved.

    Raises:
        SaeflowError: the file is absent, damaged, or another table.
    """
    return read_table(path, TRANSITIONS)


def save_labels(path: Path, labelled: Labelled) -> None:
    """Write studied positions and their concepts: one bit per position and concept."""
    tensors = {
        "rows": labelled.rows.astype(np.int64),
        "games": labelled.games.astype(np.int64),
        "held_out": labelled.held_out.astype(np.uint8),
        "labels": np.packbits(labelled.labels.values, axis=1, bitorder="little"),
    }
    with sealed(path) as temporary:
        save_file(
            tensors,
            temporary,
            metadata={**stamp(), "concepts": json.dumps(labelled.labels.concepts)},
        )


def load_labels(path: Path) -> Labelled:
    """Read studied positions and their concepts.

    Raises:
        SaeflowError: the file is absent or damaged.
    """
    try:
        seals.check(path)
        with safe_open(str(path), framework="numpy") as file:
            concepts = [Concept(*one) for one in json.loads(file.metadata()["concepts"])]
            rows, games, held_out, packed = map(
                file.get_tensor, ("rows", "games", "held_out", "labels")
            )
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; make it first") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: holds no labels of positions ({error})", [path]) from None
    values = np.unpackbits(packed, axis=1, count=len(concepts), bitorder="little").astype(bool)
    return Labelled(rows, games, held_out.astype(bool), Labels(concepts, values))


def best_moves(path: Path | None, fens: list[str]) -> Int64[np.ndarray, " n"] | None:
    """An engine's move in every position, -1 where it was not asked; None without a file.

    Args:
        path: a table with the columns ``fen`` and ``best``.
        fens: of the positions.

    Raises:
        SaeflowError: the file is absent, damaged, or has other columns.
    """
    if path is None:
        return None
    table = read_table(path)
    if missing := {"fen", "best"} - set(table.columns):
        raise SaeflowError(
            f"{path}: has no column {' and '.join(sorted(missing))}; name a table of evaluations"
        )
    known = table.drop_nulls("best").unique("fen", keep="first", maintain_order=True)
    by_fen = dict(zip(known["fen"], move_indices(known["best"].to_list()).tolist(), strict=True))
    return np.array([by_fen.get(fen, -1) for fen in fens], np.int64)
