"""A trained sparse autoencoder: closed forms for encoding and decoding, and nothing about
training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.products import linear
from saeflow.saes.named_places import WRITTEN

INFERENCE_ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")
PER_TOKEN = ("layer_norm", "constant_norm_rescale")
"""Normalisations of each token's activation by itself, in SAELens' words."""
_LAYER_NORM_EPSILON = 1e-5  # of OpenAI's SAEs and SAELens


@dataclass(frozen=True)
class SAE:
    """Weights of an SAE, or of a transcoder, in the activations' own units.

    The encoder reads the activation itself; a subtraction of a bias before it and a normalisation
    that is the same for all tokens are folded into ``W_enc`` and ``b_enc`` when an SAE is trained
    or loaded. One that differs from token to token no weights can stand for (`per_token`). A
    transcoder is an SAE whose decoder writes the activation of another hook, of a width of its own.

    Attributes:
        architecture: ``standard`` (ReLU), ``topk``, ``jumprelu`` or ``gated``.
        W_dec: rows of unit norm, so a latent's value is the length of what it adds.
        b_enc: ``gated``: part of the pre-activation that gate and magnitude share.
        threshold: ``jumprelu``: a latent is active where its pre-activation is above it.
        k: ``topk``: most active latents per row.
        r_mag: ``gated``: logarithm of the magnitude's scale relative to the gate's.
        b_gate: ``gated``: a latent is active where its pre-activation plus this is above zero.
        b_mag: ``gated``: its value is the scaled pre-activation plus this.
        W_skip: a transcoder's linear path past the latents.
        per_token: ``layer_norm``: encoder and decoder work on activations less their mean over the
            width, divided by their standard deviation. ``constant_norm_rescale``: on activations
            of norm √d_model. None: on activations as they are.
        metadata: what it was trained on: ``model_name``, ``hook_name`` and more; a transcoder's
            ``hook_name_out``.
    """

    architecture: str
    W_enc: Float[Tensor, "d_model d_sae"]
    W_dec: Float[Tensor, "d_sae d_out"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_out"]
    threshold: Float[Tensor, " d_sae"] | None = None
    k: int | None = None
    r_mag: Float[Tensor, " d_sae"] | None = None
    b_gate: Float[Tensor, " d_sae"] | None = None
    b_mag: Float[Tensor, " d_sae"] | None = None
    W_skip: Float[Tensor, "d_out d_model"] | None = None
    per_token: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def d_model(self) -> int:
        """Width of the activations it reads."""
        return self.W_enc.shape[0]

    @property
    def d_out(self) -> int:
        """Width of the activations it writes; `d_model` unless it is a transcoder."""
        return self.W_dec.shape[1]

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes another activation than the one it reads."""
        named = self.metadata.keys() & set(WRITTEN)
        return bool(named) or self.W_skip is not None or self.d_out != self.d_model

    def written_hook(self, hook: str) -> str:
        """Where the SAE writes that reads at a hook: there, or where a transcoder says.

        Raises:
            SaeflowError: it is a transcoder that does not say.
        """
        if not self.is_transcoder:
            return hook
        if "hook_name_out" not in self.metadata:
            raise SaeflowError(
                "sae: is a transcoder that does not say where it writes; import it with a target"
            )
        return str(self.metadata["hook_name_out"])

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[1]

    @property
    def centred(self) -> bool:
        """Whether it rebuilds activations less their mean over the width; see `for_uncentred`."""
        return bool(self.metadata.get("centred", False))

    def target(self, x: Float[Tensor, "... d_out"]) -> Float[Tensor, "... d_out"]:
        """What an SAE rebuilds of the activation where it writes, and is measured against."""
        return x - x.mean(dim=-1, keepdim=True) if self.centred else x

    def to(self, device: str | torch.device) -> SAE:
        """The same SAE on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors_of(self)}
        return replace(self, **moved)

    def encode(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_sae"]:
        """Values of all latents, ``activation(x W_enc + b_enc)``.

        Args:
            x: activations in any floating dtype; the latents are computed in the weights' dtype.

        Raises:
            SaeflowError: the activations have another width.
        """
        if x.shape[-1] != self.d_model:
            raise SaeflowError(
                f"sae: reads activations of width {self.d_model}, these have width {x.shape[-1]}; "
                f"it was trained at {self.metadata.get('hook_name', 'another hook')}"
            )
        normalised, _, _ = self._normalised(x.to(self.W_enc.dtype))
        pre = linear(normalised, self.W_enc.T, self.b_enc)
        if self.architecture == "topk":
            values, indices = pre.topk(self.k or 0, dim=-1, sorted=False)
            return torch.zeros_like(pre).scatter_(-1, indices, values.relu())
        if self.threshold is not None:
            # A product takes a quarter of the time of torch.where on a CPU.
            return pre * (pre > self.threshold.clamp_min(0))
        if self.r_mag is not None and self.b_gate is not None and self.b_mag is not None:
            magnitude = pre * self.r_mag.exp() + self.b_mag
            return torch.where(pre + self.b_gate > 0, magnitude, 0.0).relu()
        return pre.relu()

    def reach(
        self, x: Float[Tensor, "... d_model"], latents: Int[Tensor, " n"]
    ) -> Float[Tensor, "... n"]:
        """Values of some latents where they are active; where they are not, how far they are from
        it, as a number that is 0 at most, and rises as they come closer.

        A search for what makes a latent fire needs a slope where it does not fire yet.

        Args:
            x: activations in any floating dtype.
            latents: which.
        """
        normalised, _, _ = self._normalised(x.to(self.W_enc.dtype))
        if self.architecture == "topk":
            every = linear(normalised, self.W_enc.T, self.b_enc)
            last = every.topk(self.k or 0, dim=-1).values[..., -1:].clamp_min(0)
            pre = every[..., latents]
            return torch.where((pre >= last) & (pre > 0), pre, (pre - last).clamp_max(0))
        pre = normalised @ self.W_enc[:, latents] + self.b_enc[latents]
        if self.threshold is not None:
            above = pre - self.threshold[latents].clamp_min(0)
            return torch.where(above > 0, pre, above)
        if self.r_mag is not None and self.b_gate is not None and self.b_mag is not None:
            gate = pre + self.b_gate[latents]
            magnitude = pre * self.r_mag[latents].exp() + self.b_mag[latents]
            return torch.where(gate > 0, magnitude, gate)
        return pre

    def _normalised(
        self, x: Float[Tensor, "... d_model"]
    ) -> tuple[Float[Tensor, "... d_model"], Float[Tensor, "... 1"] | float, Tensor | float]:
        """What the encoder reads, and by what and with what the decoder's output is multiplied and
        moved."""
        if self.per_token is None:
            return x, 1.0, 0.0
        mean = x.mean(dim=-1, keepdim=True)
        if self.per_token == "layer_norm":
            deviation = (x - mean).std(dim=-1, keepdim=True)
            moved = 0.0 if self.centred else mean
            return (x - mean) / (deviation + _LAYER_NORM_EPSILON), deviation, moved
        x = x - mean if self.centred else x
        length = x.norm(dim=-1, keepdim=True) / self.d_model**0.5
        return x / length.clamp_min(torch.finfo(x.dtype).tiny), length, 0.0

    def decode(self, z: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_out"]:
        """The activation that latents stand for, ``z W_dec + b_dec``; normalised, where the SAE
        normalises each token's."""
        return z @ self.W_dec + self.b_dec

    def reconstruct(
        self, x: Float[Tensor, "... d_model"], z: Float[Tensor, "... d_sae"] | None = None
    ) -> Float[Tensor, "... d_out"]:
        """What is written for activations: their latents ``z`` decoded, and what passes the latents
        by."""
        through = self.decode(self.encode(x) if z is None else z)
        if self.W_skip is not None:
            through = through + x.to(self.W_skip.dtype) @ self.W_skip.T
        if self.per_token is None:
            return through
        _, scale, moved = self._normalised(x.to(self.W_enc.dtype))
        return through * scale + moved


def tensors_of(weights: object) -> Iterator[tuple[str, Tensor]]:
    """The fields of a data class that hold tensors, with their names."""
    return ((name, value) for name, value in vars(weights).items() if isinstance(value, Tensor))
