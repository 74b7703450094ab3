"""What the rules of decompositions say of a study."""

from __future__ import annotations

from typing import Any, Literal

from saeflow.analyses import Study
from saeflow.workflow import Workflow


def named_files(flow: Workflow[Study], what: Literal["texts", "files"]) -> dict[str, str]:
    """The files of contrasts, or those with one vector, by the name of the direction."""
    if not (own := flow.study.decomposition):
        return {}
    asked = own.directions
    named: dict[str, str | None] = dict(asked.files)
    if what == "texts":
        named = {name: each.texts.path for name, each in asked.contrasts.items()}
    return {name: flow.sought(path) for name, path in named.items() if path}


def corpus_of(flow: Workflow[Study], sae: str) -> str:
    """The corpus that an SAE was trained on."""
    own = flow.study.decomposition
    elsewhere = own.directions.corpora.get(sae) if own else None
    return flow.sought(elsewhere) if elsewhere else "results/{study}/corpus/sae.safetensors"


def steering_vectors(flow: Workflow[Study]) -> list[Any]:
    """The steering vectors that are decomposed, of every goal."""
    own, steering = flow.study.decomposition, flow.study.steering
    goals = steering.goals.names if steering else []
    methods = own.directions.steering if own else []
    return [
        flow.located(f"steering/{goal}/{method}/vector.safetensors")
        for goal in goals
        for method in methods
    ]
