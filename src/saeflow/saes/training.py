"""Training of SAEs, transcoders and crosscoders on cached activations.

Several are trained in one pass over the data. Interrupted and resumed, a training ends in the same
bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from saeflow.checkpoints import load_checkpoint, save_checkpoint
from saeflow.config.sections import SAETraining
from saeflow.config.sections.saes import COMPETITIVE
from saeflow.errors import SaeflowError
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.feeds import Feed
from saeflow.saes.objective import SPARSE_BELOW, Outcome, outcome
from saeflow.saes.parallel import ALONE, Share
from saeflow.saes.revival import auxiliary_loss, resample
from saeflow.saes.sae import SAE
from saeflow.seeds import torch_generator

CURVE = {
    "tokens": pl.Int64,
    "error": pl.Float64,
    "penalty": pl.Float64,
    "l0": pl.Float64,
    "dead": pl.Int64,
}
_CURVE_POINTS = 200
# learning rate of thresholds relative to the weights'; slower, L0 hardly follows its price
_THRESHOLD_RATE = 10.0
_THRESHOLD_MEMORY = (
    0.95  # of the running mean that becomes a batchtopk threshold; longer, it lags and L0 misses k
)
_MEDIAN_STEPS = 50
_FIRST_ROWS = 512  # enough to place biases by before the first step
# active latents of a row before the first step where none are aimed at, in units of d_in; a code of
# more is not sparse
_FIRST_L0 = 1 / 4
# of an encoder's row before the first step: Adam's steps have one size whatever that is, so a long
# row turns slowly
_LONGEST = 1 / 2


class Trained(NamedTuple):
    """One result of a training.

    Attributes:
        sae: in the activations' own units, on the CPU; `dictionary.as_crosscoder` makes a
            crosscoder of it.
        curve: tokens seen, error (share of the variance left unexplained), penalty, l0 (mean active
            latents), dead (latents).
    """

    sae: SAE
    curve: pl.DataFrame


class Progress(NamedTuple):
    """Where a training stands.

    Attributes:
        tokens: seen.
        of: tokens in all.
        l0: mean active latents, at the last point of the first SAE's curve.
        explained_variance: there, too.
    """

    tokens: int
    of: int
    l0: float
    explained_variance: float


def train_saes(
    feed: Feed,
    settings: Sequence[SAETraining],
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    *,
    device: str = "cpu",
    checkpoint_seconds: float = 120.0,
    share: Share = ALONE,
) -> list[Trained]:
    """Train SAEs on the same batches.

    Args:
        feed: batches of raw activations, and their normalisation.
        settings: of every SAE; batch_size and tokens are the same in all.
        seed: names the initial weights and the resampling.
        checkpoint: file that holds the training's state while it runs; one that other settings,
            another seed or another cache wrote is not used. The caller removes it when the SAEs are
            saved.
        progress: called after every step.
        checkpoint_seconds: between two writings of the checkpoint.
        share: which latents this process trains; all processes return the whole.

    Raises:
        SaeflowError: activations are not finite, or the training leaves what can be computed.
    """
    trainings = [_Training(feed, one, seed, device, share) for one in settings]
    what = [[one.model_dump() for one in settings], seed, feed.identity]
    identity = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    if checkpoint and (state := load_checkpoint(checkpoint, identity)):
        feed.reader.seek(state["reader"])
        for training, its in zip(trainings, state["trainings"], strict=True):
            training.load(its)
    written = time.monotonic()
    while trainings[0].done < trainings[0].steps:
        for _ in range(settings[0].accumulate):
            x, target = feed.next(device)
            for training in trainings:
                training.take(x, target)
        for training in trainings:
            training.step()
        if checkpoint and _due(time.monotonic() - written >= checkpoint_seconds, share):
            state = {
                "reader": feed.reader.state(),
                "trainings": [training.state() for training in trainings],
            }
            if share.rank == 0:
                save_checkpoint(checkpoint, identity, state)
            written = time.monotonic()
        if progress:
            progress(trainings[0].progress())
    return [training.result() for training in trainings]


def _due(mine: bool, share: Share) -> bool:
    """Whether it is time by the first process's clock, which all follow."""
    return share.count(int(mine and share.rank == 0)) > 0


class _Training:
    """Everything that a step changes in one SAE, and how it is saved."""

    def __init__(
        self, feed: Feed, settings: SAETraining, seed: int, device: str, share: Share
    ) -> None:
        self.feed, self.settings, self.seed, self.share = (
            feed,
            settings,
            seed + settings.seed,
            share,
        )
        generator = torch_generator(self.seed, "weights")
        whole = Dictionary.initial(
            feed.d_in, settings, generator, feed.d_out, feed.n_sources, share
        )
        self.weights = whole.to(device)
        self.optimiser = _optimiser(self.weights, settings)
        if (
            settings.accumulate == 1
        ):  # no gradient is added to it, so it is followed at once and makes room for others
            self.weights.decoder.register_post_accumulate_grad_hook(self._follow)  # type: ignore[no-untyped-call]
        self.steps = math.ceil(settings.tokens / (settings.batch_size * settings.accumulate))
        self.done = 0
        self.since_fired = torch.zeros(len(self.weights.encoder), dtype=torch.long, device=device)
        self.density = 1.0
        self.curve: list[tuple[float, ...]] = []
        self.last: tuple[Tensor, Outcome] | None = None

    def take(self, x: Tensor, target: Tensor) -> None:
        """Add the gradient of one batch."""
        settings, weights, share = self.settings, self.weights, self.share
        if self.last is None and self.done == 0:
            if settings.initial_bias == "geometric_median":
                with torch.no_grad():
                    weights.b_dec.copy_(geometric_median(target))
            first = begin(x[:_FIRST_ROWS], target[:_FIRST_ROWS], weights, settings, share)
            self.density = self._density(first)
        found = outcome(x, target, weights, settings, self.density < SPARSE_BELOW, share)
        if not math.isfinite(found.loss.item()):
            raise _not_finite(x, target, settings)
        self._note_firing(found)
        dead = self._dead()
        loss = found.loss
        if settings.architecture in COMPETITIVE and share.count(len(dead)):
            loss = loss + settings.auxiliary_coefficient * auxiliary_loss(
                x, found.residual, weights, dead, share
            )
        (loss / settings.accumulate).backward()  # type: ignore[no-untyped-call]
        self.last = x, found

    def step(self) -> None:
        """Follow the gradients of the batches taken."""
        assert self.last is not None
        x, found = self.last
        settings, weights = self.settings, self.weights
        self._follow()
        weights.project()
        dead = self._dead()
        n_dead = self.share.count(len(dead))
        if self.done % max(1, self.steps // _CURVE_POINTS) == 0 or self.done == self.steps - 1:
            self._note_curve(found, n_dead)
        if n_dead and settings.architecture not in COMPETITIVE:
            self._resample(x, found, dead)
        self.done += 1
        self.last = None

    def _follow(self, *_: Tensor) -> None:
        """Follow the gradients that are there, and drop them."""
        self.weights.project_gradient()
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate(self.done, self.steps, self.settings)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _dead(self) -> Tensor:
        return (self.since_fired > self.settings.dead_window).nonzero()[:, 0]

    def _density(self, found: Outcome) -> float:
        return self.share.count(found.selected) / (len(found.excess) * self.settings.d_sae)

    def _note_firing(self, found: Outcome) -> None:
        self.density = self._density(found)
        self.since_fired += len(found.excess)
        self.since_fired.index_fill_(0, found.fired(), 0)
        if self.weights.threshold.ndim == 0 and self.settings.architecture in COMPETITIVE:
            smallest = self.share.smallest(found.smallest)
            if smallest.isfinite():
                memory = _THRESHOLD_MEMORY if self.weights.threshold else 0.0
                self.weights.threshold.lerp_(smallest.to(self.weights.threshold.dtype), 1 - memory)

    def _note_curve(self, found: Outcome, dead: int) -> None:
        l0 = self.share.count(found.active) / len(found.excess)
        tokens = (self.done + 1) * self.settings.batch_size * self.settings.accumulate
        self.curve.append((tokens, found.error.item(), found.penalty.item(), l0, dead))

    def _resample(self, x: Tensor, found: Outcome, dead: Tensor) -> None:
        """Not while the learning rate falls: a latent that is moved then has no time to settle."""
        self.since_fired[dead] = 0
        if self.done < self.steps * (1 - self.settings.decay_fraction):
            generator = torch_generator(self.seed, "resample", self.done)
            residual = found.residual
            read = residual if self.feed.d_out is None else x
            resample(read, residual, self.weights, dead, self.optimiser, generator, self.share)

    def progress(self) -> Progress:
        _, error, _, l0, _ = self.curve[-1]
        a_step = self.settings.batch_size * self.settings.accumulate
        return Progress(self.done * a_step, self.steps * a_step, l0, 1 - error)

    def state(self) -> dict[str, Any]:
        """The same for any number of processes."""
        whole, moments = self.weights.joined(self.share), {}
        for name, tensor in self.weights.trained().items():
            kept = self.optimiser.state[tensor]
            moments[name] = {
                key: value if name == "b_dec" or key == "step" else self.share.joined(value)
                for key, value in kept.items()
            }
        return {
            "weights": {name: tensor.detach() for name, tensor in whole.tensors().items()},
            "moments": moments,
            "done": self.done,
            "since_fired": self.share.joined(self.since_fired),
            "density": self.density,
            "curve": self.curve,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        part = self.share.part(self.settings.d_sae)

        def mine(name: str, value: Tensor) -> Tensor:
            return value if name == "b_dec" or value.ndim == 0 else value[part]

        with torch.no_grad():
            for name, tensor in self.weights.tensors().items():
                tensor.copy_(mine(name, state["weights"][name]))
        for name, tensor in self.weights.trained().items():
            kept = state["moments"][name]
            self.optimiser.state[tensor] = {
                key: mine(name, value).to(tensor.device) for key, value in kept.items()
            }
        self.done, self.density, self.curve = state["done"], state["density"], state["curve"]
        self.since_fired.copy_(state["since_fired"][part])

    def result(self) -> Trained:
        settings, feed = self.settings, self.feed
        self.optimiser.state.clear()  # as large as what folding takes
        metadata = {**feed.metadata, "training_architecture": settings.architecture}
        sae = self.weights.joined(self.share).folded(feed.read, feed.written, settings, metadata)
        return Trained(sae, pl.DataFrame(self.curve, schema=CURVE, orient="row"))


def _optimiser(weights: Dictionary, settings: SAETraining) -> torch.optim.Optimizer:
    thresholds = [weights.threshold] if weights.threshold.ndim else []
    others = [tensor for name, tensor in weights.trained().items() if name != "threshold"]
    groups = [
        {"params": others, "peak": settings.learning_rate},
        {"params": thresholds, "peak": settings.learning_rate * _THRESHOLD_RATE},
    ]
    return torch.optim.Adam(
        [group for group in groups if group["params"]], lr=settings.learning_rate, fused=True
    )


def rate(step: int, steps: int, settings: SAETraining) -> float:
    """The learning rate of a step relative to its peak: linear warm-up, plateau, linear fall to
    zero."""
    warmup, decay = settings.warmup_fraction * steps, settings.decay_fraction * steps
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (steps - step) / decay if decay else 1.0
    return min(1.0, rising, falling)


@torch.no_grad()
def begin(
    x: Tensor, target: Tensor, weights: Dictionary, settings: SAETraining, share: Share = ALONE
) -> Outcome:
    """Let every latent fire equally rarely, and scale the encoder so that reconstructions are not
    too long.

    Directions are random yet, and overlap: with half of all latents active, as biases of zero would
    have it, or at full length, they overshoot; and many steps would be dense for nothing.

    Args:
        x: some rows, normalised, and so their ``target``.

    Returns:
        What these rows gave before the encoder was scaled, which changes hardly anything about
        which latents fire.

    Source: for the biases, Conerly et al. 2025, "Dictionary Learning Optimization Techniques".
    """
    if settings.architecture not in COMPETITIVE:
        often = max(
            1, round(len(x) * (settings.target_l0 or _FIRST_L0 * x.shape[1]) / settings.d_sae)
        )
        largest = (
            torch.addmm(weights.b_enc, x, weights.encoder.T)
            .topk(min(often + 1, len(x)), dim=0)
            .values
        )
        floor = largest[-2:].mean(
            dim=0
        )  # between two rows, so that no rounding decides whether one is above it
        if weights.threshold.ndim:
            weights.threshold.copy_(floor.clamp(min=0))
        else:
            weights.b_enc.sub_(floor)
        if weights.b_mag.ndim:
            weights.b_mag.copy_(floor)
    first = outcome(x, target, weights, settings, sparse=False, share=share)
    if (
        settings.architecture in COMPETITIVE
        and (smallest := share.smallest(first.smallest)).isfinite()
    ):
        weights.threshold.copy_(smallest)  # so that the first batch, too, has few candidates
    rebuilt = target - weights.b_dec - first.residual
    length = ((target - weights.b_dec) * rebuilt).sum() / rebuilt.square().sum().clamp(
        min=torch.finfo(x.dtype).tiny
    )
    if (
        settings.architecture == "standard"
    ):  # its latents begin at zero just above the floor, and would be long rows
        length = length.clamp(max=_LONGEST)
    for tensor in (weights.encoder, weights.b_enc, weights.threshold, weights.b_mag):
        tensor.mul_(length)
    return first


def geometric_median(x: Tensor) -> Tensor:
    """The point with the least sum of distances to the rows.

    Source: Weiszfeld 1937, "Sur le point pour lequel la somme des distances de n points donnés est
        minimum".
    """
    point = x.mean(dim=0)
    for _ in range(_MEDIAN_STEPS):
        weight = 1 / (x - point).norm(dim=1).clamp(min=torch.finfo(x.dtype).eps)
        point = weight @ x / weight.sum()
    return point


def _not_finite(x: Tensor, target: Tensor, settings: SAETraining) -> SaeflowError:
    if x.isfinite().all() and target.isfinite().all():
        reason = f"the loss is no longer finite; lower learning_rate {settings.learning_rate}"
    else:
        reason = (
            "the cached activations hold values that are not finite; cache them again, in float32 "
            "or bfloat16"
        )
    return SaeflowError(f"sae: {reason}")
