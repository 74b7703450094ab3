"""What the rules of effects say of a study."""

from __future__ import annotations

from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.effects.counts import block_count
from saeflow.analyses.effects.settings import Effects
from saeflow.workflow import Workflow


def vector_source(flow: Workflow[Study], effects: Effects, sae: str) -> Any:
    """The file that the vectors to measure are taken from: one that is named, or an SAE of the
    study."""
    vectors = effects.vectors
    return vectors.path or flow.located(f"saes/{vectors.sae or sae}/sae_weights.safetensors")


def effect_blocks(study: Study, effects: Effects, sae: str) -> list[str]:
    """The blocks of one SAE's effects: a fixed number of vectors each."""
    folder = f"results/{study.study}/effects/{sae}/shards"
    numbers = range(block_count(study, effects))
    return [f"{folder}/block-{block:04d}.safetensors" for block in numbers]
