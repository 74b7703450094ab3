"""Labels on disk, and the subject of an analysis read from its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from saeflow import options, seals
from saeflow.artifacts import sealed
from saeflow.chess.analyses.concepts.association import ASSOCIATIONS
from saeflow.chess.analyses.concepts.directions import ConceptDirections
from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.chess.analyses.concepts.subject import Subject
from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.io import best_moves, load_examples
from saeflow.chess.knowledge.concepts import Concept, Labels
from saeflow.chess.options import OpenSite
from saeflow.chess.saes.reading import Read, read_site
from saeflow.errors import DamagedError, SaeflowError
from saeflow.seals import stamp
from saeflow.tables import read_table
from saeflow.tensors import metadata_of


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
            concepts = [Concept(*fields) for fields in json.loads(file.metadata()["concepts"])]
            rows, games, held_out, packed = map(
                file.get_tensor, ("rows", "games", "held_out", "labels")
            )
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; make it first") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: holds no labels of positions ({error})", [path]) from None
    values = np.unpackbits(packed, axis=1, count=len(concepts), bitorder="little").astype(bool)
    return Labelled(rows, games, held_out.astype(bool), Labels(concepts, values))


def save_directions(path: Path, directions: ConceptDirections, hook: str) -> None:
    """Write ``directions.safetensors``: ``vectors``, one row per concept and method, with the
    numbers and names of `ConceptDirections` and the hook they were read at."""
    tensors = {
        "vectors": directions.vectors,
        "without": directions.without,
        "apart": directions.apart,
    }
    names = {"concepts": directions.concepts, "methods": directions.methods, "hook": hook}
    with sealed(path) as temporary:
        save_file(tensors, temporary, metadata={**stamp(), "metadata": json.dumps(names)})


def load_directions(path: Path, hook: str) -> ConceptDirections:
    """Read ``directions.safetensors``.

    Raises:
        SaeflowError: the file is absent, damaged, or of another hook.
    """
    try:
        seals.check(path)
        with safe_open(str(path), framework="numpy") as file:
            names = metadata_of(file, path)
            vectors, without, apart = map(file.get_tensor, ("vectors", "without", "apart"))
        directions = ConceptDirections(names["concepts"], names["methods"], vectors, without, apart)
        own_hook = names["hook"]
        if not len(directions.concepts) == len(directions.methods) == len(vectors):
            raise ValueError("it names more or fewer concepts than it has directions")
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; make it first") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: holds no directions of concepts ({error})", [path]) from None
    if own_hook != hook:
        raise SaeflowError(
            f"{path}: is from hook '{own_hook}' and positions are read at '{hook}'; take one of "
            "this hook"
        )
    return directions


def read_labelled(
    site: OpenSite, positions: Path, split: str, labels: Path
) -> tuple[Examples, Labelled, Read]:
    """The studied positions, their labels, and what the site holds of each at its player's own
    rating."""

    labelled = load_labels(labels)
    examples = load_examples(positions, split).part(labelled.rows)
    beat = options.progress("read the site, positions")
    ratings = examples.rating_self.astype("int64")
    return examples, labelled, read_site(site.model, site.sae, examples.boards, ratings, beat)


def read_subject(
    site: OpenSite,
    positions: Path,
    split: str,
    labels: Path,
    associations: Path,
    engine: Path | None,
    directions: ConceptDirections | None = None,
) -> Subject:
    """What skill and interventions are studied on."""

    examples, labelled, read = read_labelled(site, positions, split, labels)
    best = best_moves(engine, write_fens(examples.boards)) if engine else None
    table = read_table(associations, ASSOCIATIONS)
    return Subject(examples, labelled, table, read.latents, best, directions)
