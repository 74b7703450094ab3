"""A tiny language model with an SAE of its hook, for tests of steering and effects."""

from __future__ import annotations

import torch
from tiny_models import tiny_model, tiny_tokenizer

from saeflow.models.families import FAMILIES
from saeflow.models.fast_layers import with_fast_layers
from saeflow.models.language_model import LanguageModel
from saeflow.saes.sae import SAE

HOOK = "blocks.1.hook_resid_post"
D_MODEL = 32
D_SAE = 48


def tiny_lm(family: str = "llama", seed: int = 0) -> LanguageModel:
    """A random model of a family."""
    model = tiny_model(family, seed).requires_grad_(False)
    return LanguageModel(
        with_fast_layers(model), tiny_tokenizer(), FAMILIES[model.config.model_type]
    )


def tiny_sae(seed: int = 0) -> SAE:
    """A random SAE that reads the tiny models."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=generator), dim=1)
    return SAE("standard", W_dec.T.contiguous(), W_dec, torch.zeros(D_SAE), torch.zeros(D_MODEL))


def unit_rows(n: int, seed: int = 0, d_model: int = D_MODEL) -> torch.Tensor:
    """Random unit vectors ``[n, d_model]``."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.nn.functional.normalize(torch.randn(n, d_model, generator=generator), dim=1)
