"""How the effects of steering vectors are measured and approximated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import Complaint, InputPath, Name, Section, Text, refuse
from saeflow.config.sections.prompts import Prompt
from saeflow.config.sections.published import Published, Source, disputes, of_a_kind
from saeflow.config.sections.sampling import Sampling


class Scale(Section):
    """How much of a steering vector is added while its effects are measured."""

    rule: Literal["loss_increase", "loss", "fixed"] = "loss_increase"
    """``loss_increase``: the unsteered loss plus ``value`` nats per token (the paper's rule).
    ``loss``: an absolute loss (the published code's). ``fixed``: the scale itself."""
    value: float = Field(default=0.5, gt=0)
    """What the rule aims at, in the rule's unit."""
    maximum: float = Field(default=4.0, gt=0)
    """Largest scale tried, as a multiple of the mean activation norm at the hook."""
    search: Literal["bisect", "scan"] = "bisect"
    """``scan``: the published linear scan with interpolation, for parity."""
    steps: int = Field(default=10, ge=2)
    """``bisect``: the finest bracket is ``maximum`` halved this often; the search ends once the
    loss is within 5 % of the wanted rise. ``scan``: intervals up to ``maximum``."""
    tokens: int = Field(default=2048, ge=64)
    """Tokens of the split ``eval`` whose loss is measured, per scale tried."""


class Vectors(Section):
    """The vectors whose effects are measured, by their numbers in a source; each is brought to unit
    norm."""

    kind: Literal["decoder", "mixtures", "random", "file", "sae_ts"] = "decoder"
    """``decoder``: rows of an SAE's decoder. ``mixtures``: of two such rows. ``random``: directions
    drawn uniformly. ``file``: rows of a safetensors file. ``sae_ts``: a second round, the SAE-TS
    vector of every latent by an approximator that was fitted before."""
    sae: Name | None = None
    """``decoder``, ``mixtures``: the SAE of ``saes`` whose rows are taken, a wider one for
    instance; null is the one whose latents are measured."""
    path: InputPath | None = None
    """``file``: the safetensors file; ``sae_ts``: the approximator.safetensors. ``${NAME}`` is read
    from the environment."""
    tensor: Text = "vectors"
    """``file``: which tensor of the file, ``[n, d_model]``."""
    bias_weight: float = Field(default=1.0, ge=0)
    """``sae_ts``: weight of the bias term that is subtracted (λ)."""
    range: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, min_length=2, max_length=2
    )
    """First vector and the one after the last; null is all. Of ``mixtures`` and ``random`` there
    are as many as is asked for, and by default one per latent of the SAE."""

    block_size: int = Field(default=128, ge=1)
    """Vectors per shard; part of the result's identity."""

    @model_validator(mode="after")
    def _agrees(self) -> Vectors:
        complaints: list[Complaint] = []
        if (self.path is None) == (self.kind in ("file", "sae_ts")):
            reason = "needs one" if self.path is None else "reads no file"
            complaints.append(("path", f"kind '{self.kind}' {reason}"))
        if self.sae and self.kind not in ("decoder", "mixtures"):
            complaints.append(("sae", f"kind '{self.kind}' takes no rows of an SAE; remove it"))
        if self.range and self.range[0] >= self.range[1]:
            reason = f"{self.range} holds no vector; the second number must be the larger"
            complaints.append(("range", reason))
        refuse(complaints)
        return self


class Measurement(Section):
    """How effects are measured: what the model writes with and without a vector."""

    prompts: list[Prompt] = Field(default=["", "I think", "Last night"], min_length=1)
    """What the rollouts start from, text or messages; the empty text is BOS alone, and a prompt
    named twice weighs twice."""
    samples: int = Field(default=8, ge=1)
    """Rollouts per vector and prompt."""
    baseline_samples: int = Field(default=128, ge=2)
    """Unsteered rollouts per prompt."""
    new_tokens: int = Field(default=24, ge=1)
    """Tokens generated per rollout, at most: what follows the end of a text or of a turn is not
    read."""
    sampling: Sampling = Sampling()
    """How the rollouts' tokens are drawn."""
    scale: Scale = Scale()
    """How strongly each vector is added."""
    positions: Literal["generated", "all"] = "generated"
    """Whose activations are averaged: generated tokens, or prompt tokens too. BOS never."""


class Approximator(Section):
    """The linear map from a unit steering vector to its effects, ``effects ≈ vector @ M + b``."""

    method: Literal["ridge", "adam"] = "ridge"
    """``ridge``: closed form, penalty chosen on the validation rows. ``adam``: the published
    recipe."""
    penalties: list[Annotated[float, Field(gt=0)]] = Field(
        default=[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], min_length=1
    )
    """``ridge``: penalties tried, as multiples of the mean eigenvalue of the vectors'
    covariance."""
    epochs: int = Field(default=15, ge=1)
    """``adam``: passes over the training rows."""
    validation: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the rows that choose the penalty; as many again are held out for the metrics."""
    published: Published | None = None
    """An approximator on a hub: an ``approximator.safetensors`` of this library, or a ``.pt`` file
    as in the release of SAE-TS."""
    source: Source = "auto"
    """``auto``: the approximator on disk, else ``published``, else fitted here. ``compute`` and
    ``fetch`` insist."""

    @model_validator(mode="after")
    def _has_its_source(self) -> Approximator:
        refuse(
            [
                *disputes(self.published, self.source, None),
                *of_a_kind(self.published, ".safetensors", ".pt"),
            ]
        )
        return self


class Effects(Section):
    """What steering vectors do to the mean activation of every latent."""

    sae: Name | None = None
    """The SAE whose latents' effects are measured; null is the first of ``saes``."""
    vectors: Vectors = Vectors()
    """Which vectors."""
    measurement: Measurement = Measurement()
    """How their effects are measured."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the effects in effects.h5; float16 halves the file and keeps three digits."""
    approximator: Approximator = Approximator()
    """What is fitted to them."""
    published: Published | None = None
    """Effects on a hub: an ``effects.h5`` of this library, or a ``.pt`` file as in the release of
    SAE-TS."""
    source: Source = "auto"
    """``auto``: effects on disk, else ``published``, else measured here. ``compute`` and ``fetch``
    insist."""

    @model_validator(mode="after")
    def _has_its_source(self) -> Effects:
        refuse(
            [*disputes(self.published, self.source, None), *of_a_kind(self.published, ".h5", ".pt")]
        )
        return self
