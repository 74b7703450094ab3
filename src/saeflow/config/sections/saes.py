"""Sparse autoencoders: trained here or imported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from saeflow.config.section import Section, Text, refuse


class SAETraining(Section):
    """One SAE, trained on the cached activations."""

    architecture: Literal["standard", "topk", "batchtopk", "jumprelu"] = "topk"
    """Activation function and loss: ReLU with L1, TopK, BatchTopK, or JumpReLU with L0."""
    d_sae: int = Field(default=512, ge=2)
    """Number of latents."""
    k: int = Field(default=8, ge=1)
    """``topk``, ``batchtopk``: active latents per token."""
    sparsity_coefficient: float = Field(default=1e-3, ge=0)
    """``standard``: of the decoder-norm-weighted L1 term. ``jumprelu``: of the L0 term."""
    bandwidth: float = Field(default=0.05, gt=0)
    """``jumprelu``: width of the rectangle kernel of the straight-through estimators, in normalised units."""
    batch_size: int = Field(default=2048, ge=1)
    """Activations per step."""
    tokens: int = Field(default=1_500_000, ge=1)
    """Activations to train on; passes over the cache repeat, each in another order."""
    learning_rate: float = Field(default=2e-3, gt=0, lt=1)
    """Peak of the schedule (Adam)."""
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps, at the start, over which the learning rate rises to its peak."""
    decay_fraction: float = Field(default=0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    dead_after: int = Field(default=200_000, ge=1)
    """A latent is dead when it has not fired for this many tokens."""
    auxiliary_coefficient: float = Field(default=1 / 32, ge=0)
    """``topk``, ``batchtopk``: of the auxiliary loss that revives dead latents."""

    @model_validator(mode="after")
    def _agrees(self) -> SAETraining:
        found = []
        if self.architecture in ("topk", "batchtopk") and self.k >= self.d_sae:
            found.append(("k", f"{self.k} must be smaller than d_sae {self.d_sae}"))
        if self.warmup_fraction + self.decay_fraction > 1:
            found.append(("decay_fraction", "adds up with warmup_fraction to more than 1"))
        if self.tokens < self.batch_size:
            found.append(("tokens", f"{self.tokens} is less than one batch_size {self.batch_size}"))
        refuse(found)
        return self


class SAE(Section):
    """An SAE of the study: trained here, or a local SAELens 6 directory."""

    train: SAETraining | None = None
    """Train it here, on the cached activations."""
    path: Text | None = None
    """A directory with cfg.json and sae_weights.safetensors. ``${NAME}`` is read from the environment."""

    @model_validator(mode="after")
    def _one_source(self) -> SAE:
        if (self.train is None) == (self.path is None):
            this = f"{'both' if self.path else 'none'} (null undoes a key of an earlier file)"
            refuse([("", f"give exactly one of train and path; this gives {this}")])
        return self
