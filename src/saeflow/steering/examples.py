"""What a model and an SAE hold of a goal's example texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.models.running import capture

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE


class Examples(NamedTuple):
    """Activations of some texts without their BOS."""

    mean: Float[Tensor, "texts d_model"]
    """Over the tokens of every text; float32."""
    last: Float[Tensor, "texts d_model"]
    """Of every text's last token."""
    latents: Float[Tensor, "texts d_sae"]
    """Mean value of every latent over the tokens of every text; float64."""
    peak: Float[Tensor, " d_sae"]
    """Largest value of every latent on any token."""


@torch.no_grad()
def read_examples(lm: LanguageModel, sae: SAE, hook: str, texts: Sequence[str]) -> Examples:
    """Run texts up to the hook, one by one, so that none sees padding.

    Args:
        lm: the model.
        sae: reads at ``hook``.
        hook: where activations are taken.
        texts: at least one.

    Raises:
        SaeflowError: a text without tokens, or one that is longer than the model's context.
    """
    mean, last, latents, peak = [], [], [], []
    for text in texts:
        resid = _residual(lm, hook, text)
        values = sae.encode(resid)
        mean.append(resid.mean(0).cpu())
        last.append(resid[-1].cpu())
        latents.append(values.mean(0, dtype=torch.float64).cpu())
        peak.append(values.amax(0).cpu())
    return Examples(torch.stack(mean), torch.stack(last), torch.stack(latents), torch.stack(peak).amax(0))


@torch.no_grad()
def bos_latents(lm: LanguageModel, sae: SAE, hook: str, peak: Float[Tensor, " d_sae"]) -> Bool[Tensor, " d_sae"]:
    """Latents that are more active on BOS than on any token of the examples.

    Args:
        lm: the model.
        sae: reads at ``hook``.
        hook: where activations are taken.
        peak: largest value of every latent on the examples.
    """
    resid = capture(lm, torch.tensor([[lm.bos_id]], device=lm.device), [hook])[hook]
    return sae.encode(resid[0, 0].float()).cpu() > peak


def _residual(lm: LanguageModel, hook: str, text: str) -> Float[Tensor, "pos d_model"]:
    """Activations of a text without its BOS, float32."""
    tokens = lm.tokenize(text)
    if len(tokens) < 2:
        raise SaeflowError(f"steering: the example {text!r} has no tokens; write some text")
    if len(tokens) > lm.context:
        raise SaeflowError(
            f"steering: the example {text[:40]!r}… has {len(tokens)} tokens and the model's context is "
            f"{lm.context}; shorten it"
        )
    return capture(lm, torch.tensor([tokens], device=lm.device), [hook])[hook][0, 1:].float()
