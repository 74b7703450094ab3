"""Which latents tell which concepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.config.face import Analysis

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy

TABLES = ("concepts", "associations", "probes", "boards")

ANALYSIS: Analysis[ChessStudy, Concepts] = Analysis(
    key="concepts",
    settings=Concepts,
    outputs=lambda study, own: [
        *(f"concepts/{{sae}}/{table}.parquet" for table in TABLES),
        "concepts/{sae}/directions.safetensors",
    ],
)
