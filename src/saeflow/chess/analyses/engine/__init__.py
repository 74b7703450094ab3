"""An engine's word on positions: best moves, and what others lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.engine.settings import Engine
from saeflow.config.face import Analysis

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy

ANALYSIS: Analysis[ChessStudy, Engine] = Analysis(
    key="engine", settings=Engine, outputs=lambda study, own: ["engine/evaluations.parquet"]
)
