"""What the examples in the docstrings of `saeflow.notebook` name: a model, an SAE, a study."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch
from tiny_models import save_tiny_model

from saeflow.saes.io import save_sae
from saeflow.saes.sae import SAE
from saeflow.tables import write_table

HOOK = "blocks.1.hook_resid_post"
D_MODEL, D_SAE, K = 32, 64, 4


def tiny_sae() -> SAE:
    """A random TopK SAE of a tiny model at `HOOK`."""
    generator = torch.Generator().manual_seed(3)
    decoder = torch.randn(D_SAE, D_MODEL, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    return SAE(
        "topk",
        W_enc=decoder.T.contiguous(),
        W_dec=decoder,
        b_enc=torch.zeros(D_SAE),
        b_dec=torch.zeros(D_MODEL),
        k=K,
        metadata={"hook_name": HOOK, "model_name": "tiny", "prepend_bos": True},
    )


def write_files(root: Path) -> None:
    """Write them below a folder."""
    save_tiny_model(root / "models" / "tiny", "llama")
    study = root / "results" / "small"
    for folder in (root / "saes" / "tiny", study / "saes" / "tiny"):
        save_sae(folder, tiny_sae())
    write_table(study / "saes" / "summary.parquet", pl.DataFrame({"sae": ["tiny"], "l0": [4.0]}))
