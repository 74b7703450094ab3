"""A small measurement of effects, on a tiny model with a random SAE."""

from __future__ import annotations

import torch
from steered import HOOK, tiny_lm, tiny_sae

from saeflow.analyses.effects.measure import Experiment, prepare
from saeflow.analyses.effects.settings import Measurement, Scale
from saeflow.config.sections import Sampling
from saeflow.saes.subject import Subject

SETTINGS = Measurement(
    prompts=["", "the cat", "a dog"],
    samples=4,
    baseline_samples=6,
    new_tokens=8,
    sampling=Sampling(top_k=20),
    scale=Scale(value=0.3, tokens=64),
)
EVALUATION = torch.randint(
    2, 20, (8, 16), generator=torch.Generator().manual_seed(0), dtype=torch.int32
).numpy()
NORM = 5.0


def experiment(batch_rows: int = 32, family: str = "llama", **changes: object) -> Experiment:
    settings = SETTINGS.model_copy(update=changes)
    return prepare(
        Subject(tiny_lm(family), tiny_sae(), HOOK, 3),
        settings,
        EVALUATION,
        NORM,
        batch_rows=batch_rows,
    )


def too_large() -> Experiment:
    """Batches of 16,384 rows, which hold some 600 MB."""
    settings = Measurement(
        prompts=["ab cd"], samples=4, baseline_samples=8, new_tokens=40, scale=Scale(tokens=64)
    )
    return prepare(
        Subject(tiny_lm(), tiny_sae(), HOOK, 3), settings, EVALUATION, NORM, batch_rows=16_384
    )
