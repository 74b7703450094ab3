"""Plausible tables of a chess study that never ran, for the tests of figures and report."""

from __future__ import annotations

import numpy as np
import polars as pl

from saeflow.chess.analyses.blunders.blunders import BLUNDERS
from saeflow.chess.analyses.concepts.association import ASSOCIATIONS, CONCEPTS
from saeflow.chess.analyses.concepts.example_boards import BOARDS
from saeflow.chess.analyses.concepts.probes import DIFFERENCE, PROBE, PROBES
from saeflow.chess.analyses.engine.engine import ENGINE
from saeflow.chess.analyses.examples.boards import BOARDS as LATENT_BOARDS
from saeflow.chess.analyses.examples.boards import HISTOGRAM, LATENTS
from saeflow.chess.analyses.examples.boards import SQUARES as SQUARES_SCHEMA
from saeflow.chess.analyses.fine_tune.lessons import FINE_TUNING
from saeflow.chess.analyses.interventions.interventions import INTERVENTIONS
from saeflow.chess.analyses.interventions.points import SHIFTS
from saeflow.chess.analyses.interventions.points import TRANSITIONS as EDITED_TRANSITIONS
from saeflow.chess.analyses.skill.skill import AWARENESS, SKILL
from saeflow.chess.analyses.transitions.transitions import TRANSITIONS
from saeflow.chess.games.moves import SQUARES
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.player.metrics import METRICS_SCHEMA

KINDS = ("edited", "strength_1", "random", "reconstruction", "probe", "probe_of_another")
GROUPS = ("defensive_threat", "offensive_threat")
RATINGS = 11


def _filled(
    rows: list[dict[str, object]], schema: dict[str, object], saes: tuple[str, ...]
) -> pl.DataFrame:
    """The rows with the missing columns null, once per SAE."""
    table = pl.DataFrame(rows, schema=schema)
    return pl.concat([table.with_columns(sae=pl.lit(sae)) for sae in saes])


def _around(name: str, value: float, width: float = 0.05) -> dict[str, float]:
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def accuracy() -> pl.DataFrame:
    """Accuracy rises with the rating, and is best when the model is told the true one."""
    rows = []
    for rating, name in enumerate(RATING_BINS):
        for told_bin in range(RATINGS):
            top1 = 0.3 + 0.005 * rating - 0.002 * abs(told_bin - rating)
            rows.append(
                {
                    "rating_bin": rating, "ratings": name, "told": told_bin, "n": 2000, "games": 100,
                    **_around("top1", top1, 0.02), "top3": top1 + 0.2, "loss": 2.4 - top1,
                    **_around("gain", -0.002 * abs(told_bin - rating), 0.004), "illegal": 0.01,
                    "loss_uniform": 3.3, "top1_uniform": 0.05, "loss_frequent": 3.0,
                    "top1_frequent": 0.1,
                }
            )  # fmt: skip
    return pl.DataFrame(rows, schema=METRICS_SCHEMA)


def associations(saes: tuple[str, ...] = ("main",)) -> pl.DataFrame:
    """Areas rise along files and ranks; threats on the last rank are unknown, and pieces are in too
    few games for an interval."""
    rows: list[dict[str, object]] = []
    for family in (*GROUPS, "piece"):
        for square, name in enumerate(SQUARES[:56]):
            concept = f"their_rook_on_{name}" if family == "piece" else f"{family}_{name}"
            auc = 0.55 + 0.4 * (square % 8 + square // 8) / 14
            keys = {
                "concept": concept,
                "family": family,
                "square": square,
                "direction": 1,
                "rank": 0,
            }
            rows.append(
                {**keys, "latent": square, "auc_selection": auc, "q": 0.001, "p": 0.001}
                | ({"auc": auc} if family == "piece" else _around("auc", auc))
            )
            rows.append(
                {**keys, "direction": -1, "latent": square, "auc": 0.1, "auc_selection": 0.1}
            )
            rows.append({**keys, "rank": 1, "latent": square + 1, "auc": 0.5, "auc_selection": 0.5})
    rows.append(
        {
            "concept": "in_check",
            "family": "strategic",
            "square": -1,
            "direction": 1,
            "rank": 0,
            "auc": 0.99,
        }
    )
    return _filled(rows, ASSOCIATIONS, saes)


def skill(saes: tuple[str, ...] = ("main",)) -> pl.DataFrame:
    """Awareness is level, willingness and accuracy rise."""
    rows: list[dict[str, object]] = []
    for group in GROUPS:
        for rating in range(RATINGS):
            values = {"activation": 1.0, "awareness": 0.85, "control_awareness": 0.5}
            values |= {"willingness": 0.2 + 0.04 * rating, "accuracy": 0.3 + 0.06 * rating}
            row: dict[str, object] = {
                "group": group,
                "rating": rating,
                "n": 500,
                "n_games": 200,
                "n_needed": 150,
            }
            for name, value in values.items():
                row |= _around(name, value)
            rows.append(row)
    return _filled(rows, SKILL, saes)


def awareness(saes: tuple[str, ...] = ("main",)) -> pl.DataFrame:
    """Concepts differ in how willingness rises; one is unknown at an end."""
    generator = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for group in GROUPS:
        for square in range(24):
            row: dict[str, object] = {
                "group": group,
                "concept": f"{group}_{SQUARES[square]}",
                "square": square,
                "n": 40,
            }
            row |= _around("awareness_change", generator.normal(0, 0.03))
            row |= _around("willingness_change", generator.normal(0.3, 0.1))
            rows.append(row)
    rows.append({"group": GROUPS[0], "concept": "defensive_threat_h8", "square": 63, "n": 12})
    return _filled(rows, AWARENESS, saes)


def interventions(saes: tuple[str, ...] = ("main",)) -> pl.DataFrame:
    """The edit helps where the concept is needed; controls do nothing; one rating is skipped."""
    rows: list[dict[str, object]] = []
    for group in GROUPS:
        for rating in range(RATINGS - 1):
            for kind in KINDS:
                for cases in ("needs", "missed", "unneeded", "absent"):
                    gain = (
                        {"needs": 0.25, "missed": 0.4, "unneeded": -0.05, "absent": 0.0}[cases]
                        if kind in ("edited", "probe")
                        else 0.0
                    )
                    keys = {
                        "group": group,
                        "rating": rating,
                        "split": "report",
                        "kind": kind,
                        "set": cases,
                        "n": 200,
                        "mode": None if kind == "reconstruction" else "add",
                        "strength": 2.0,
                        "latents": 0 if "probe" in kind else 1,
                    }
                    half = 0.0 if kind == "strength_1" else 0.04
                    right = _around("right_gain", gain / 2, half)
                    rows.append({**keys, **_around("gain", gain, half), **right})
            keys = {
                "group": group,
                "rating": rating,
                "split": "selection",
                "kind": "edited",
                "set": "needs",
            }
            rows.append({**keys, **_around("gain", 0.9)})
        rows.append({"group": group, "rating": RATINGS - 1, "skipped": "only 3 positions"})
    return _filled(rows, INTERVENTIONS, saes)


def edited_transitions(saes: tuple[str, ...] = ("main",)) -> pl.DataFrame:
    """Of four positions per group two are solved from the weakest rating on under the edit, and
    none without it."""
    before: list[int | None] = [1, 3, None, 9]
    after: dict[str, list[int | None]] = {
        "edited": [0, 0, None, 9], "random": [1, 4, None, 9], "probe": [0, 2, 5, 9],
        "probe_of_another": [1, 3, None, 9],
    }  # fmt: skip
    rows: list[dict[str, object]] = [
        {
            "group": group, "kind": kind, "draw": 0, "case": case, "fen": MATE, "right": "h5f7",
            "before": before[case], "after": ends[case],
        }
        for group in GROUPS for kind, ends in after.items() for case in range(4)
    ]  # fmt: skip
    return _filled(rows, EDITED_TRANSITIONS, saes)


def shifts(saes: tuple[str, ...] = ("main",)) -> pl.DataFrame:
    """The numbers of `edited_transitions`."""
    shares = {"edited": (0.5, 0.0), "random": (0.0, 0.25), "probe": (0.75, 0.0),
              "probe_of_another": (0.0, 0.0)}  # fmt: skip
    rows: list[dict[str, object]] = [
        {
            "group": group, "kind": kind, "n": 4, "n_games": 4, **_around("earlier", earlier),
            **_around("later", later), **_around("solved_before", 0.75),
            **_around("solved_after", 1.0 if kind == "probe" else 0.75),
        }
        for group in GROUPS for kind, (earlier, later) in shares.items()
    ]  # fmt: skip
    return _filled(rows, SHIFTS, saes)


MATE = "r1bqkbnr/pppp1ppp/2n5/4p2Q/2B1P3/8/PPPP1PPP/RNB1K1NR w KQkq - 4 4"


def concepts() -> pl.DataFrame:
    """What was counted of every concept of `associations`; threats on the last rank were too
    rare."""
    rows: list[dict[str, object]] = []
    counts = {
        "positives": 40,
        "negatives": 960,
        "held_out_positives": 60,
        "held_out_negatives": 1140,
    }
    for family in (*GROUPS, "piece"):
        for square, name in enumerate(SQUARES):
            concept = f"their_rook_on_{name}" if family == "piece" else f"{family}_{name}"
            skipped = "no position has it" if square >= 56 else None
            rows.append(
                {
                    "concept": concept,
                    "family": family,
                    "square": square,
                    **counts,
                    "skipped": skipped,
                }
            )
    rows.append({"concept": "in_check", "family": "strategic", "square": -1, **counts})
    return pl.DataFrame(rows, schema=CONCEPTS)


def probes() -> pl.DataFrame:
    """A probe does better than any latent, a difference of means about as well."""
    kept = concepts().filter(pl.col("skipped").is_null())
    rows: list[dict[str, object]] = []
    for concept, family, square in kept.select("concept", "family", "square").iter_rows():
        for method, auc in ((PROBE, 0.97), (DIFFERENCE, 0.8)):
            rows.append(
                {
                    "concept": concept,
                    "family": family,
                    "square": square,
                    "method": method,
                    "auc": auc,
                }
            )
    return pl.DataFrame(rows, schema=PROBES)


def boards() -> pl.DataFrame:
    """Two positions of a concept of a square, one of a concept of the whole board."""
    keys = {"fen": MATE, "move": "h5f7", "rating": 5}
    threat = {
        **keys,
        "concept": "offensive_threat_f7",
        "family": "offensive_threat",
        "square": 53,
        "latent": 53,
    }
    check = {
        **keys,
        "concept": "in_check",
        "family": "strategic",
        "square": -1,
        "latent": 7,
        "place": 0,
    }
    return pl.DataFrame(
        [
            {**threat, "place": 0, "activation": 4.25, "holds": True},
            {**threat, "place": 1, "activation": 3.5, "holds": False},
            {**check, "activation": 2.0, "holds": False},
        ],
        schema=BOARDS,
    )


def latents() -> pl.DataFrame:
    """Latents of which all but the last two fire; the more a latent's number, the rarer."""
    rows = [
        {"latent": latent, "density": 0.2 / (1 + latent), "maximum": 4.0 + latent,
         "mean_active": 1.5, "games": 90 - latent}
        for latent in range(62)
    ] + [{"latent": latent, "density": 0.0, "games": 0} for latent in (62, 63)]  # fmt: skip
    return pl.DataFrame(rows, schema=LATENTS)


def latent_boards() -> pl.DataFrame:
    """Of each latent two strongest positions, and one from either half of its range."""
    rows = [
        {"latent": latent, "group": group, "rank": rank, "activation": share * (4.0 + latent),
         "fen": MATE, "move": "h5f7", "rating": 3}
        for latent in range(62)
        for group, rank, share in (("top", 0, 1.0), ("top", 1, 0.9), ("q1", 0, 0.2), ("q4", 0, 0.8))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=LATENT_BOARDS)


def histogram() -> pl.DataFrame:
    """Few strong activations and many weak ones."""
    rows = [
        {"latent": latent, "low": 0.0, "high": 4.0 + latent, "counts": [60, 20, 5, 0, 2]}
        for latent in range(62)
    ]
    return pl.DataFrame(rows, schema=HISTOGRAM)


def squares() -> pl.DataFrame:
    """A latent goes with a rook of the opponent on the square of its number, and not with a queen
    of the player on a1."""
    numbers = {"positions": 300, "mean_with": 2.0, "mean_without": 0.1}
    rows: list[dict[str, object]] = []
    for latent in range(62):
        rook = {"concept": f"their_rook_on_{SQUARES[latent]}", "square": latent}
        rows += [
            {"latent": latent, **rook, **numbers, "correlation": 0.6},
            {"latent": latent, **rook, "concept": f"their_pawn_on_{SQUARES[latent]}", **numbers,
             "correlation": 0.1},
            {"latent": latent, "concept": "my_queen_on_a1", "square": 0, **numbers,
             "correlation": -0.25},
            {"latent": latent, "concept": "my_king_on_a1", "square": 0, **numbers},
        ]  # fmt: skip
    return pl.DataFrame(rows, schema=SQUARES_SCHEMA)


def transitions() -> pl.DataFrame:
    """Four positions, of which one is solved from some rating upwards."""
    kinds = ("always", "transition", "irregular", "always")
    return pl.DataFrame(
        [
            {"row": row, "fen": MATE, "kind": kind, "by_chance": 0.02}
            for row, kind in enumerate(kinds)
        ],
        schema=TRANSITIONS,
    )


def engine() -> pl.DataFrame:
    """What an engine says of three positions."""
    keys = {"split": "eval", "fen": MATE, "best": "h5f7", "engine": "Fishy 1"}
    return pl.DataFrame(
        [{**keys, "row": row, "move": "a2a3", "loss": 3.0 * row} for row in range(3)], schema=ENGINE
    )


def blunders() -> pl.DataFrame:
    """Two moves that were played, and one that the model chose."""
    sources = {"source": ["played", "played", "transition"]}
    return (
        engine()
        .with_columns(**{name: pl.Series(values) for name, values in sources.items()})
        .select(*BLUNDERS)
    )


def fine_tuning() -> pl.DataFrame:
    """Blunders are learned from, and ordinary positions are answered a little worse."""
    rows: list[dict[str, object]] = []
    for cases, gain in (("blunders", 0.2), ("ordinary", -0.01)):
        for rating, name in ((None, "all"), (5, RATING_BINS[5])):
            keys = {"set": cases, "rating_bin": rating, "ratings": name, "n": 50, "games": 9}
            values = {
                **_around("top1_before", 0.3),
                **_around("top1_after", 0.3 + gain),
                **_around("gain", gain),
            }
            rows.append({**keys, **values, "loss_before": 2.1, "loss_after": 2.0})
    return pl.DataFrame(rows, schema=FINE_TUNING)


def tables() -> dict[str, pl.DataFrame]:
    """The tables that figures name, by their paths, as they are read."""
    return {
        "models/{model}.accuracy.parquet": accuracy(),
        "concepts/{sae}/associations.parquet": associations(),
        "skill/{sae}/skill.parquet": skill(),
        "skill/{sae}/awareness.parquet": awareness(),
        "interventions/{sae}/interventions.parquet": interventions(),
        "interventions/{sae}/transitions.parquet": edited_transitions(),
    }
