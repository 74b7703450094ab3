"""Where each latent is active: positions, how strongly, and the pieces that go with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

from saeflow.chess.analyses.examples.settings import Examples as Settings
from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import MOVES
from saeflow.chess.knowledge.concepts import label
from saeflow.seeds import numpy_generator
from saeflow.statistics.sparse_latents import SparseLatents
from saeflow.tables import Schema

TOP = "top"
LATENTS: Schema = {
    "latent": pl.Int32,
    "density": pl.Float64,
    "maximum": pl.Float64,
    "mean_active": pl.Float64,
    "games": pl.Int64,
}
BOARDS: Schema = {
    "latent": pl.Int32,
    "group": pl.String,
    "rank": pl.Int16,
    "activation": pl.Float64,
    "fen": pl.String,
    "move": pl.String,
    "rating": pl.Int8,
}
HISTOGRAM: Schema = {
    "latent": pl.Int32,
    "low": pl.Float64,
    "high": pl.Float64,
    "counts": pl.List(pl.Int64),
}
SQUARES: Schema = {
    "latent": pl.Int32,
    "concept": pl.String,
    "square": pl.Int8,
    "positions": pl.Int64,
    "mean_with": pl.Float64,
    "mean_without": pl.Float64,
    "correlation": pl.Float64,
}
TABLES = {"latents": LATENTS, "boards": BOARDS, "histogram": HISTOGRAM, "squares": SQUARES}


class Active(NamedTuple):
    """What is kept of where latents are active.

    Attributes:
        latents: the columns of `LATENTS`, one row per latent; ``maximum`` and ``mean_active`` are
            null of one that never fires.
        boards: those of `BOARDS`: of each latent the positions in which it is most active, one of
            a game, in the group `TOP`, and others drawn from equal parts of its range, ``q1`` the
            lowest.
        histogram: those of `HISTOGRAM`, of activations above 0.
        squares: those of `SQUARES`: of each latent and each piece on a square, the correlation of
            the activation with whether the piece stands there.
    """

    latents: pl.DataFrame
    boards: pl.DataFrame
    histogram: pl.DataFrame
    squares: pl.DataFrame


def active_positions(
    latents: SparseLatents, examples: Examples, settings: Settings, seed: int
) -> Active:
    """Look where latents are active.

    Args:
        latents: of the positions.
        examples: the positions.
        settings: of the stage.
        seed: of the study.
    """
    firing = [latent for latent in range(latents.d_sae) if (latents.of_latent(latent)[1] > 0).any()]
    return Active(
        _statistics(latents, examples.games),
        _boards(latents, firing, examples, settings, seed),
        _histogram(latents, firing, settings.bins),
        pieces_on_squares(latents, firing, examples, settings.minimum),
    )


def _statistics(latents: SparseLatents, games: Int64[np.ndarray, " n"]) -> pl.DataFrame:
    rows = []
    for latent in range(latents.d_sae):
        where, values = latents.of_latent(latent)
        above = values > 0
        fired = int(above.sum())
        mean = float(values[above].mean(dtype=np.float64)) if fired else None
        most = float(values[-1]) if fired else None  # values of a latent rise
        count = len(np.unique(games[where[above]]))
        rows.append((latent, fired / latents.n, most, mean, count))
    return pl.DataFrame(rows, schema=LATENTS, orient="row")


def _boards(
    latents: SparseLatents, firing: list[int], examples: Examples, settings: Settings, seed: int
) -> pl.DataFrame:
    shown: list[tuple[int, str, int, int, float]] = []
    for latent in firing:
        rows, values = latents.of_latent(latent)
        rows, values = rows[values > 0].astype(np.int64), values[values > 0].astype(np.float64)
        order = np.lexsort((rows, -values))
        firsts = np.unique(examples.games[rows[order]], return_index=True)[1]
        groups = {TOP: order[np.sort(firsts)[: settings.top]]}
        generator = numpy_generator(seed, "chess examples", str(latent))
        part = np.ceil(values / values.max() * settings.strata) if settings.strata else values
        for number in range(1, settings.strata + 1):
            inside = np.flatnonzero(part == number)
            groups[f"q{number}"] = np.sort(generator.permutation(inside)[: settings.per_stratum])
        shown += [
            (latent, group, rank, int(rows[at]), float(values[at]))
            for group, places in groups.items()
            for rank, at in enumerate(places)
        ]
    where = np.array([row for _, _, _, row, _ in shown], np.int64)
    part_of = examples.part(where)
    return pl.DataFrame(
        {
            "latent": [row[0] for row in shown],
            "group": [row[1] for row in shown],
            "rank": [row[2] for row in shown],
            "activation": [row[4] for row in shown],
            "fen": write_fens(part_of.boards),
            "move": [MOVES[move] for move in part_of.moves],
            "rating": part_of.rating_self,
        },
        schema_overrides=BOARDS,
    )


def _histogram(latents: SparseLatents, firing: list[int], bins: int) -> pl.DataFrame:
    rows = []
    for latent in firing:
        _, values = latents.of_latent(latent)
        counts, edges = np.histogram(values[values > 0], bins, (0.0, float(values.max())))
        rows.append((latent, 0.0, float(edges[-1]), counts.tolist()))
    return pl.DataFrame(rows, schema=HISTOGRAM, orient="row")


def pieces_on_squares(
    latents: SparseLatents, firing: list[int], examples: Examples, minimum: int
) -> pl.DataFrame:
    """How latents go with pieces on squares, in the view of the player to move.

    Args:
        latents: of the positions.
        firing: those that are active somewhere.
        examples: the positions.
        minimum: positions that must have a piece on a square, and that must not have it.

    Returns:
        The columns of `SQUARES`: Pearson's correlation of the latent with the concept of the family
        ``piece``, over all positions, zeros included; null of a latent that never changes.
    """
    labels = label(examples.boards, ["piece"])
    count = labels.values.sum(axis=0)
    kept = np.flatnonzero((count >= minimum) & (latents.n - count >= minimum))
    holds: Bool[np.ndarray, "n kept"] = labels.values[:, kept]
    matrix = sparse.csr_array(
        (latents.values.astype(np.float64), latents.rows, latents.offsets),
        shape=(latents.d_sae, latents.n),
    )[firing]
    having, n = count[kept].astype(np.float64), latents.n
    inside: Float64[np.ndarray, "firing kept"] = matrix @ holds.astype(np.float64)
    total = np.asarray(matrix.sum(axis=1)).reshape(-1, 1)
    squares = np.asarray(matrix.multiply(matrix).sum(axis=1)).reshape(-1, 1)
    spread = np.sqrt(np.maximum(n * squares - total**2, 0)) * np.sqrt(having * (n - having))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (n * inside - total * having) / spread
    pairs = len(firing) * len(kept)
    return pl.DataFrame(
        {
            "latent": np.repeat(np.array(firing, np.int32), len(kept)),
            "concept": [labels.concepts[index].name for index in kept] * len(firing),
            "square": np.tile([labels.concepts[index].square for index in kept], len(firing)),
            "positions": np.tile(count[kept], len(firing)),
            "mean_with": (inside / having).reshape(pairs),
            "mean_without": ((total - inside) / (n - having)).reshape(pairs),
            "correlation": correlation.reshape(pairs),
        }
    ).select(
        pl.col(name).fill_nan(None).cast(kind) if kind == pl.Float64 else pl.col(name).cast(kind)
        for name, kind in SQUARES.items()
    )
