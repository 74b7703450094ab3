"""The positions in which each latent of an SAE is active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.examples.settings import Examples
from saeflow.config.face import Analysis

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy

TABLES = ("latents", "boards", "histogram", "squares")

ANALYSIS: Analysis[ChessStudy, Examples] = Analysis(
    key="examples",
    settings=Examples,
    outputs=lambda study, own: [f"examples/{{sae}}/{table}.parquet" for table in TABLES],
)
