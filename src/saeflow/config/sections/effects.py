"""How the effects of steering vectors are measured and approximated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from saeflow.config.section import Section


class Sampling(Section):
    """How the next token is drawn."""

    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep the k most probable tokens; null keeps all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Then keep the smallest set whose probability reaches this; null keeps all.

    The published SAE-TS runs name top_k 50 and top_p 0.3, but the sampler they used ignores top_p once top_k is
    set: write ``{top_k: 50}`` for what they did, both for what they say."""


class Scale(Section):
    """How much of a steering vector is added while its effects are measured."""

    rule: Literal["loss_increase", "loss", "fixed"] = "loss_increase"
    """``loss_increase``: the unsteered loss plus ``value`` nats per token (the paper's rule). ``loss``: an absolute
    loss (the published code's). ``fixed``: the scale itself."""
    value: float = Field(default=0.5, gt=0)
    """What the rule aims at, in the rule's unit."""
    maximum: float = Field(default=4.0, gt=0)
    """Largest scale tried, as a multiple of the mean activation norm at the hook."""
    search: Literal["bisect", "scan"] = "bisect"
    """``scan``: the published linear scan with interpolation, for parity."""
    steps: int = Field(default=10, ge=2)
    """``bisect``: the finest bracket is ``maximum`` halved this often; the search ends once the loss is within 2 % of
    the wanted rise. ``scan``: intervals up to ``maximum``."""
    tokens: int = Field(default=2048, ge=64)
    """Tokens of the split ``eval`` whose loss is measured, per scale tried."""


class Effects(Section):
    """What steering vectors do to the mean activation of every latent."""

    vectors: Literal["decoder", "random", "mixtures"] = "decoder"
    """``decoder``: rows of the SAE's decoder. ``random``: directions drawn uniformly. ``mixtures``: of two rows."""
    count: int | None = Field(default=None, ge=1)
    """How many vectors; null is one per latent."""
    block_size: int = Field(default=128, ge=1)
    """Vectors per shard; part of the result's identity."""
    prompts: list[str] = Field(default=["", "I think", "Last night"], min_length=1)
    """What the rollouts start from; the empty text is BOS alone, and a prompt named twice weighs twice."""
    samples: int = Field(default=8, ge=1)
    """Rollouts per vector and prompt."""
    baseline_samples: int = Field(default=128, ge=2)
    """Unsteered rollouts per prompt."""
    new_tokens: int = Field(default=24, ge=1)
    """Tokens generated per rollout."""
    sampling: Sampling = Sampling()
    """How the rollouts' tokens are drawn."""
    scale: Scale = Scale()
    """How strongly each vector is added."""
    positions: Literal["generated", "all"] = "generated"
    """Whose activations are averaged: generated tokens, or prompt tokens too. BOS never."""


class Approximator(Section):
    """The linear map from a unit steering vector to its effects, ``effects ≈ vector @ M + b``."""

    method: Literal["ridge", "adam"] = "ridge"
    """``ridge``: closed form, penalty chosen on the validation rows. ``adam``: the published recipe."""
    penalties: list[Annotated[float, Field(gt=0)]] = Field(default=[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], min_length=1)
    """``ridge``: penalties tried, as multiples of the mean eigenvalue of the vectors' covariance."""
    epochs: int = Field(default=15, ge=1)
    """``adam``: passes over the training rows."""
    validation: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the rows that choose the penalty; as many again are held out for the metrics."""
