"""How faithful an SAE is: to the activations, and to the model's predictions.

Every number is a function of sums over blocks of text, so its standard error is that of the jackknife over blocks:
tokens of one text are not independent, texts are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from saeflow.activations.store import merge, statistics
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.hooks import HookFunction, attach, check_hook, editing
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture, logits, token_losses
from saeflow.saes.sae import SAE

DENSE = 0.1  # a latent that fires on a larger share of the tokens is called dense
_LATENTS_AT_ONCE = 4096
_BINS = 40  # of the histogram of cosines, from -1 to 1

Sums = Mapping[str, Float64[np.ndarray, " blocks"]]


class Fidelity:
    """Sums over the rows of every block of how well activations are reconstructed, in fp64, block by block."""

    def __init__(self, mean: Float64[Tensor, " d_out"], d_sae: int) -> None:
        """Begin.

        Args:
            mean: of all rows that will be added; to predict it is to explain nothing.
            d_sae: number of latents.
        """
        self._mean = mean
        self._sums: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._firing = torch.zeros(d_sae, dtype=torch.float64)

    def add(
        self,
        x: Float[Tensor, "blocks pos d_out"],
        reconstruction: Float[Tensor, "blocks pos d_out"],
        latents: Float[Tensor, "blocks pos d_sae"],
    ) -> None:
        """Take in some blocks."""
        x, reconstruction = x.double(), reconstruction.double()
        norm, length = x.norm(dim=-1), reconstruction.norm(dim=-1)
        tiny = torch.finfo(torch.float64).tiny
        active = latents > 0
        per_row = {
            "error": (x - reconstruction).square().sum(dim=-1),
            "scatter": (x - self._mean.to(x.device)).square().sum(dim=-1),
            "cosine": torch.linalg.vecdot(x, reconstruction) / (norm * length).clamp(min=tiny),
            "l2_ratio": length / norm.clamp(min=tiny),
            "active": active.sum(dim=-1).double(),
            "rows": torch.ones_like(norm),
        }
        for name, values in per_row.items():
            self._sums[name].append(values.sum(dim=-1).cpu())
        self._firing += active.flatten(0, 1).sum(dim=0).cpu()

    def sums(self) -> dict[str, Float64[np.ndarray, " blocks"]]:
        """Per block: error, scatter, cosine, l2_ratio, active, rows."""
        return {name: torch.cat(parts).numpy() for name, parts in self._sums.items()}

    def density(self) -> Float64[Tensor, " d_sae"]:
        """Share of the rows on which each latent fires."""
        return self._firing / float(sum(part.sum() for part in self._sums["rows"]))

    def latents(self) -> dict[str, int]:
        """How many latents never fire, and how many are dense."""
        share = self.density()
        return {"dead": int((share == 0).sum()), "dense": int((share > DENSE).sum())}


def fidelity_metrics(sums: Sums, d_out: int) -> dict[str, Any]:
    """Explained variance (1 - Σ|x - x̂|² / Σ|x - mean|²), mse (per dimension), cosine, ratio of norms, L0."""
    rows = sums["rows"]
    return {
        "explained_variance": 1 - sums["error"] / sums["scatter"],
        "mse": sums["error"] / (rows * d_out),
        "cosine": sums["cosine"] / rows,
        "l2_ratio": sums["l2_ratio"] / rows,
        "l0": sums["active"] / rows,
    }


def prediction_metrics(sums: Sums) -> dict[str, Any]:
    """Losses and divergence per predicted token, and the share of the way back from an ablation to the clean loss."""
    names = ("loss_clean", "loss_sae", "loss_zero", "loss_mean", "kl")
    found: dict[str, Any] = {name: sums[name] / sums["predicted"] for name in names}
    for name, ablated in (("recovered", "loss_zero"), ("recovered_mean", "loss_mean")):
        span = found[ablated] - found["loss_clean"]
        same = np.equal(found["loss_sae"], found["loss_clean"]).astype(float)
        share = (found[ablated] - found["loss_sae"]) / np.where(span == 0, 1.0, span)
        found[name] = np.where(span == 0, same, share)
    return found


def with_errors(sums: Sums, metrics: Callable[[Sums], Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of all blocks together, and under ``…_se`` the standard error of each.

    Args:
        sums: per block.
        metrics: a function of sums, number by number.

    Source: Efron and Stein 1981, "The jackknife estimate of variance".
    """
    blocks = len(next(iter(sums.values())))
    whole = metrics({name: values.sum() for name, values in sums.items()})
    without = metrics({name: values.sum() - values for name, values in sums.items()}) if blocks > 1 else {}
    found = {}
    for name, value in whole.items():
        found[name] = float(value)
        if blocks > 1:
            spread = np.square(without[name] - without[name].mean()).sum()
            found[f"{name}_se"] = float(np.sqrt(spread * (blocks - 1) / blocks))
    return found


def decoder_cosines(decoder: Float[Tensor, "d_sae d_out"]) -> dict[str, list[float]]:
    """A histogram over latents of the largest cosine of a decoder row with any other: ``edges`` and ``counts``."""
    rows = normalize(decoder.float(), dim=1)
    largest = []
    for first in range(0, len(rows), _LATENTS_AT_ONCE):
        cosines = rows[first : first + _LATENTS_AT_ONCE] @ rows.T
        cosines.diagonal(first).fill_(-torch.inf)
        largest.append(cosines.amax(dim=1).clamp(-1, 1).cpu())
    counts, edges = torch.histogram(torch.cat(largest), _BINS, range=(-1.0, 1.0))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


@torch.no_grad()
def evaluate_sae(lm: LanguageModel, sae: SAE, hook: str, blocks: TokenBlocks, batch: int = 32) -> dict[str, Any]:
    """Metrics of an SAE or a transcoder on held-out text.

    The model is run as it is, and with the SAE's reconstruction, zero, or the mean in place of the activation; BOS
    keeps its own activation in all of them, and counts in none of the metrics of activations.

    Args:
        lm: the model.
        sae: on any device; moved to the model's.
        hook: where the SAE reads; a transcoder writes where its metadata says.
        blocks: tokens ``[blocks, pos]``.
        batch: blocks per pass; changes the metrics only by rounding.

    Returns:
        `fidelity_metrics` and `prediction_metrics` with standard errors, ``dead`` and ``dense`` latents,
        ``decoder_cosines``, and what they are taken over: ``blocks``, ``tokens``, ``rows`` (activations),
        ``predicted`` (tokens).

    Raises:
        SaeflowError: a hook does not exist, or the SAE reads or writes activations of another width.
    """
    written = sae.written_hook(hook)
    for name in (hook, written):
        check_hook(lm, name)
    sae = sae.to(lm.device)
    tokens = torch.from_numpy(blocks.tokens).long()
    seen = (
        statistics(sae.target(capture(lm, part.to(lm.device), [written])[written][:, 1:].flatten(0, 1)))
        for part in torch.split(tokens, batch)
    )
    mean = torch.from_numpy(merge(seen).mean)
    fidelity = Fidelity(mean, sae.d_sae)
    parts: defaultdict[str, list[Tensor]] = defaultdict(list)
    for part in torch.split(tokens, batch):
        for name, values in _spliced(lm, sae, (hook, written), part.to(lm.device), fidelity, mean).items():
            parts[name].append(values)
    predictions = {name: torch.cat(values).numpy() for name, values in parts.items()}
    sums = fidelity.sums()
    return {
        **with_errors(sums, lambda some: fidelity_metrics(some, sae.d_out)),
        **with_errors(predictions, prediction_metrics),
        **fidelity.latents(),
        "decoder_cosines": decoder_cosines(sae.W_dec),
        "blocks": len(tokens),
        "tokens": tokens.numel(),
        "rows": int(sums["rows"].sum()),
        "predicted": int(predictions["predicted"].sum()),
    }


def _spliced(
    lm: LanguageModel,
    sae: SAE,
    hooks: tuple[str, str],
    tokens: Integer[Tensor, "blocks pos"],
    fidelity: Fidelity,
    mean: Float64[Tensor, " d_out"],
) -> dict[str, Float64[Tensor, " blocks"]]:
    """What `prediction_sums` gives; what is rebuilt goes to ``fidelity``."""
    hook, written = hooks
    read: list[Tensor] = []

    def remember(x: Tensor) -> None:
        read.append(x)

    def reconstruct(x: Tensor) -> Tensor:
        if hook != written and not read:
            raise SaeflowError(f"sae: reads {hook}, which the model computes after {written}, where it writes")
        source = (x if hook == written else read.pop())[:, 1:]
        latents = sae.encode(source)
        reconstruction = sae.reconstruct(source, latents)
        fidelity.add(sae.target(x[:, 1:]), reconstruction, latents)
        return torch.cat([x[:, :1], reconstruction.to(x.dtype)], dim=1)

    reading: list[tuple[str, HookFunction]] = [(hook, remember)] if hook != written else []
    return prediction_sums(lm, tokens, written, reconstruct, mean, reading)


def prediction_sums(
    lm: LanguageModel,
    tokens: Integer[Tensor, "blocks pos"],
    hook: str,
    reconstruct: Callable[[Tensor], Tensor],
    mean: Float64[Tensor, " d_out"],
    reading: Sequence[tuple[str, HookFunction]] = (),
) -> dict[str, Float64[Tensor, " blocks"]]:
    """Per block, sums over predicted tokens of the losses, clean, spliced and ablated, and of the divergence.

    Args:
        tokens: on the model's device.
        hook: whose activation is replaced.
        reconstruct: from the activation at the hook to what replaces it, BOS included.
        mean: of the activation, for the mean ablation.
        reading: what else is called during the spliced pass.
    """

    def replaced_by(value: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.cat([x[:, :1], value.to(x).expand_as(x[:, 1:])], dim=1)

    clean = logits(lm, tokens)
    with attach(lm, [*reading, *editing(hook, reconstruct)]):
        spliced = logits(lm, tokens)
    sums = {"loss_clean": _sums(clean, tokens), "loss_sae": _sums(spliced, tokens)}
    for name, value in (("loss_zero", torch.zeros(())), ("loss_mean", mean)):
        with attach(lm, editing(hook, replaced_by(value))):
            sums[name] = _sums(logits(lm, tokens), tokens)
    before, after = clean[:, :-1].float().log_softmax(-1), spliced[:, :-1].float().log_softmax(-1)
    sums["kl"] = kl_div(after, before, reduction="none", log_target=True).flatten(1).double().sum(dim=1).cpu()
    sums["predicted"] = torch.full((len(tokens),), tokens.shape[1] - 1, dtype=torch.float64)
    return sums


def _sums(values: Tensor, tokens: Tensor) -> Tensor:
    return token_losses(values, tokens).double().sum(dim=1).cpu()
