"""Tables of positions on disk, written as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from saeflow import seals
from saeflow.artifacts import sealed
from saeflow.chess.games.examples import Examples, examples, join_examples
from saeflow.chess.games.moves import move_indices
from saeflow.chess.games.positions import FAULTS_TOLD, SCHEMA, Part
from saeflow.errors import DamagedError, SaeflowError
from saeflow.seals import stamp
from saeflow.tables import read_table

_ROWS_AT_ONCE = 1 << 17
_COLUMNS = ["fen", "move", "bin_self", "bin_oppo", "result", "game", "split"]


def write_positions(
    path: Path, parts: Iterable[Part], progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Write a table of positions part by part; only one part is held in memory.

    Args:
        path: a Parquet file.
        parts: as `pgn_positions` gives them.
        progress: called with the number of games so far.

    Returns:
        How many ``games`` there were, by what became of them, how many ``positions`` they gave, and
        the first few ``faults``.

    Raises:
        SaeflowError: no game gave a position, or the disk is full.
    """
    games: Counter[str] = Counter()
    faults: list[str] = []
    positions = 0
    schema = pl.DataFrame(schema=SCHEMA).to_arrow().schema
    stamped = schema.with_metadata({**(schema.metadata or {}), **stamp()})
    with (
        sealed(path) as temporary,
        pq.ParquetWriter(temporary, stamped, compression="zstd") as writer,
    ):
        for part in parts:
            games += part.counts
            faults = (faults + part.faults)[:FAULTS_TOLD]
            positions += part.positions.height
            if part.positions.height:
                writer.write_table(part.positions.to_arrow().cast(schema))
            if progress:
                progress(games.total())
        if not positions:
            reasons = (
                ", ".join(f"{count} {reason}" for reason, count in games.most_common())
                or "the file holds none"
            )
            raise SaeflowError(
                f"chess: no game gave a position ({reasons}); see `games` in the config"
            )
    return {"games": dict(sorted(games.items())), "positions": positions, "faults": faults}


def read_positions(path: Path) -> pl.DataFrame:
    """Read a table of positions.

    Raises:
        SaeflowError: the file is absent, damaged, or has other columns.
    """
    return read_table(path, SCHEMA)


def load_examples(path: Path, split: str | None = None) -> Examples:
    """The positions of one split, or all, as a model reads them; 105 bytes of memory each.

    Raises:
        SaeflowError: as `read_positions`, or the split is empty.
    """
    parts: list[Examples] = []
    games, last = 0, None
    for table in _pieces(path):
        chosen = table.filter(pl.col("split") == split) if split else table
        if chosen.height:
            part = examples(chosen)
            first = games - (chosen["game"][0] == last)  # a game may stand on both sides of the cut
            parts.append(part._replace(games=part.games + first))
            games, last = first + int(part.games[-1]) + 1, chosen["game"][-1]
    if not parts:
        raise SaeflowError(f"{path}: no position belongs to the split '{split}'; read more games")
    return join_examples(parts)


def _pieces(path: Path) -> Iterator[pl.DataFrame]:
    """A table of positions in pieces of consecutive rows."""
    try:
        seals.check(path)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=_COLUMNS):
                yield pl.DataFrame(pl.from_arrow(batch))
    except FileNotFoundError:
        raise SaeflowError(f"{path}: no such file; make it first") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedError(f"{path}: is no whole table of positions ({error})", [path]) from None


def best_moves(path: Path, fens: list[str]) -> Int64[np.ndarray, " n"]:
    """An engine's move in every position, -1 where it was not asked.

    Args:
        path: a table with the columns ``fen`` and ``best``.
        fens: of the positions.

    Raises:
        SaeflowError: the file is absent, damaged, or has other columns.
    """
    table = read_table(path)
    if missing := {"fen", "best"} - set(table.columns):
        raise SaeflowError(
            f"{path}: has no column {' and '.join(sorted(missing))}; name a table of evaluations"
        )
    said = table.drop_nulls("best").unique("fen", keep="first", maintain_order=True)
    by_fen = dict(zip(said["fen"], move_indices(said["best"].to_list()).tolist(), strict=True))
    return np.array([by_fen.get(fen, -1) for fen in fens], np.int64)
