"""What a model and an SAE hold of a goal's example texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.models.running import capture

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.subject import Subject


class ExampleActivations(NamedTuple):
    """Activations of some texts without their BOS."""

    mean: Float[Tensor, "texts d_model"]
    """Over the tokens of every text; float32."""
    last: Float[Tensor, "texts d_model"]
    """Of every text's last token."""
    latents: Float[Tensor, "texts d_sae"]
    """Mean value of every latent over the tokens of every text; float64."""
    peak: Float[Tensor, " d_sae"]
    """Largest value of every latent on any token."""
    tokens: Int[Tensor, " texts"]
    """Tokens of every text."""
    fired: Int[Tensor, "texts d_sae"]
    """On how many of them every latent fires."""
    particular: Int[Tensor, " texts"]
    """Of these tokens, those that stand in none of the texts that this was read against."""
    hits: Int[Tensor, "texts d_sae"]
    """On how many of those every latent fires."""


@torch.no_grad()
def read_examples(
    subject: Subject, texts: Sequence[str], against: Sequence[str] = ()
) -> ExampleActivations:
    """Run texts up to the hook, one by one, so that none sees padding.

    Args:
        subject: the model, and the SAE that reads its activations.
        texts: at least one.
        against: texts whose tokens are particular to none of ``texts``.

    Raises:
        SaeflowError: a text without tokens, or one that is longer than the model's context.
    """
    others = {token for text in against for token in subject.lm.tokenize(text)}
    common = torch.tensor(sorted(others), dtype=torch.int64)
    mean, last, latents, peak, tokens, fired, particular, hits = (
        [] for _ in ExampleActivations._fields
    )
    for text in texts:
        ids, read = residuals(subject.lm, [subject.hook], text)
        resid = read[subject.hook]
        values = subject.sae.encode(resid)
        own, active = ~torch.isin(ids, common), (values > 0).cpu()
        mean.append(resid.mean(0).cpu())
        last.append(resid[-1].cpu())
        latents.append(values.mean(0, dtype=torch.float64).cpu())
        peak.append(values.amax(0).cpu())
        tokens.append(torch.tensor(len(ids)))
        fired.append(active.sum(0, dtype=torch.int32))
        particular.append(own.sum())
        hits.append(active[own].sum(0, dtype=torch.int32))
    parts = [
        torch.stack(part) for part in (mean, last, latents, peak, tokens, fired, particular, hits)
    ]
    return ExampleActivations(*parts)._replace(peak=parts[3].amax(0))


@torch.no_grad()
def bos_latents(subject: Subject, peak: Float[Tensor, " d_sae"]) -> Bool[Tensor, " d_sae"]:
    """Latents that are more active on BOS than on any token of the examples.

    Args:
        subject: the model, and the SAE that reads its activations.
        peak: largest value of every latent on the examples.
    """
    lm, hook = subject.lm, subject.hook
    resid = capture(lm, torch.tensor([[lm.bos_id]], device=lm.device), [hook])[hook]
    return subject.sae.encode(resid[0, 0].float()).cpu() > peak


def residuals(
    lm: LanguageModel, hooks: Sequence[str], text: str
) -> tuple[Int[Tensor, " pos"], dict[str, Float[Tensor, "pos d_model"]]]:
    """Tokens of a text without its BOS, and their activations at some hooks, float32.

    Raises:
        SaeflowError: a text without tokens, or one that is longer than the model's context.
    """
    tokens = lm.tokenize(text)
    if len(tokens) < 2:
        raise SaeflowError(f"steering: the example {text!r} has no tokens; write some text")
    if len(tokens) > lm.context:
        raise SaeflowError(
            f"steering: the example {text[:40]!r}… has {len(tokens)} tokens and the model's "
            f"context is {lm.context}; shorten it"
        )
    read = capture(lm, torch.tensor([tokens], device=lm.device), hooks)
    return torch.tensor(tokens[1:]), {hook: read[hook][0, 1:].float() for hook in hooks}
