"""Writes the files of a study of chess that never ran, for the tests of its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import chess_tables as made
import figure_tables
import polars as pl
import yaml
from studies import study_config

from saeflow.chess.study import ChessStudy
from saeflow.config.sections import Figures
from saeflow.figures.figure import declared
from saeflow.figures.io import read_tables, write_figure
from saeflow.kinds import check_any_study

FIGURES = {figure.name: figure for figure in declared(ChessStudy, ChessStudy.analyses)}
SAES = ("resid", "mlp")
STAGES = pl.DataFrame(
    {
        "rule": ["associate_concepts", "write_report"],
        "jobs": [2, 1],
        "seconds": [34.6, 9.9],
        "cpu_seconds": [30.2, 1.5],
        "peak_mb": [589.0, 300.0],
    }
)


def write_chess_study(root: Path, figures: Sequence[str] = tuple(FIGURES)) -> None:
    """Write every file that the report of a study of chess can show."""
    study = study_config("reported-chess")
    _text(
        root / "config.yaml",
        yaml.safe_dump(check_any_study(study).model_dump(mode="json"), sort_keys=False),
    )
    _text(
        root / "provenance.json",
        json.dumps({"python": "3.11", "machine": "Linux", "commit": "abc"}),
    )
    games = pl.DataFrame({"game": ["a", "a", "b"], "fen": [made.MATE] * 3})
    _table(root / "games/positions.parquet", games)
    _table(root / "transitions/transitions.parquet", made.transitions())
    _table(root / "engine/evaluations.parquet", made.engine())
    _table(root / "blunders/blunders.parquet", made.blunders())
    _table(root / "fine_tune/accuracy.parquet", made.fine_tuning())
    _table(root / "models/maia2-mini.accuracy.parquet", made.accuracy())
    for sae in SAES:
        for name in ("concepts", "probes", "boards"):
            _table(root / "concepts" / sae / f"{name}.parquet", getattr(made, name)())
        for key, name in (
            ("concepts", "associations"),
            ("skill", "skill"),
            ("skill", "awareness"),
            ("interventions", "interventions"),
            ("interventions", "shifts"),
        ):
            _table(root / key / sae / f"{name}.parquet", getattr(made, name)().drop("sae"))
        for name, table in (
            ("latents", made.latents()),
            ("boards", made.latent_boards()),
            ("histogram", made.histogram()),
            ("squares", made.squares()),
        ):
            _table(root / "examples" / sae / f"{name}.parquet", table)
        edited = made.edited_transitions().drop("sae")
        _table(root / "interventions" / sae / "transitions.parquet", edited)
        _table(root / f"saes/{sae}/training.parquet", figure_tables.sae_training().drop("sae"))
        _text(root / f"saes/{sae}/cfg.json", json.dumps({"d_in": 96, "d_sae": 64}))
        metrics = {"explained_variance": 0.79, "agreement": 0.483, "l0": 41.4, "kl": 0.42}
        _text(root / f"saes/{sae}/metrics.json", json.dumps(metrics))
    files = [path for path in root.rglob("*") if path.is_file()]
    for name in figures:
        tables = read_tables(FIGURES[name], root, files)
        write_figure(FIGURES[name], tables, Figures(), root / "figures")


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _table(path: Path, table: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)
