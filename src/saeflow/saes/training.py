"""Training of one SAE on cached activations; interrupted and resumed it ends in the same bits."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from saeflow.activations.reader import ShuffledReader
from saeflow.config.sections import SAETraining
from saeflow.saes.architectures import ARCHITECTURES
from saeflow.saes.dictionary import Dictionary, Normalisation
from saeflow.saes.io import load_checkpoint, save_checkpoint
from saeflow.saes.objective import SPARSE_BELOW, Outcome, outcome
from saeflow.saes.revival import auxiliary_loss, resample
from saeflow.saes.sae import SAE
from saeflow.seeds import torch_generator

CURVE = {"tokens": pl.Int64, "error": pl.Float64, "penalty": pl.Float64, "l0": pl.Float64, "dead": pl.Int64}
_CURVE_POINTS = 200
_THRESHOLD_RATE = 3.0  # learning rate of thresholds relative to the weights'; slower, L0 hardly follows its price
_THRESHOLD_MEMORY = 0.95  # of the running mean that becomes a batchtopk threshold; longer, it lags and L0 misses k


def train_sae(
    reader: ShuffledReader,
    settings: SAETraining,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    device: str = "cpu",
    checkpoint_seconds: float = 30.0,
) -> tuple[SAE, pl.DataFrame]:
    """Train an SAE.

    Args:
        reader: batches of raw activations, and the cache's mean and variance.
        settings: of the SAE.
        seed: the study's, already joined with the SAE's name; names the initial weights and the resampling.
        checkpoint: file that holds the training's state while it runs; one that other settings, another seed or
            another cache wrote is not used. The caller removes it when the SAE is saved.
        progress: called after every step with (steps done, steps).
        checkpoint_seconds: between two writings of the checkpoint.

    Returns:
        The SAE in the activations' own units, on the CPU, and the training curve: tokens seen, error (share of the
        variance left unexplained), penalty, l0 (mean active latents), dead (latents).
    """
    training = _Training(reader, settings, seed, device)
    if checkpoint and (state := load_checkpoint(checkpoint, training.identity)):
        training.load(state)
    written = time.monotonic()
    while training.done < training.steps:
        training.step(next(reader).to(device))
        if checkpoint and time.monotonic() - written >= checkpoint_seconds:
            save_checkpoint(checkpoint, training.identity, training.state())
            written = time.monotonic()
        if progress:
            progress(training.done, training.steps)
    return training.result()


class _Training:
    """Everything that a step changes, and how it is saved."""

    def __init__(self, reader: ShuffledReader, settings: SAETraining, seed: int, device: str) -> None:
        self.reader, self.settings, self.seed = reader, settings, seed
        store = reader.store
        self.normalisation = Normalisation.of(store.mean, store.variance)
        self.weights = Dictionary.initial(store.d_model, settings, torch_generator(seed, "weights")).to(device)
        self.optimiser = _optimiser(self.weights, settings)
        self.steps = math.ceil(settings.tokens / reader.batch_size)
        self.done = 0
        self.since_fired = torch.zeros(settings.d_sae, dtype=torch.long, device=device)
        self.density = 1.0
        self.curve: list[tuple[float, ...]] = []
        what = [settings.model_dump(), seed, reader.identity]
        self.identity = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def step(self, raw: Tensor) -> None:
        """One batch."""
        settings, weights = self.settings, self.weights
        competitive = ARCHITECTURES[settings.architecture].competitive
        x = self.normalisation(raw)
        found = outcome(x, weights, settings, sparse=self.density < SPARSE_BELOW)
        self._note_firing(found)
        dead = (self.since_fired > settings.dead_after).nonzero()[:, 0]
        loss = found.error + found.penalty
        if len(dead) and competitive:
            loss = loss + settings.auxiliary_coefficient * auxiliary_loss(x, found.residual, weights, dead)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        weights.project_gradient()
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate(self.done, self.steps, settings)
        self.optimiser.step()
        weights.project()
        if self.done % max(1, self.steps // _CURVE_POINTS) == 0 or self.done == self.steps - 1:
            self._note_curve(found, len(dead))
        if len(dead) and not competitive:
            self._resample(found, dead)
        self.done += 1

    def _note_firing(self, found: Outcome) -> None:
        self.density = found.selected / (len(found.residual) * self.settings.d_sae)
        self.since_fired += len(found.residual)
        self.since_fired[found.fired()] = 0
        if self.settings.architecture == "batchtopk" and found.smallest.isfinite():
            memory = _THRESHOLD_MEMORY if self.done else 0.0
            self.weights.threshold.lerp_(found.smallest.to(self.weights.threshold.dtype), 1 - memory)

    def _note_curve(self, found: Outcome, dead: int) -> None:
        l0 = found.active / len(found.residual)
        tokens = (self.done + 1) * self.reader.batch_size
        self.curve.append((tokens, found.error.item(), found.penalty.item(), l0, dead))

    def _resample(self, found: Outcome, dead: Tensor) -> None:
        """Not while the learning rate falls: a latent that is moved then has no time to settle."""
        self.since_fired[dead] = 0
        if self.done < self.steps * (1 - self.settings.decay_fraction):
            generator = torch_generator(self.seed, "resample", self.done)
            resample(found.residual, self.weights, dead, self.optimiser, generator)

    def state(self) -> dict[str, Any]:
        return {
            "weights": {name: tensor.detach() for name, tensor in vars(self.weights).items()},
            "optimiser": self.optimiser.state_dict(),
            "reader": self.reader.state(),
            "done": self.done,
            "since_fired": self.since_fired,
            "density": self.density,
            "curve": self.curve,
        }

    def load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in vars(self.weights).items():
                tensor.copy_(state["weights"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.reader.seek(state["reader"])
        self.done, self.density, self.curve = state["done"], state["density"], state["curve"]
        self.since_fired.copy_(state["since_fired"])

    def result(self) -> tuple[SAE, pl.DataFrame]:
        store, settings = self.reader.store, self.settings
        metadata = {
            "model_name": store.model,
            "hook_name": store.hook,
            "prepend_bos": True,
            "training_architecture": settings.architecture,
        }
        return (
            self.weights.folded(self.normalisation, settings, metadata),
            pl.DataFrame(self.curve, schema=CURVE, orient="row"),
        )


def _optimiser(weights: Dictionary, settings: SAETraining) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {
            "params": [weights.encoder, weights.decoder, weights.b_enc, weights.b_dec],
            "peak": settings.learning_rate,
        }
    ]
    if weights.threshold.requires_grad:
        groups.append({"params": [weights.threshold], "peak": settings.learning_rate * _THRESHOLD_RATE})
    return torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)


def rate(step: int, steps: int, settings: SAETraining) -> float:
    """The learning rate of a step relative to its peak: linear warm-up, plateau, linear fall to zero."""
    warmup, decay = settings.warmup_fraction * steps, settings.decay_fraction * steps
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (steps - step) / decay if decay else 1.0
    return min(1.0, rising, falling)
