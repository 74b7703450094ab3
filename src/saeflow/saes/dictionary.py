"""The weights of an SAE while it is trained, in normalised units: centred inputs with mean squared
norm d_model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.saes.parallel import ALONE, TensorParallel
from saeflow.saes.sparse import Unsummed, some_rows

_ALL = slice(None)
ROWS_AT_ONCE = 128  # so that they stay in the cache


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
        means, scales = zip(*((source.mean, source.scale) for source in sources), strict=True)
        return cls(torch.cat(means), torch.cat(scales))

    def to(self, device: str) -> Normalisation:
        """For activations on a device."""
        return replace(self, mean=self.mean.to(device), scale=self.scale.to(device))

    def in_fp64(self) -> Normalisation:
        """On the CPU, for folding."""
        return Normalisation(self.mean.double().cpu(), self.scale.double().cpu())

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Normalised activations in fp32."""
        return (x - self.mean.float()).mul_(self.scale.float())


class DictionaryShape(NamedTuple):
    """The widths of a dictionary.

    Attributes:
        d_sae: number of latents.
        d_in: width of what is read, all sources together.
        d_out: width of what a transcoder writes; None where what is read is rebuilt.
        n_sources: how many sources lie side by side.
    """

    d_sae: int
    d_in: int
    d_out: int | None = None
    n_sources: int = 1


@dataclass(frozen=True)
class Dictionary:
    """Trainable weights; the encoder is stored by latents, as the decoder is, for the sparse
    products.

    Attributes:
        decoder: rows of unit norm.
        own: what the architecture has besides: one number per latent, trained, or one for all, kept
            without gradients.
        n_sources: how many sources lie side by side in what is read and rebuilt.
        frozen: the matrix that no gradient changes, if there is one.
        unsummed: gradients of encoder and decoder that wait to be added up, block by block; where
            there is no place for them, autograd writes them as a whole.
    """

    encoder: Float[Tensor, "d_sae d_in"]
    decoder: Float[Tensor, "d_sae d_out"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_out"]
    own: Mapping[str, Float[Tensor, " d_sae"] | Float[Tensor, ""]] = field(default_factory=dict)
    n_sources: int = 1
    frozen: Literal["encoder", "decoder"] | None = None
    unsummed: Mapping[str, Unsummed] = field(default_factory=dict)

    @classmethod
    def random(
        cls,
        shape: DictionaryShape,
        generator: torch.Generator,
        parallel: TensorParallel = ALONE,
    ) -> Dictionary:
        """Random unit directions, biases zero; the encoder is the decoder's transpose, or its own
        in a transcoder.

        Args:
            shape: of the whole.
            generator: of the directions; every process draws all and keeps its own.
            parallel: which latents to keep.
        """

        def directions(width: int) -> Tensor:
            rows = normalize(torch.randn(shape.d_sae, width, generator=generator), dim=1)
            return rows[parallel.latents(shape.d_sae)].clone()

        encoder = directions(shape.d_in)
        decoder = encoder.clone() if shape.d_out is None else directions(shape.d_out)
        b_enc, b_dec = torch.zeros(len(encoder)), torch.zeros(decoder.shape[1])
        return cls(encoder, decoder, b_enc, b_dec, n_sources=shape.n_sources)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        matrices = {"encoder": self.encoder, "decoder": self.decoder}
        return {**matrices, "b_enc": self.b_enc, "b_dec": self.b_dec, **self.own}

    def trained(self) -> dict[str, Tensor]:
        """Those that gradients change."""
        return {
            name: tensor
            for name, tensor in self.tensors().items()
            if tensor.ndim and name != self.frozen
        }

    def mapped(self, change: Callable[[str, Tensor], Tensor]) -> Dictionary:
        """The same with every tensor changed, given its name."""
        changed: dict[str, Any] = {
            name: change(name, tensor) for name, tensor in self.tensors().items()
        }
        own = {name: changed.pop(name) for name in self.own}
        return replace(self, **changed, own=own)

    def to(self, device: str) -> Dictionary:
        """The same weights on a device, ready for gradients, row after row in memory: fused Adam
        takes the numbers as they lie."""

        def ready(name: str, tensor: Tensor) -> Tensor:
            copied = tensor.detach().to(device, copy=True, memory_format=torch.contiguous_format)
            return copied.requires_grad_(tensor.ndim > 0 and name != self.frozen)

        return self.mapped(ready)

    def detached(self) -> Dictionary:
        """The same weights, through which no gradient passes."""
        return self.mapped(lambda _, tensor: tensor.detach())

    def gathered(self, parallel: TensorParallel) -> Dictionary:
        """The weights of all processes."""
        return self.detached().mapped(
            lambda name, tensor: (
                parallel.all_gather(tensor) if name != "b_dec" and tensor.ndim else tensor
            )
        )

    def of_latents(self) -> dict[str, Tensor]:
        """What an architecture's functions read of latents: its own parameters and
        ``decoder_norm``."""
        norm = self.decoder.new_ones(())
        if self.n_sources > 1:
            norm = self.decoder.view(len(self.decoder), self.n_sources, -1).norm(dim=2).sum(dim=1)
        return {**self.own, "decoder_norm": norm}

    def rows(self, name: str, latents: Int64[Tensor, " some"]) -> Float[Tensor, "some width"]:
        """Some rows of encoder or decoder, for autograd."""
        return some_rows(self.tensors()[name], latents, self.unsummed.get(name))

    def has_gradient(self, name: str) -> bool:
        """Whether a weight has a gradient, added up or not."""
        return self.tensors()[name].grad is not None or bool(self.unsummed.get(name))

    @torch.no_grad()
    def gradient(self, name: str, latents: slice) -> Tensor:
        """The gradient of some latents of a weight that has one, added up as autograd would."""
        tensor = self.tensors()[name]
        parts = [part.of(latents) for part in self.unsummed.get(name, [])]
        if tensor.grad is not None:
            parts.insert(0, tensor.grad[latents])
        total = parts[0]
        for part in parts[1:]:
            total.add_(part)
        return total

    @torch.no_grad()
    def project_gradient(self, gradient: Float[Tensor, "latents d_out"], latents: slice) -> None:
        """Remove the part of some decoder rows' gradient that would only change their norms."""
        parts = (torch.split(matrix, ROWS_AT_ONCE) for matrix in (gradient, self.decoder[latents]))
        for part, rows in zip(*parts, strict=True):
            part.addcmul_(torch.linalg.vecdot(part, rows)[:, None], rows, value=-1)

    def drop_gradients(self) -> None:
        """Of all weights, added up or not."""
        for tensor in self.trained().values():
            tensor.grad = None
        for parts in self.unsummed.values():
            parts.clear()

    @torch.no_grad()
    def project(self, latents: slice = _ALL) -> None:
        """Bring decoder rows back to unit norm."""
        rows = self.decoder[latents]
        rows.div_(rows.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def keep_near(self, begun: Float[Tensor, "d_sae d_out"], cosine: float) -> None:
        """Bring decoder rows that have left the cone around where they began back to its edge, each
        by the shortest way."""
        along = torch.linalg.vecdot(self.decoder, begun)
        far = (along < cosine).nonzero()[:, 0]
        beside = normalize(self.decoder[far] - along[far, None] * begun[far], dim=1)
        edge = cosine * begun[far] + (1 - cosine**2) ** 0.5 * beside
        self.decoder[far] = normalize(edge, dim=1)
