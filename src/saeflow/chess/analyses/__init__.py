"""What is asked of a player and its SAEs, a folder per analysis."""

from saeflow.chess.analyses import (
    blunders,
    concepts,
    engine,
    examples,
    fine_tune,
    interventions,
    skill,
    transitions,
)

ANALYSES = (
    examples.ANALYSIS,
    concepts.ANALYSIS,
    skill.ANALYSIS,
    interventions.ANALYSIS,
    transitions.ANALYSIS,
    engine.ANALYSIS,
    blunders.ANALYSIS,
    fine_tune.ANALYSIS,
)
"""In the order of plans and reports."""
