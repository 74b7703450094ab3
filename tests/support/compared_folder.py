"""A folder with two models, a crosscoder of both and text."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from saeflow.config.embedded import EMBEDDED
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tales import story_blocks
from saeflow.models.language_model import load_to_train
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.io import save_crosscoder

HOOK = "blocks.1.hook_resid_post"
LATENTS = 12


def write_compared(root: Path, bias: float = 0.0, blocks: int = 6) -> Path:
    """Write ``base``, ``tuned``, ``sae`` and ``eval.safetensors`` into a folder.

    Args:
        root: the folder, which is given back.
        bias: of the crosscoder's latents: the lower, the more rarely they fire.
        blocks: of text.
    """
    shutil.copytree(EMBEDDED, root / "base")
    shutil.copytree(EMBEDDED, root / "tuned", ignore=shutil.ignore_patterns("checksums*"))
    generator = torch.Generator().manual_seed(0)
    tuned = load_to_train(EMBEDDED)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight += 0.2 * weight.std() * torch.randn(weight.shape, generator=generator)
    tuned.model.save_pretrained(root / "tuned")
    sources = [{"model": name, "hook": HOOK} for name in ("base", "tuned")]
    crosscoder = Crosscoder(
        W_enc=torch.randn(2, 64, LATENTS, generator=generator) / 8,
        W_dec=torch.randn(LATENTS, 2, 64, generator=generator) / 8,
        b_enc=torch.full((LATENTS,), bias),
        b_dec=torch.zeros(2, 64),
        scale=torch.ones(2),
        metadata={"sources": sources},
    )
    save_crosscoder(root / "sae", crosscoder)
    save_blocks(root / "eval.safetensors", story_blocks(0, "eval", blocks, 24))
    return root
