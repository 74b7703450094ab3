"""How faithful an SAE is: to the activations, and to the model's predictions.

Every number is a function of sums over blocks of text, so its standard error is that of the
jackknife over blocks: tokens of one text are not independent, texts are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from saeflow.activations.exclusion import capture_kept
from saeflow.activations.store import merge, statistics
from saeflow.config.sections import Activations
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.exhaustion import halve_batch_on_oom
from saeflow.models.hooks import HookFunction, attach, check_hook, editing, parse_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import clean_and_again, next_token_losses, position_chunks, unembed
from saeflow.saes.sae import SAE

DENSE = 0.1  # a latent that fires on a larger share of the tokens is called dense
CACHED = Activations()
EXHAUSTED = (
    "sae: memory runs out with {size} block at a time; lower corpus.context, or free the device"
)
_LATENTS_HELD = {"cpu": 1 << 23, "cuda": 1 << 27}  # numbers: dense latents of some rows
_ROWS_AT_ONCE = 32  # but never fewer
_TOKENS_PER_PASS = {"cpu": 2048, "cuda": 1 << 14}
_BINS = 40  # of the histogram of cosines, from -1 to 1

Sums = Mapping[str, Float64[np.ndarray, " blocks"]]


class Fidelity:
    """Sums over the rows of every block of how well activations are reconstructed, in fp64."""

    def __init__(self, mean: Float64[Tensor, " d_out"], d_sae: int, blocks: int) -> None:
        """Begin.

        Args:
            mean: of all rows that will be added; to predict it is to explain nothing.
            d_sae: number of latents.
            blocks: that rows belong to.
        """
        self._mean, self._blocks = mean, blocks
        self._sums: defaultdict[str, Tensor] = defaultdict(
            lambda: torch.zeros(blocks, dtype=torch.float64)
        )
        self._firing = torch.zeros(d_sae, dtype=torch.float64)

    def add(
        self,
        x: Float[Tensor, "rows d_out"],
        reconstruction: Float[Tensor, "rows d_out"],
        latents: Float[Tensor, "rows d_sae"],
        block: Int64[Tensor, " rows"],
    ) -> None:
        """Take in some rows, of which block each is."""
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
            self._sums[name] += torch.bincount(block.cpu(), values.cpu(), self._blocks)
        self._firing += active.sum(dim=0).cpu()

    def sums(self) -> dict[str, Float64[np.ndarray, " blocks"]]:
        """Per block: error, scatter, cosine, l2_ratio, active, rows."""
        return {name: values.numpy() for name, values in self._sums.items()}

    def density(self) -> Float64[Tensor, " d_sae"]:
        """Share of the rows on which each latent fires."""
        return self._firing / self._sums["rows"].sum()

    def latents(self) -> dict[str, int]:
        """How many latents never fire, and how many are dense."""
        share = self.density()
        return {"dead": int((share == 0).sum()), "dense": int((share > DENSE).sum())}


def fidelity_metrics(sums: Sums, d_out: int) -> dict[str, Any]:
    """Explained variance (1 - Σ|x - x̂|² / Σ|x - mean|²), mse (per dimension), cosine, ratio of
    norms, L0."""
    rows = sums["rows"]
    return {
        "explained_variance": 1 - sums["error"] / sums["scatter"],
        "mse": sums["error"] / (rows * d_out),
        "cosine": sums["cosine"] / rows,
        "l2_ratio": sums["l2_ratio"] / rows,
        "l0": sums["active"] / rows,
    }


def prediction_metrics(sums: Sums) -> dict[str, Any]:
    """Losses and divergence per predicted token, and the share of the way back from an ablation to
    the clean loss."""
    names = ("loss_clean", "loss_sae", "loss_zero", "loss_mean", "kl")
    metrics: dict[str, Any] = {name: sums[name] / sums["predicted"] for name in names}
    for name, ablated in (("recovered", "loss_zero"), ("recovered_mean", "loss_mean")):
        span = metrics[ablated] - metrics["loss_clean"]
        same = np.equal(metrics["loss_sae"], metrics["loss_clean"]).astype(float)
        share = (metrics[ablated] - metrics["loss_sae"]) / np.where(span == 0, 1.0, span)
        metrics[name] = np.where(span == 0, same, share)
    return metrics


def with_errors(sums: Sums, metrics: Callable[[Sums], Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of all blocks together, and under ``…_se`` the standard error of each.

    Args:
        sums: per block.
        metrics: a function of sums, number by number.

    Source: Efron and Stein 1981, "The jackknife estimate of variance".
    """
    blocks = len(next(iter(sums.values())))
    whole = metrics({name: values.sum() for name, values in sums.items()})
    named: dict[str, float] = {}
    without: Mapping[str, Any] = {}
    if blocks > 1:
        without = metrics({name: values.sum() - values for name, values in sums.items()})
    for name, value in whole.items():
        named[name] = float(value)
        if name in without:
            spread = np.square(without[name] - without[name].mean()).sum()
            named[f"{name}_se"] = float(np.sqrt(spread * (blocks - 1) / blocks))
    return named


def decoder_cosines(decoder: Float[Tensor, "d_sae d_out"]) -> dict[str, list[float]]:
    """A histogram over latents of the largest cosine of a decoder row with any other: ``edges`` and
    ``counts``."""
    rows = normalize(decoder.float(), dim=1)
    largest = []
    for part in rows_in_parts(len(rows), len(rows), rows.device):
        cosines = rows[part] @ rows.T
        cosines.diagonal(part.start).fill_(-torch.inf)
        largest.append(cosines.amax(dim=1).clamp(-1, 1).cpu())
    counts, edges = torch.histogram(torch.cat(largest), _BINS, range=(-1.0, 1.0))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def rows_in_parts(rows: int, d_sae: int, device: torch.device) -> Iterator[slice]:
    """So many rows in parts whose latents fit into a bounded memory, however many there are."""
    at_once = max(_ROWS_AT_ONCE, _LATENTS_HELD[device.type] // d_sae)
    return (slice(first, first + at_once) for first in range(0, rows, at_once))


def blocks_per_pass(lm: LanguageModel, context: int) -> int:
    """As many as make passes of a length that the device does well with."""
    return max(1, _TOKENS_PER_PASS[lm.device.type] // context)


@torch.no_grad()
def evaluate_sae(
    lm: LanguageModel,
    sae: SAE,
    hook: str,
    blocks: TokenBlocks,
    batch: int | None = None,
    settings: Activations = CACHED,
    cached: Sequence[str] = (),
) -> dict[str, Any]:
    """Metrics of an SAE or a transcoder on held-out text, over the rows that the study would train
    on.

    The model is run as it is, and with the SAE's reconstruction, zero, or the mean in place of the
    activation. Positions that the study leaves out of its caches, such as every BOS, also between
    documents, keep their own activation in all of these, and count in none of the metrics of
    activations.

    Args:
        lm: the model.
        sae: on any device; moved to the model's.
        hook: where the SAE reads; a transcoder writes where its metadata says.
        blocks: tokens ``[blocks, pos]``.
        batch: blocks per pass, halved where memory runs out; changes the metrics only by rounding.
        settings: of the study's caches, of which ``exclude`` and ``exclude_norm_above`` count.
        cached: hooks of the study's caches of this model, whose norms count.

    Returns:
        `fidelity_metrics` and `prediction_metrics` with standard errors, ``dead`` and ``dense``
        latents, ``decoder_cosines``, and what they are taken over: ``blocks``, ``tokens``, ``rows``
        (activations), ``predicted`` (tokens).

    Raises:
        SaeflowError: a hook does not exist, the SAE reads or writes activations of another width,
            no position is kept, or not even one block fits into memory.
    """
    written = sae.written_hook(hook)
    for name in (hook, written):
        check_hook(lm, name)
    sae = sae.to(lm.device)
    tokens = torch.from_numpy(blocks.tokens).long()

    def measure(batch: int) -> tuple[Fidelity, dict[str, Float64[np.ndarray, " blocks"]]]:
        parts = [part.to(lm.device) for part in torch.split(tokens, batch)]
        read = list(dict.fromkeys([hook, written]))
        seen = (capture_kept(lm, part, read, settings, cached) for part in parts)
        mean, kept = mean_of_kept((sae.target(of[written][where]), where) for of, where in seen)
        fidelity = Fidelity(mean, sae.d_sae, len(tokens))
        sums: defaultdict[str, list[Tensor]] = defaultdict(list)
        first = 0
        for part, where in zip(parts, kept, strict=True):
            passage = Passage(lm, part, where, first)
            for name, values in _spliced(passage, sae, (hook, written), fidelity, mean).items():
                sums[name].append(values)
            first += len(part)
        return fidelity, {name: torch.cat(values).numpy() for name, values in sums.items()}

    batch = batch or blocks_per_pass(lm, tokens.shape[1])
    (fidelity, predictions), _ = halve_batch_on_oom(batch, measure, 1, EXHAUSTED)
    sums = fidelity.sums()
    return {
        **with_errors(sums, lambda of: fidelity_metrics(of, sae.d_out)),
        **with_errors(predictions, prediction_metrics),
        **fidelity.latents(),
        "decoder_cosines": decoder_cosines(sae.W_dec),
        "blocks": len(tokens),
        "tokens": tokens.numel(),
        "rows": int(sums["rows"].sum()),
        "predicted": int(predictions["predicted"].sum()),
    }


def mean_of_kept(
    seen: Iterable[tuple[Float[Tensor, "rows d_out"], Bool[Tensor, "blocks pos"]]],
) -> tuple[Float64[Tensor, " d_out"], list[Bool[Tensor, "blocks pos"]]]:
    """The mean of the rows of all passes, and the positions that they are of.

    Raises:
        SaeflowError: there is no row.
    """
    statistics_of, kept = [], []
    for rows, where in seen:
        kept.append(where)
        if len(rows):
            statistics_of.append(statistics(rows))
    if not statistics_of:
        raise SaeflowError(
            "sae: activations.exclude and exclude_norm_above leave no position to measure; "
            "exclude less"
        )
    return torch.from_numpy(merge(statistics_of).mean), kept


class Passage(NamedTuple):
    """The text of one pass.

    Attributes:
        lm: the model that reads it.
        tokens: on its device.
        kept: the positions that count.
        first: index of its first block in the whole text.
    """

    lm: LanguageModel
    tokens: Integer[Tensor, "blocks pos"]
    kept: Bool[Tensor, "blocks pos"]
    first: int


def _spliced(
    passage: Passage,
    sae: SAE,
    hooks: tuple[str, str],
    fidelity: Fidelity,
    mean: Float64[Tensor, " d_out"],
) -> dict[str, Float64[Tensor, " blocks"]]:
    """What `prediction_sums` gives; what is rebuilt goes to ``fidelity``."""
    (hook, written), kept = hooks, passage.kept
    read: list[Tensor] = []  # by a transcoder, which rebuilds later in the same pass

    def reconstruct(x: Tensor) -> Tensor:
        if hook != written and not read:
            raise SaeflowError(
                f"sae: reads {hook}, which the model computes after {written}, where it writes"
            )
        source, target = (x if hook == written else read.pop())[kept], x[kept]
        block = passage.first + kept.nonzero()[:, 0]
        rebuilt = torch.empty_like(target)
        for part in rows_in_parts(len(target), sae.d_sae, x.device):
            latents = sae.encode(source[part])
            reconstruction = sae.reconstruct(source[part], latents)
            fidelity.add(sae.target(target[part]), reconstruction, latents, block[part])
            rebuilt[part] = reconstruction.to(x.dtype)
        return x.masked_scatter(kept[..., None], rebuilt)

    reading: list[tuple[str, HookFunction]] = [(hook, read.append)] if hook != written else []
    return prediction_sums(passage, written, reconstruct, mean, reading)


def prediction_sums(
    passage: Passage,
    hook: str,
    reconstruct: Callable[[Tensor], Tensor],
    mean: Float64[Tensor, " d_out"],
    reading: Sequence[tuple[str, HookFunction]] = (),
    beneath: Float[Tensor, "blocks pos d_out"] | None = None,
) -> dict[str, Float64[Tensor, " blocks"]]:
    """Per block, sums over predicted tokens of the losses, clean, spliced and ablated, and of the
    divergence.

    Args:
        passage: the text; what is not kept of it is not replaced.
        hook: whose activation is replaced.
        reconstruct: from the activation at the hook to what replaces it, at positions that are not
            kept itself.
        mean: of the activation, for the mean ablation.
        reading: what else is called during the spliced pass.
        beneath: what ablations are added to, such as another model's stream; None is zero.
    """
    lm, tokens, kept, _ = passage

    def replaced_by(value: Tensor) -> Callable[[Tensor], Tensor]:
        whole = value if beneath is None else beneath + value.to(beneath)
        return lambda x: torch.where(kept[..., None], whole.to(x), x)

    lowest = min(parse_hook(name).layer for name in (hook, *(name for name, _ in reading)))
    clean, run_again = clean_and_again(lm, tokens, lowest)
    with attach(lm, [*reading, *editing(hook, reconstruct)]):
        spliced = run_again()
    sums = _losses_and_divergence(lm, clean, spliced, tokens)
    for name, value in (("loss_zero", torch.zeros(())), ("loss_mean", mean)):
        with attach(lm, editing(hook, replaced_by(value))):
            ablated = run_again()
        sums[name] = next_token_losses(lm, ablated, tokens).double().sum(dim=1).cpu()
    predicted = torch.full((len(tokens),), tokens.shape[1] - 1, dtype=torch.float64)
    return sums | {"predicted": predicted}


def _losses_and_divergence(
    lm: LanguageModel,
    clean: Float[Tensor, "blocks pos d_model"],
    spliced: Float[Tensor, "blocks pos d_model"],
    tokens: Integer[Tensor, "blocks pos"],
) -> dict[str, Float64[Tensor, " blocks"]]:
    """Of final states: loss_clean, loss_sae and kl, of a part of the logits at a time."""
    rows = [states[:, :-1].flatten(0, 1) for states in (clean, spliced)]
    targets = tokens[:, 1:].flatten()[:, None]
    per_row: defaultdict[str, list[Tensor]] = defaultdict(list)
    for part in position_chunks(lm, len(targets)):
        before, after = (unembed(lm, states[part]).float().log_softmax(-1) for states in rows)
        per_row["loss_clean"].append(-before.gather(1, targets[part]))
        per_row["loss_sae"].append(-after.gather(1, targets[part]))
        divergence = kl_div(after, before, reduction="none", log_target=True)
        per_row["kl"].append(divergence.sum(dim=1, keepdim=True))
    return {
        name: torch.cat(values).view(len(tokens), -1).double().sum(dim=1).cpu()
        for name, values in per_row.items()
    }
