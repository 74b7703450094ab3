"""Configs of studies, and how a test changes single keys of them."""

from __future__ import annotations

import copy
from typing import Any

MISSING = object()
# Every stage of the default study, as small as it can be and still do its work.
TINY = {
    "study": "tiny",
    "corpus": {"context": 32, "tokens": {"model": 24_576, "sae": 16_384, "eval": 4_096}},
    "model": {
        "name": "tiny-lm",
        "train": {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_mlp": 64},
    },
    "hook": "blocks.0.hook_resid_post",
    "activations": {"blocks_per_shard": 256},
    "saes": {"main": {"train": {"d_sae": 48, "k": 4, "tokens": 32_768, "batch_size": 512}}},
    "effects": {
        "block_size": 24,
        "prompts": ["The"],
        "samples": 4,
        "baseline_samples": 16,
        "new_tokens": 8,
        "scale": {"tokens": 512, "steps": 4},
    },
    "goals": {"names": ["london", "love"]},
    "steering": {
        "methods": ["caa", "sae_ts", "random"],
        "scales": [0.0, 0.5, 1.0],
        "samples": 8,
        "new_tokens": 8,
    },
    "summary": {"bootstrap": 100},
}
FIGURES = 18  # of the tiny study

STUDY: dict[str, Any] = {
    "study": "small",
    "corpus": {"tokens": {"model": 64_000}},
    "model": {"name": "lm", "train": {"n_layers": 2}},
    "hook": "blocks.1.hook_resid_post",
    "saes": {"main": {"train": {"d_sae": 64}}},
    "goals": {"names": ["anger", "love"]},
}
TEXT: dict[str, Any] = {
    **STUDY,
    "corpus": {"kind": "text", "path": "stories.txt"},
    "model": {"name": "lm", "path": "checkpoint"},
    "judge": {"kind": "lexical"},
}


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with the values at dotted keys replaced, or taken out where the value is MISSING."""
    values = copy.deepcopy(base)
    for dotted, value in changes.items():
        section, keys = values, dotted.split(".")
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        if value is MISSING:
            del section[keys[-1]]
        else:
            section[keys[-1]] = value
    return values
