"""The weights of an SAE while it is trained, in normalised units: centred inputs with mean squared
norm d_model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.config.sections import SAETraining
from saeflow.saes.architectures import ARCHITECTURES, Own
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.parallel import ALONE, Share
from saeflow.saes.sae import SAE

_ROWS_AT_ONCE = 128  # so that they stay in the cache


@dataclass(frozen=True)
class Normalisation:
    """How activations become what is read or rebuilt in training, ``(x - mean) · scale``.

    Attributes:
        mean: of the cached activations; so the decoder's bias starts at the mean.
        scale: brings the mean squared norm to d_model, which makes one learning rate and one
            coefficient fit all hooks; of several sources side by side, each has its own.
    """

    mean: Float[Tensor, " width"]
    scale: Float[Tensor, " width"]

    @classmethod
    def of(cls, mean: Float[Tensor, " d_model"], variance: float) -> Normalisation:
        """From the mean, fp64, and the mean squared distance to it."""
        return cls(mean, torch.full_like(mean, (len(mean) / variance) ** 0.5))

    @classmethod
    def joined(cls, sources: Sequence[Normalisation]) -> Normalisation:
        """Of several sources whose activations lie side by side."""
        return cls(
            torch.cat([one.mean for one in sources]), torch.cat([one.scale for one in sources])
        )

    def to(self, device: str) -> Normalisation:
        """For activations on a device."""
        return replace(self, mean=self.mean.to(device), scale=self.scale.to(device))

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Normalised activations in fp32."""
        return (x - self.mean.float()).mul_(self.scale.float())


@dataclass(frozen=True)
class Dictionary:
    """Trainable weights; the encoder is stored by latents, as the decoder is, for the sparse
    products.

    Attributes:
        decoder: rows of unit norm.
        threshold: one number per latent, trained (``jumprelu``), or one number, kept as a running
            mean (``batchtopk``, ``matryoshka``), or zero.
        r_mag: ``gated``: logarithm of the magnitude's scale; else zero.
        b_mag: ``gated``: the magnitude's bias; else zero.
        n_sources: how many sources lie side by side in what is read and rebuilt.
    """

    encoder: Float[Tensor, "d_sae d_in"]
    decoder: Float[Tensor, "d_sae d_out"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_out"]
    threshold: Float[Tensor, " d_sae"] | Float[Tensor, ""]
    r_mag: Float[Tensor, " d_sae"] | Float[Tensor, ""]
    b_mag: Float[Tensor, " d_sae"] | Float[Tensor, ""]
    n_sources: int = 1

    @classmethod
    def initial(
        cls,
        d_in: int,
        settings: SAETraining,
        generator: torch.Generator,
        d_out: int | None = None,
        n_sources: int = 1,
        share: Share = ALONE,
    ) -> Dictionary:
        """Random unit directions, biases zero; the encoder is the decoder's transpose, or its own
        without one.

        Args:
            d_in: width of what is read, all sources together.
            settings: of the SAE.
            generator: of the directions; every process draws all and keeps its own.
            d_out: width of what is rebuilt, where it is another activation (a transcoder).
            n_sources: how many sources lie side by side.
            share: which latents to keep.
        """

        def directions(width: int) -> Tensor:
            rows = normalize(torch.randn(settings.d_sae, width, generator=generator), dim=1)
            return rows[share.part(settings.d_sae)].clone()

        encoder = directions(d_in)
        decoder = encoder.clone() if d_out is None else directions(d_out)
        zeros, none = torch.zeros(len(encoder)), torch.zeros(())
        jumps, gates = settings.architecture == "jumprelu", settings.architecture == "gated"
        return cls(
            encoder,
            decoder,
            b_enc=zeros,
            b_dec=torch.zeros(decoder.shape[1]),
            threshold=zeros.clone() if jumps else none,
            r_mag=zeros.clone() if gates else none,
            b_mag=zeros.clone() if gates else none,
            n_sources=n_sources,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def trained(self) -> dict[str, Tensor]:
        """Those that gradients change."""
        return {name: tensor for name, tensor in self.tensors().items() if tensor.ndim}

    def to(self, device: str) -> Dictionary:
        """The same weights on a device, ready for gradients."""
        moved: dict[str, Any] = {
            name: tensor.detach().to(device, copy=True).requires_grad_(tensor.ndim > 0)
            for name, tensor in self.tensors().items()
        }
        return replace(self, **moved)

    def joined(self, share: Share) -> Dictionary:
        """The weights of all processes."""
        if share.world == 1:
            return self
        per_latent = {
            name: tensor.detach() for name, tensor in self.trained().items() if name != "b_dec"
        }
        whole: dict[str, Any] = {name: share.joined(tensor) for name, tensor in per_latent.items()}
        return replace(self, **whole)

    def own(self) -> Own:
        """What the architecture's functions read."""
        price = self.decoder.new_ones(())
        if self.n_sources > 1:
            price = self.decoder.view(len(self.decoder), self.n_sources, -1).norm(dim=2).sum(dim=1)
        return Own(self.threshold, self.r_mag, self.b_mag, price)

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Remove the part of the decoder's gradient that would only change its rows' norms."""
        gradient = self.decoder.grad
        if gradient is not None:
            for part, rows in zip(
                *(torch.split(matrix, _ROWS_AT_ONCE) for matrix in (gradient, self.decoder)),
                strict=True,
            ):
                part.addcmul_(torch.linalg.vecdot(part, rows)[:, None], rows, value=-1)

    @torch.no_grad()
    def project(self) -> None:
        """Bring decoder rows back to unit norm and thresholds back to at least zero."""
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def folded(
        self,
        read: Normalisation,
        written: Normalisation,
        settings: SAETraining,
        metadata: Mapping[str, Any],
    ) -> SAE:
        """The SAE that reads raw activations and gives, in their units, exactly what this one
        gives.

        With x̂ = s (x - m), a decoder row is divided by the scale of what is written; the norm n
        that it then has goes to the latent: ``W_enc = n s encoder``, ``b_enc = n (b_enc - m s
        encoder)``, ``threshold n``. A gated SAE's bias is told apart into that of its gate and that
        of its magnitude.
        """
        wide = {
            name: tensor.detach().double().cpu()
            for name, tensor in self.tensors().items()
            if tensor.ndim < 2
        }
        price = self.own().price.detach().double().cpu()
        # The matrices in place and one after the other: each is twice its size in fp64.
        rows = self.decoder.detach().double().cpu().div_(written.scale.double().cpu())
        norm = rows.norm(dim=1)
        w_dec = rows.div_(norm[:, None]).float()
        del rows
        encoder = self.encoder.detach().double().cpu().mul_(read.scale.double().cpu())
        b_enc = (wide["b_enc"] - encoder @ read.mean.double().cpu()) * norm
        w_enc = encoder.mul_(norm[:, None]).float().T.contiguous()
        del encoder
        inference = ARCHITECTURES[settings.architecture].inference
        gates = inference == "gated"
        return SAE(
            architecture=inference,
            W_enc=w_enc,
            W_dec=w_dec,
            b_enc=torch.zeros(len(norm)) if gates else b_enc.float(),
            b_dec=(
                wide["b_dec"] / written.scale.double().cpu() + written.mean.double().cpu()
            ).float(),
            threshold=(wide["threshold"] / price * norm).float()
            if inference == "jumprelu"
            else None,
            k=settings.k if inference == "topk" else None,
            r_mag=wide["r_mag"].float() if gates else None,
            b_gate=b_enc.float() if gates else None,
            b_mag=(wide["b_mag"] * norm + wide["r_mag"].exp() * b_enc).float() if gates else None,
            metadata=metadata,
        )


def as_crosscoder(sae: SAE, n_sources: int, read: Normalisation) -> Crosscoder:
    """An SAE that reads several sources side by side, as what it is.

    Args:
        sae: trained on a feed of several sources.
        n_sources: how many.
        read: the feed's normalisation, which tells how large each source's activations are.
    """
    return Crosscoder(
        W_enc=sae.W_enc.view(n_sources, -1, sae.d_sae),
        W_dec=sae.W_dec.view(sae.d_sae, n_sources, -1),
        b_enc=sae.b_enc,
        b_dec=sae.b_dec.view(n_sources, -1),
        scale=(sae.b_dec.numel() / n_sources) ** 0.5
        / read.scale.view(n_sources, -1)[:, 0].float().cpu(),
        threshold=sae.threshold,
        metadata=sae.metadata,
    )
