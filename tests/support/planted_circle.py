"""A model that goes round a circle of seven words and along a line of numbers, and nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tiny_models import tiny_language_model

from saeflow.analyses.geometry.fitting import fit_all
from saeflow.analyses.geometry.moving import move_all
from saeflow.analyses.geometry.reading import Read, read_all, save_activations
from saeflow.analyses.geometry.settings import Nulls, Points
from saeflow.models.language_model import LanguageModel

RING = ("cat", "dog", "sat", "ran", "mat", "tree", "think")
HOOK = "blocks.1.hook_resid_post"
LOW, HIGH = "on", "under"
LINE = [
    {"text": f"{first} {last}", "value": 10.0 * i + j}
    for i, last in enumerate(("the", "a", "and", "then", ".", ","))
    for j, first in enumerate(("I", "the", "a", "and", "then"))
]
AGAIN = [
    {"text": f"{first} {last}", "value": 10.0 * i + j}
    for i, last in enumerate(("the", "a", "and", "then", ".", ","))
    for j, first in enumerate(("cat", "dog", "sat"))
]
POINTS = Points.model_validate(
    {
        "groups": {
            "ring": {
                "words": list(RING),
                "templates": ["the {}", "a {}", "then I {}"],
                "prompts": [{"prompt": "the {}", "step": 1}],
            }
        },
        "lines": {
            "time": {
                "texts": {"examples": LINE},
                "block": 10,
                "read_off": {"again": {"examples": AGAIN}},
                "cause": {
                    "prompts": ["I {}"],
                    "low": LOW,
                    "high": HIGH,
                    "texts": 6,
                    "steps": [2.0],
                },
            }
        },
    }
)
NULLS = Nulls(word_orders=99, block_orders=19, draws=200, controls=3)


def planted_model() -> LanguageModel:
    """A llama whose layers add nothing: a word's embedding holds its place on the circle and on the
    line, and the unembedding reads the next word of the circle, or which end of the line it is."""
    lm = tiny_language_model("llama")
    draw = np.random.default_rng(0)
    axes = np.linalg.qr(draw.standard_normal((32, 3)))[0].T
    vocabulary = lm.tokenizer.get_vocab()
    embedding = 0.3 * draw.standard_normal((lm.d_vocab, 32))
    embedding -= embedding @ axes.T @ axes
    reading = np.zeros((lm.d_vocab, 32))
    for i, word in enumerate(RING):
        own, before = (2 * np.pi * k / len(RING) for k in (i, i - 1))
        embedding[vocabulary[word]] += 2 * (np.cos(own) * axes[0] + np.sin(own) * axes[1])
        reading[vocabulary[word]] = np.cos(before) * axes[0] + np.sin(before) * axes[1]
    for i, word in enumerate(("the", "a", "and", "then", ".", ",")):
        embedding[vocabulary[word]] += (i - 2.5) * axes[2]
    reading[vocabulary[HIGH]], reading[vocabulary[LOW]] = axes[2], -axes[2]
    with torch.no_grad():
        for block in lm.blocks:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        lm.decoder.norm.weight.fill_(1.0)
        lm.decoder.embed_tokens.weight.copy_(torch.from_numpy(embedding))
        lm.model.lm_head.weight.copy_(torch.from_numpy(5 * reading))
    return lm


@cache
def planted_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """All tables of geometry of that model.

    Args:
        folder: where its activations are written.
    """
    lm, hooks = planted_model(), [HOOK]
    save_activations(folder / "activations.safetensors", read_all(lm, POINTS, hooks, {}, 0))
    read = Read(folder / "activations.safetensors")
    moved = move_all(lm, read, POINTS, NULLS, hooks, {}, 0)
    return fit_all(read, POINTS, NULLS, hooks, 0) | moved._asdict()
