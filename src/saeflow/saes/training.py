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
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl
import torch
from torch import Tensor

from saeflow.checkpoints import load_checkpoint, save_checkpoint
from saeflow.config.sections import SAETraining
from saeflow.errors import SaeflowError
from saeflow.saes.adam import Adam
from saeflow.saes.architectures import architecture_of
from saeflow.saes.dictionary import DictionaryShape
from saeflow.saes.feeds import Feed
from saeflow.saes.objective import Outcome
from saeflow.saes.parallel import ALONE, TensorParallel
from saeflow.saes.revival import Unexplained, auxiliary_loss, resample
from saeflow.saes.sae import SAE, tensors_of
from saeflow.seeds import torch_generator

CURVE = {
    "tokens": pl.Int64,
    "error": pl.Float64,
    "penalty": pl.Float64,
    "l0": pl.Float64,
    "dead": pl.Int64,
}
_CURVE_POINTS = 200
# Share of selected entries below which sparse products were faster, at d_model 96 and 512.
_SPARSE_BELOW = 0.1
_MEDIAN_STEPS = 50
NEAR = 0.8
"""Least cosine of a softly frozen decoder's rows to where they began.

Source: Korznikov et al. 2026, "Sanity Checks for Sparse Autoencoders: Do SAEs Beat Random
    Baselines?", arXiv 2602.14111.
"""
FROZEN: dict[str | None, Literal["encoder", "decoder"]] = {
    "frozen_encoder": "encoder",
    "frozen_decoder": "decoder",
}
_FIRST_ROWS = 512  # enough to place biases by before the first step


class Trained(NamedTuple):
    """One result of a training.

    Attributes:
        sae: in the activations' own units, on the CPU; `crosscoder.as_crosscoder` makes a
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
    parallel: TensorParallel = ALONE,
    initial: Sequence[SAE | None] | None = None,
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
        parallel: which latents this process trains; all processes return the whole.
        initial: whose weights the training of each begins with; None begins with random ones.

    Raises:
        SaeflowError: activations are not finite, the training leaves what can be computed, or
            initial weights are those of an SAE of another kind or size.
    """
    begun = initial or [None] * len(settings)
    trainings = [
        _Training(feed, each, seed, device, parallel, sae)
        for each, sae in zip(settings, begun, strict=True)
    ]
    tensors = [sorted(training.weights.tensors()) for training in trainings]
    what = [[each.model_dump() for each in settings], seed, feed.identity, tensors]
    what += [_digest(sae) for sae in begun if sae]
    identity = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    if checkpoint and (state := load_checkpoint(checkpoint, identity)):
        feed.reader.seek(state["reader"])
        for training, saved in zip(trainings, state["trainings"], strict=True):
            training.load(saved)
    written = time.monotonic()
    while trainings[0].done < trainings[0].steps:
        for _ in range(settings[0].accumulate):
            x, target = feed.next(device)
            for training in trainings:
                training.take(x, target)
        for training in trainings:
            training.step()
        due = parallel.rank == 0 and time.monotonic() - written >= checkpoint_seconds
        if checkpoint and parallel.all_count(int(due)):  # all follow the first process's clock
            state = {
                "reader": feed.reader.state(),
                "trainings": [training.state() for training in trainings],
            }
            if parallel.rank == 0:
                save_checkpoint(checkpoint, identity, state)
            written = time.monotonic()
        if progress:
            progress(trainings[0].progress())
    return [training.result() for training in trainings]


class _Training:
    """Everything that a step changes in one SAE, and how it is saved."""

    def __init__(
        self,
        feed: Feed,
        settings: SAETraining,
        seed: int,
        device: str,
        parallel: TensorParallel,
        initial: SAE | None = None,
    ) -> None:
        self.feed, self.settings, self.parallel = feed, settings, parallel
        self.seed = seed + settings.seed
        self.architecture = architecture_of(settings, parallel)
        shape = DictionaryShape(settings.d_sae, feed.d_in, feed.d_out, feed.n_sources)
        if initial:
            weights = self.architecture.unfolded(initial, feed.read, feed.written)
        else:
            generator = torch_generator(self.seed, "weights")
            weights = self.architecture.initial_weights(shape, generator)
        weights = replace(weights, frozen=FROZEN.get(settings.control))
        self.weights = replace(weights.to(device), unsummed={"encoder": [], "decoder": []})
        soft = settings.control == "soft_frozen_decoder"
        self.begun = self.weights.decoder.detach().clone() if soft else None
        self.goes_on = initial is not None
        self.adam = Adam(self.weights, settings.learning_rate, self.architecture.rates)
        self.steps = settings.steps
        self.done = 0
        self.since_fired = torch.zeros(len(self.weights.encoder), dtype=torch.long, device=device)
        self.density = 1.0
        self.curve: list[tuple[float, ...]] = []
        self.last: tuple[Tensor, Outcome] | None = None

    def take(self, x: Tensor, target: Tensor) -> None:
        """Add the gradient of one batch."""
        settings, weights, architecture = self.settings, self.weights, self.architecture
        architecture.k = k_at(self.done, self.steps, settings)
        if self.last is None and self.done == 0 and not self.goes_on:
            if settings.initial_bias == "geometric_median":
                with torch.no_grad():
                    weights.b_dec.copy_(geometric_median(target))
            first = architecture.begin(x[:_FIRST_ROWS], target[:_FIRST_ROWS], weights)
            self.density = self._density(first)
        if self.density < _SPARSE_BELOW:
            outcome = architecture.by_sparse_products(x, target, weights)
        else:
            outcome = architecture.by_dense_products(x, target, weights)
        if not math.isfinite(outcome.loss.item()):
            raise _not_finite(x, target, settings)
        self.density = self._density(outcome)
        self.since_fired += len(x)
        self.since_fired.index_fill_(0, outcome.fired(), 0)
        architecture.follow(outcome, weights)
        dead, loss = self._dead(), outcome.loss
        if settings.traits.takes_k and self.parallel.all_count(len(dead)):
            revived = auxiliary_loss(x, outcome.residual, weights, dead, self.parallel)
            loss = loss + settings.auxiliary_coefficient * revived
        (loss / settings.accumulate).backward()  # type: ignore[no-untyped-call]
        if settings.accumulate > 1:
            self.adam.add_up()
        self.last = x, outcome

    def step(self) -> None:
        """Follow the gradients of the batches taken."""
        assert self.last is not None
        settings, (x, outcome) = self.settings, self.last
        self.adam.follow(rate(self.done, self.steps, settings))
        with torch.no_grad():
            self.architecture.project(self.weights)
        dead = self._dead()
        n_dead = self.parallel.all_count(len(dead))
        if self.done % max(1, self.steps // _CURVE_POINTS) == 0 or self.done == self.steps - 1:
            l0 = self.parallel.all_count(outcome.active) / len(x)
            tokens = (self.done + 1) * settings.batch_size * settings.accumulate
            self.curve.append((tokens, outcome.error.item(), outcome.penalty.item(), l0, n_dead))
        if n_dead and not settings.traits.takes_k:
            self.since_fired[dead] = 0
            # Not while the learning rate falls: a latent moved then has no time to settle.
            if self.done < self.steps * (1 - settings.decay_fraction):
                generator = torch_generator(self.seed, "resample", self.done)
                residual = outcome.residual
                both = self.feed.d_out is None and not self.weights.frozen
                rows = Unexplained(residual if both else x, residual)
                resample(dead, self.weights, self.architecture, rows, self.adam, generator)
        if self.begun is not None:
            self.weights.keep_near(self.begun, NEAR)
        self.done += 1
        self.last = None

    def _dead(self) -> Tensor:
        return (self.since_fired > self.settings.dead_window).nonzero()[:, 0]

    def _density(self, outcome: Outcome) -> float:
        rows = len(outcome.excess)
        return self.parallel.all_count(outcome.selected) / (rows * self.settings.d_sae)

    def progress(self) -> Progress:
        """Where the training stands after a step."""
        _, error, _, l0, _ = self.curve[-1]
        a_step = self.settings.batch_size * self.settings.accumulate
        return Progress(self.done * a_step, self.steps * a_step, l0, 1 - error)

    def state(self) -> dict[str, Any]:
        """The same for any number of processes."""
        gather, moments = self.parallel.all_gather, {}
        for name, state in self.adam.state.items():
            moments[name] = {
                key: value if name == "b_dec" or key == "step" else gather(value)
                for key, value in state.items()
            }
        return {
            "weights": self.weights.gathered(self.parallel).tensors(),
            "moments": moments,
            "done": self.done,
            "since_fired": gather(self.since_fired),
            "density": self.density,
            "curve": self.curve,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        part = self.parallel.latents(self.settings.d_sae)

        def mine(name: str, value: Tensor) -> Tensor:
            return value if name == "b_dec" or value.ndim == 0 else value[part]

        with torch.no_grad():
            for name, tensor in self.weights.tensors().items():
                tensor.copy_(mine(name, state["weights"][name]))
        device = self.since_fired.device
        for name, moments in state["moments"].items():
            self.adam.state[name] = {
                key: mine(name, value).to(device) for key, value in moments.items()
            }
        self.done, self.density, self.curve = state["done"], state["density"], state["curve"]
        self.since_fired.copy_(state["since_fired"][part])

    def result(self) -> Trained:
        """The trained SAE, folded."""
        feed = self.feed
        self.adam.state.clear()  # as large as what folding takes
        metadata = {**feed.metadata, "training_architecture": self.settings.architecture}
        weights = self.weights.gathered(self.parallel)
        sae = self.architecture.folded(weights, feed.read, feed.written, metadata)
        return Trained(sae, pl.DataFrame(self.curve, schema=CURVE, orient="row"))


def _digest(sae: SAE) -> str:
    """Of the weights of an SAE."""
    digest = hashlib.sha256()
    for _, tensor in sorted(tensors_of(sae)):
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def rate(step: int, steps: int, settings: SAETraining) -> float:
    """The learning rate of a step relative to its peak: linear warm-up, plateau, linear fall to
    zero."""
    warmup, decay = settings.warmup_fraction * steps, settings.decay_fraction * steps
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (steps - step) / decay if decay else 1.0
    return min(1.0, rising, falling)


def k_at(step: int, steps: int, settings: SAETraining) -> int:
    """The active latents per token at a step: from `k_start` down to `k` in a line."""
    over = settings.anneal_fraction * steps
    if settings.k_start is None or step >= over:
        return settings.k
    return round(settings.k_start + (settings.k - settings.k_start) * step / over)


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
