"""What measuring directions takes, and what it reads from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.directions import models
from saeflow.analyses.directions.settings import Directions
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan, key_needs

if TYPE_CHECKING:
    from saeflow.analyses import Study

PROMPT_TOKENS = 40
"""Of a prompt through a chat template, about; what is not known before prompts are tokenised."""
VALIDATION = 30
"""Prompts of a class that candidates are chosen by, about."""
POSITIONS = 4
"""Tokens that chat templates write behind what a user says, about."""
CONTROL_KINDS = 3


def work(study: Study, own: Directions, scope: Scope) -> list[StagePlan]:
    """Forward passes of candidates on validation prompts, and answers to test prompts under every
    edit."""
    layers = len(own.selection.layers or ()) or (scope.shape.n_layers if scope.shape else 0)
    places = len(own.selection.positions or ()) or POSITIONS
    named, directed = own.sources, models(study, own)
    measures = own.measures
    scored = len(named.searched) * layers * places * 3 * VALIDATION * PROMPT_TOKENS
    edits = 2 + len(measures.scales) + 2 * CONTROL_KINDS * measures.controls
    classes = 2 + (own.prompts.lookalike is not None)
    of_each = PROMPT_TOKENS + measures.new_tokens
    tried = len(named.names) * edits * classes * measures.prompts * of_each
    moved = len(named.names) * 3 * classes * measures.prompts * of_each * (len(directed) > 1)
    tokens = len(directed) * (scored + tried + len(directed) * moved)
    jobs = len(directed) * (1 + 2 * len(named.names) + (len(directed) > 1))
    what = f"{counted(len(named.names), 'direction')} of {counted(len(directed), 'model')}"
    return [StagePlan("directions", jobs, tokens, tokens * scope.flop(), 10_000_000, what)]


def needs(study: Study, own: Directions) -> list[Need]:
    """The file of prompts, of vectors, and of the goal that a judge is asked about; and the
    judge's key."""
    paths = {"directions.prompts.path": own.prompts.path} if own.prompts.path else {}
    paths |= {
        f"directions.sources.vector.{name}.path": vector.path
        for name, vector in own.sources.vector.items()
    }
    if own.judged:
        paths["directions.judged.goal"] = own.judged.goal
    files = {key: shipped_or_own(str(path)) for key, path in paths.items()}
    hosted = own.judged is not None and own.judged.judge.traits.is_hosted
    return [
        *(Need(key, str(file), file.is_file()) for key, file in files.items()),
        *key_needs(study.calls, hosted),
    ]
