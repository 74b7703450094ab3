"""The weights of an SAE while it is trained, in normalised units: centred inputs with mean squared norm d_model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.config.sections import SAETraining
from saeflow.saes.architectures import ARCHITECTURES, initial_threshold
from saeflow.saes.sae import SAE


@dataclass(frozen=True)
class Normalisation:
    """How activations become the SAE's input while it is trained, ``(x - mean) · scale``.

    Attributes:
        mean: of the cached activations; so the decoder's bias starts at the mean.
        scale: brings the mean squared norm to d_model, which makes one learning rate and one coefficient fit all hooks.
    """

    mean: Float[Tensor, " d_model"]
    scale: float

    @classmethod
    def of(cls, mean: Float[Tensor, " d_model"], variance: float) -> Normalisation:
        """From the mean, fp64, and the mean squared distance to it."""
        return cls(mean, (len(mean) / variance) ** 0.5)

    def __call__(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_model"]:
        """Normalised activations in fp32."""
        return (x.float() - self.mean.to(x.device, torch.float32)) * self.scale


@dataclass(frozen=True)
class Dictionary:
    """Trainable weights; the encoder is stored by latents, as the decoder is, for the sparse products.

    Attributes:
        decoder: rows of unit norm.
        threshold: one number per latent, trained (``jumprelu``), or one number, kept as a running mean
            (``batchtopk``), or zero.
    """

    encoder: Float[Tensor, "d_sae d_model"]
    decoder: Float[Tensor, "d_sae d_model"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_model"]
    threshold: Float[Tensor, " d_sae"] | Float[Tensor, ""]

    @classmethod
    def initial(cls, d_model: int, settings: SAETraining, generator: torch.Generator) -> Dictionary:
        """Random unit directions, the encoder the decoder's transpose, biases zero."""
        decoder = normalize(torch.randn(settings.d_sae, d_model, generator=generator), dim=1)
        return cls(
            encoder=decoder.clone(),
            decoder=decoder,
            b_enc=torch.zeros(settings.d_sae),
            b_dec=torch.zeros(d_model),
            threshold=initial_threshold(settings),
        )

    def to(self, device: str) -> Dictionary:
        """The same weights on a device, ready for gradients."""
        moved = {name: tensor.detach().to(device) for name, tensor in vars(self).items()}
        for name, tensor in moved.items():
            tensor.requires_grad_(name != "threshold" or tensor.ndim == 1)
        return Dictionary(**moved)

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Remove the part of the decoder's gradient that would only change its rows' norms."""
        gradient = self.decoder.grad
        if gradient is not None:
            along = torch.linalg.vecdot(gradient, self.decoder)
            gradient.addcmul_(along[:, None], self.decoder, value=-1)

    @torch.no_grad()
    def project(self) -> None:
        """Bring decoder rows back to unit norm and thresholds back to at least zero."""
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def folded(self, normalisation: Normalisation, settings: SAETraining, metadata: Mapping[str, Any]) -> SAE:
        """The SAE that reads raw activations and gives, in their units, exactly what this one gives.

        With x̂ = s (x - m): latents z = ẑ / s, so ``W_enc`` stays, ``b_enc/s - m W_enc``, ``threshold/s`` and
        ``b_dec/s + m``.
        """
        scale, mean = normalisation.scale, normalisation.mean.double().cpu()
        encoder = self.encoder.double().cpu()
        inference = ARCHITECTURES[settings.architecture].inference
        threshold = self.threshold.double().cpu().expand(settings.d_sae) / scale
        return SAE(
            architecture=inference,
            W_enc=encoder.T.float().contiguous(),
            W_dec=self.decoder.detach().cpu().clone(),
            b_enc=(self.b_enc.double().cpu() / scale - encoder @ mean).float(),
            b_dec=(self.b_dec.double().cpu() / scale + mean).float(),
            threshold=threshold.float().contiguous() if inference == "jumprelu" else None,
            k=settings.k if inference == "topk" else None,
            metadata=metadata,
        )
