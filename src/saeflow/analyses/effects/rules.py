"""What the rules of effects say of a study."""

from __future__ import annotations

from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.effects.counts import block_files, vector_count
from saeflow.analyses.effects.settings import Effects
from saeflow.workflow import Workflow


def vector_source(flow: Workflow[Study], effects: Effects, sae: str) -> Any:
    """The file that the vectors to measure are taken from: one that is named, or an SAE of the
    study."""
    vectors = effects.vectors
    return vectors.path or flow.located(f"saes/{vectors.sae or sae}/sae_weights.safetensors")


def check_vectors(flow: Workflow[Study], effects: Effects) -> None:
    """Read the header of the file that the vectors are taken from, where the config names one.

    Raises:
        SaeflowError: it is not there, or holds no such vectors.
    """
    fetched = flow.is_fetched(f"effects/{flow.study.target_sae}/effects.h5")
    if effects.vectors.path and not fetched:
        vector_count(flow.study, effects)


READS = check_vectors


def effect_blocks(study: Study, effects: Effects, sae: str) -> list[str]:
    """The blocks of one SAE's effects, by which they are measured."""
    return [f"results/{study.study}/{file}" for file in block_files(study, effects, sae)]
