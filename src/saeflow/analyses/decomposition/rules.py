"""What the rules of decompositions say of a study."""

from __future__ import annotations

import json
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.decomposition.settings import Decomposition
from saeflow.analyses.directions import models
from saeflow.analyses.files import LabelledFiles
from saeflow.analyses.workflow import StudyWorkflow
from saeflow.saes.summary import trained_alike
from saeflow.workflow import Workflow, repeated


class DirectionFiles:
    """The files that directions are made of: texts of contrasts, and files with one vector."""

    def __init__(self, flow: Workflow[Study], own: Decomposition) -> None:
        asked, key = own.directions, "decomposition.directions.contrasts"
        texts = {name: contrast.texts for name, contrast in asked.contrasts.items()}
        self.files = LabelledFiles(flow, key, texts)
        self._vectors = {name: flow.sought(path) for name, path in asked.files.items()}

    @property
    def vectors(self) -> list[str]:
        """The files with one vector."""
        return list(self._vectors.values())

    def options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where the texts of each contrast lie, as the command's options."""
        return repeated("--texts", self.files.options)

    def vector_options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where each vector lies, as the command's options."""
        return repeated("--file", [f"{name}={path}" for name, path in self._vectors.items()])


READS = DirectionFiles


def pools(flow: StudyWorkflow) -> str:
    """The SAEs that differ in their seed alone, by what they are called together, as JSON: by their
    name less the seed that a sweep writes behind it."""
    described = json.loads(flow.sae_descriptions())
    decomposed = set(flow.names["decomposed_sae"])
    result = {}
    for names in trained_alike(described):
        if kept := [name for name in names if name in decomposed]:
            trained = {name: flow.study.saes[name].train for name in kept}
            stems = {
                name.removesuffix(f"-seed-{train.seed}") if train else name
                for name, train in trained.items()
            }
            result[stems.pop() if len(stems) == 1 < len(kept) else ", ".join(kept)] = kept
    return json.dumps(result)


def left_out_options(flow: Workflow[Study], sae: str) -> list[str]:
    """The words of which an SAE saw no block, as the command's options."""
    return repeated("--leave-out", flow.left_out([sae]))


def corpus_of(flow: Workflow[Study], sae: str) -> str:
    """The corpus that an SAE was trained on."""
    own = flow.study.decomposition
    elsewhere = own.directions.corpora.get(sae) if own else None
    return flow.sought(elsewhere) if elsewhere else "results/{study}/corpus/sae.safetensors"


def measured_directions(flow: Workflow[Study]) -> dict[str, list[Any]]:
    """The directions of `directions` that are decomposed, and what lies beside them."""
    own, there = flow.study.decomposition, flow.study.directions
    if not (own and there and own.directions.measured):
        return {}
    folder, edited = f"results/{flow.study.study}/directions", models(flow.study, there)
    return {
        "measured": [
            f"{folder}/{model}/{name}/direction.safetensors"
            for model in edited
            for name in own.directions.measured
        ],
        "read": [
            f"{folder}/{model}/{file}"
            for model in edited
            for file in ("prompts.parquet", "activations.safetensors")
        ],
    }


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
