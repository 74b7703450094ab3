"""How faithful an SAE is: to the activations, to the model's predictions, and to features that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from saeflow.activations.store import Statistics, merge, statistics
from saeflow.corpora.tokens import TokenBlocks
from saeflow.models.hooks import attach, check_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture, logits, token_losses
from saeflow.saes.sae import SAE

DENSE = 0.1  # a latent that fires on a larger share of the tokens is called dense
_ROWS_AT_ONCE = 4096

RECOVERY = {
    "label": pl.String,
    "feature": pl.String,
    "rows": pl.Int64,
    "latent_cosine": pl.Int64,
    "cosine": pl.Float64,
    "latent_f1": pl.Int64,
    "precision": pl.Float64,
    "recall": pl.Float64,
    "f1": pl.Float64,
}


class Fidelity:
    """Sums over rows of how well activations are reconstructed, in fp64 and in any number of parts."""

    def __init__(self, d_sae: int) -> None:
        self._seen: list[Statistics] = []
        self._error = self._cosine = self._ratio = 0.0
        self._firing = torch.zeros(d_sae, dtype=torch.float64)

    def add(
        self,
        x: Float[Tensor, "rows d_model"],
        reconstruction: Float[Tensor, "rows d_model"],
        latents: Float[Tensor, "rows d_sae"],
    ) -> None:
        """Take in some rows."""
        x, reconstruction = x.double(), reconstruction.double()
        self._seen = [merge([*self._seen, statistics(x)])]
        norm, length = x.norm(dim=1), reconstruction.norm(dim=1)
        tiny = torch.finfo(torch.float64).tiny
        self._error += float((x - reconstruction).square().sum())
        self._cosine += float((torch.linalg.vecdot(x, reconstruction) / (norm * length).clamp(min=tiny)).sum())
        self._ratio += float((length / norm.clamp(min=tiny)).sum())
        self._firing += (latents > 0).sum(dim=0).cpu()

    def metrics(self) -> dict[str, float]:
        """Explained variance (1 - Σ|x - x̂|² / Σ|x - mean|²; 0 for the mean itself), mse, cosine, ratio of norms, L0.

        ``mse`` is the mean over rows and dimensions; ``dead`` and ``dense`` count latents.
        """
        whole = self._seen[0]
        firing = self._firing / whole.rows
        return {
            "explained_variance": 1 - self._error / whole.scatter,
            "mse": self._error / (whole.rows * len(whole.mean)),
            "cosine": self._cosine / whole.rows,
            "l2_ratio": self._ratio / whole.rows,
            "l0": float(firing.sum()),
            "dead": int((firing == 0).sum()),
            "dense": int((firing > DENSE).sum()),
            "rows": whole.rows,
        }


@torch.no_grad()
def evaluate_sae(lm: LanguageModel, sae: SAE, hook: str, blocks: TokenBlocks, batch: int = 32) -> dict[str, float]:
    """Metrics of an SAE on held-out text.

    The model is run as it is, with the SAE's reconstruction in place of the activation, and with zero in its place; BOS
    keeps its own activation in all three, and counts in none of the metrics of activations.

    Args:
        lm: the model.
        sae: on any device; moved to the model's.
        hook: where the SAE reads.
        blocks: tokens ``[blocks, pos]``.
        batch: blocks per pass; changes the metrics only by rounding.

    Returns:
        `Fidelity.metrics`, and ``loss_clean``, ``loss_sae``, ``loss_zero`` (nats per token), ``recovered`` (share of
        the way from zero's loss to clean), ``kl`` (KL(clean ‖ spliced), nats per token), ``tokens``.

    Raises:
        SaeflowError: the hook does not exist, or the SAE reads activations of another width.
    """
    check_hook(lm, hook)
    sae = sae.to(lm.device)
    fidelity = Fidelity(sae.d_sae)
    sums = dict.fromkeys(("loss_clean", "loss_sae", "loss_zero", "kl"), 0.0)
    predicted = 0
    for start in range(0, len(blocks.tokens), batch):
        tokens = torch.from_numpy(blocks.tokens[start : start + batch]).long().to(lm.device)
        for name, value in _spliced(lm, sae, hook, tokens, fidelity).items():
            sums[name] += value
        predicted += tokens[:, 1:].numel()
    losses = {name: value / predicted for name, value in sums.items()}
    span = losses["loss_zero"] - losses["loss_clean"]
    recovered = (
        (losses["loss_zero"] - losses["loss_sae"]) / span if span else float(losses["loss_sae"] == losses["loss_clean"])
    )
    return {**fidelity.metrics(), **losses, "recovered": recovered, "tokens": blocks.tokens.size}


def _spliced(
    lm: LanguageModel, sae: SAE, hook: str, tokens: Integer[Tensor, "batch pos"], fidelity: Fidelity
) -> dict[str, float]:
    """Sums over predicted tokens of the losses and the divergence of one batch."""

    def reconstruct(x: Tensor) -> Tensor:
        latents = sae.encode(x[:, 1:])
        reconstruction = sae.decode(latents)
        fidelity.add(x[:, 1:].flatten(0, 1), reconstruction.flatten(0, 1), latents.flatten(0, 1))
        return torch.cat([x[:, :1], reconstruction.to(x.dtype)], dim=1)

    def ablate(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], dim=1)

    clean = logits(lm, tokens)
    with attach(lm, [(hook, reconstruct)]):
        spliced = logits(lm, tokens)
    with attach(lm, [(hook, ablate)]):
        zero = logits(lm, tokens)
    sums = {
        name: float(token_losses(values, tokens).double().sum())
        for name, values in (("loss_clean", clean), ("loss_sae", spliced), ("loss_zero", zero))
    }
    before, after = clean[:, :-1].float().log_softmax(-1), spliced[:, :-1].float().log_softmax(-1)
    return {**sums, "kl": float(kl_div(after, before, reduction="sum", log_target=True))}


def planted_recovery(lm: LanguageModel, sae: SAE, hook: str, blocks: TokenBlocks, batch: int = 32) -> pl.DataFrame:
    """How well latents stand for the features that label the tokens of held-out text; empty for text without labels.

    Args:
        lm: the model.
        sae: on any device.
        hook: where the SAE reads.
        blocks: tokens and labels; BOS is left out.
        batch: blocks per pass; does not change the result.

    Returns:
        The table of `recovery`.

    Raises:
        SaeflowError: the hook does not exist, or the SAE reads activations of another width.
    """
    if not blocks.labels:
        return pl.DataFrame(schema=RECOVERY)
    tokens = torch.from_numpy(blocks.tokens).long().to(lm.device)
    parts = [capture(lm, part, [hook])[hook][:, 1:].flatten(0, 1).cpu() for part in torch.split(tokens, batch)]
    labels = {name: values[:, 1:].ravel() for name, values in blocks.labels.items()}
    return recovery(sae.to("cpu"), torch.cat(parts), labels, blocks.label_names)


@torch.no_grad()
def recovery(
    sae: SAE,
    activations: Float[Tensor, "rows d_model"],
    labels: Mapping[str, Integer[np.ndarray[Any, Any], " rows"]],
    label_names: Mapping[str, Sequence[str]],
) -> pl.DataFrame:
    """How well latents stand for features that are known: one row per class of each label.

    The planted direction of a class is the difference between the mean activations with and without it. One latent is
    the best by the cosine of its decoder row with that direction, one by the F1 of its firing as a sign of the class.

    Args:
        sae: the SAE.
        activations: raw, as the SAE reads them.
        labels: per label the class of every row.
        label_names: per label the names of its classes.

    Returns:
        label, feature, rows (that show it), latent_cosine, cosine, latent_f1, precision, recall, f1; classes that are
        on no row or on all are left out.
    """
    tables = []
    for label, classes in labels.items():
        members = torch.from_numpy(np.asarray(classes)[:, None] == np.arange(len(label_names[label])))
        sums, fired, both = _sums_by_class(sae, activations, members)
        count = members.sum(dim=0).double()
        partial = (count > 0) & (count < len(members))
        means = sums / count[:, None]
        others = (sums.sum(dim=0) - sums) / (len(members) - count)[:, None]
        cosines = normalize(means - others, dim=1) @ normalize(sae.W_dec.double().cpu(), dim=1).T
        f1 = 2 * both / (fired + count[:, None])
        for index in partial.nonzero()[:, 0].tolist():
            aligned, detector = int(cosines[index].argmax()), int(f1[index].argmax())
            hits = float(both[index, detector])
            tables.append(
                {
                    "label": label,
                    "feature": label_names[label][index],
                    "rows": int(count[index]),
                    "latent_cosine": aligned,
                    "cosine": float(cosines[index, aligned]),
                    "latent_f1": detector,
                    "precision": hits / max(1.0, float(fired[detector])),
                    "recall": hits / float(count[index]),
                    "f1": float(f1[index, detector]),
                }
            )
    return pl.DataFrame(tables, schema=RECOVERY)


def _sums_by_class(sae: SAE, activations: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of activations by class, rows on which each latent fires, and rows of a class on which it does; fp64."""
    sums = torch.zeros(members.shape[1], sae.d_model, dtype=torch.float64)
    fired = torch.zeros(sae.d_sae, dtype=torch.float64)
    both = torch.zeros(members.shape[1], sae.d_sae, dtype=torch.float64)
    for x, member in zip(torch.split(activations, _ROWS_AT_ONCE), torch.split(members, _ROWS_AT_ONCE), strict=True):
        firing = (sae.encode(x) > 0).float()
        indicator = member.float()
        sums += member.double().T @ x.double()
        fired += firing.sum(dim=0)
        both += indicator.T @ firing
    return sums, fired, both
