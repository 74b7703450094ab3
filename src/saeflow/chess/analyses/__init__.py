"""What is asked of a player and its SAEs, a folder per analysis."""

from saeflow.chess.analyses import (
    blunders,
    concepts,
    engine,
    fine_tune,
    interventions,
    skill,
    transitions,
)

ANALYSES = (
    concepts.ANALYSIS,
    skill.ANALYSIS,
    interventions.ANALYSIS,
    transitions.ANALYSIS,
    engine.ANALYSIS,
    blunders.ANALYSIS,
    fine_tune.ANALYSIS,
)
"""In the order of plans and reports."""
