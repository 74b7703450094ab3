"""What an architecture is asked for, and what all have in common: the loss of a batch by sparse or
by dense products, the first step, and folding.

Everything is in the normalised units of training. ``own`` are the parameters that an architecture
has besides encoder and decoder, by name, and ``decoder_norm``, the sum over sources of the norms of
a latent's decoder row, which is 1 where there is one source: one number per latent, or one for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.config.sections import SAETraining
from saeflow.errors import SaeflowError
from saeflow.products import dtype_on
from saeflow.saes.dictionary import Dictionary, DictionaryShape, Normalisation
from saeflow.saes.objective import Fit, Outcome, PreActivations, mean_square
from saeflow.saes.parallel import ALONE, TensorParallel
from saeflow.saes.sae import SAE, tensors_of
from saeflow.saes.sparse import Choose, Entries, encoded, of_entries, scan, scan_dense

Scan = Callable[[Choose], Entries]
# Active latents of a row before the first step where none are aimed at, in units of d_in; a code of
# more is not sparse.
_FIRST_L0 = 1 / 4


class Architecture:
    """One kind of SAE, the settings of one, and which of its latents this process has.

    The functions of values work on all latents of a batch and on the entries of a sparse one alike;
    ``own`` has one number for each value then. Sparse and dense products give the same value and
    the same gradients.

    Attributes:
        inference: the architecture of the trained `SAE`.
        k: active latents per token at this step, where they are given.
        in_units_of_pre: own parameters that are compared with pre-activations or added to them.
        rates: learning rates of own parameters relative to that of the weights.
        longest_row: bound of an encoder's row before the first step.
    """

    inference: ClassVar[str]
    in_units_of_pre: ClassVar[tuple[str, ...]] = ()
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})
    longest_row: ClassVar[float] = inf

    def __init__(self, settings: SAETraining, parallel: TensorParallel = ALONE) -> None:
        self.settings, self.parallel, self.k = settings, parallel, settings.k

    def own_parameters(self, n_latents: int) -> dict[str, Tensor]:
        """The own parameters before anything is known; one of a single number is not trained."""
        return {}

    def initial_weights(self, shape: DictionaryShape, generator: torch.Generator) -> Dictionary:
        """Random directions of this process's latents; see `Dictionary.random`."""
        weights = Dictionary.random(shape, generator, self.parallel)
        return replace(weights, own=self.own_parameters(len(weights.encoder)))

    def start_at(self, floor: Float[Tensor, " d_sae"], weights: Dictionary) -> None:
        """Let every latent begin to be active at a pre-activation; not asked where k is given."""
        weights.b_enc.sub_(floor)

    def select(self, scan: Scan, own: Mapping[str, Tensor]) -> Entries:
        """Find the entries through which a value or a gradient passes."""
        raise NotImplementedError

    def activation(self, pre: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        """Pre-activations to latents, element by element, for selected entries."""
        return pre.relu()

    def penalty(self, pre: Tensor, own: Mapping[str, Tensor], rows: int) -> Float[Tensor, ""]:
        """The price of activity, per row; nothing where the number of active latents is given."""
        return pre.new_zeros(())

    def fit(self, pre: PreActivations, latents: Tensor, target: Tensor, weights: Dictionary) -> Fit:
        """How well latents reconstruct the target: all together, by default."""
        decoded = self.parallel.all_sum(pre.decode(latents, weights))
        excess = decoded.sub(target).add_(weights.b_dec)
        error = mean_square(excess)
        loss = error
        if self.settings.delta:
            first, second = excess.chunk(2, dim=1)
            loss = error + self.settings.delta * 2 * (first * second).sum() / excess.numel()
        return Fit(loss, error, excess.detach())

    def follow(self, outcome: Outcome, weights: Dictionary) -> None:
        """Change what follows the batches without gradients."""

    def project(self, weights: Dictionary) -> None:
        """Bring own parameters back to where they may be, after a step."""

    def revive(self, dead: Tensor, alive: Tensor, weights: Dictionary, share: float) -> None:
        """Set the own parameters of dead latents for a new beginning.

        Args:
            dead: their indices among this process's latents.
            alive: which latents are not dead.
            weights: changed in place.
            share: size of a new encoder row relative to the living ones.
        """
        for tensor in weights.own.values():
            if tensor.ndim:
                tensor[dead] = 0.0

    def fields(
        self, own: Mapping[str, Tensor], norm: Float[Tensor, " d_sae"], b_enc: Tensor
    ) -> dict[str, Any]:
        """What the trained `SAE` has besides matrices and the decoder's bias.

        Args:
            own: the parameters as trained, fp64.
            norm: what a latent is multiplied by to be in the activations' own units.
            b_enc: the encoder's bias, in these units.
        """
        return {"b_enc": b_enc.float()}

    def by_sparse_products(
        self,
        x: Float[Tensor, "rows d_in"],
        target: Float[Tensor, "rows d_out"],
        weights: Dictionary,
    ) -> Outcome:
        """Reconstruct a batch and price it, touching only what is selected.

        Args:
            x: what is read, normalised.
            target: what is rebuilt, normalised; ``x`` itself unless it is a transcoder.
            weights: those of this process's latents.
        """
        own, dtype = weights.of_latents(), self._dtype_on(x.device)
        entries = self.select(partial(scan, x, weights.encoder, weights.b_enc, dtype=dtype), own)
        unsummed = weights.unsummed.get("encoder")
        pre = encoded(x, weights.encoder, weights.b_enc, entries, unsummed)
        own = {
            name: of_entries(value, entries) if value.ndim else value for name, value in own.items()
        }
        latents = self.activation(pre, own)
        return self._outcome(PreActivations(pre, entries), latents, own, target, weights)

    def _dtype_on(self, device: torch.device) -> torch.dtype:
        return dtype_on(device, getattr(torch, self.settings.compute_dtype))

    def by_dense_products(
        self,
        x: Float[Tensor, "rows d_in"],
        target: Float[Tensor, "rows d_out"],
        weights: Dictionary,
    ) -> Outcome:
        """The same by products of whole matrices; arguments as of `by_sparse_products`."""
        own, narrow = weights.of_latents(), self._dtype_on(x.device) == torch.bfloat16
        with torch.autocast(x.device.type, torch.bfloat16) if narrow else nullcontext():
            pre = torch.addmm(weights.b_enc, x, weights.encoder.T).float()
            latents = self.activation(pre, own)
            if self.settings.traits.takes_k:
                entries = self.select(partial(scan_dense, pre), own)
                chosen = (entries.rows, entries.columns)
                latents = latents * torch.zeros_like(pre).index_put_(chosen, pre.new_ones(()))
            return self._outcome(PreActivations(pre), latents, own, target, weights)

    def _outcome(
        self,
        pre: PreActivations,
        latents: Tensor,
        own: Mapping[str, Tensor],
        target: Tensor,
        weights: Dictionary,
    ) -> Outcome:
        penalty = self.penalty(pre.values, own, len(target))
        fit = self.fit(pre, latents, target, weights)
        return Outcome(
            loss=fit.loss + penalty,
            error=fit.error.detach(),
            penalty=penalty.detach(),
            excess=fit.excess,
            latents=latents.detach(),
            columns=None if pre.entries is None else pre.entries.columns,
            decoder_norm=own["decoder_norm"].detach(),
        )

    @torch.no_grad()
    def begin(
        self,
        x: Float[Tensor, "rows d_in"],
        target: Float[Tensor, "rows d_out"],
        weights: Dictionary,
    ) -> Outcome:
        """Let every latent fire equally rarely, and scale the encoder so that reconstructions are
        not too long.

        Directions are random yet, and overlap: with half of all latents active, as biases of zero
        would have it, or at full length, they overshoot; and many steps would be dense for nothing.

        Args:
            x: some rows, normalised, and so their ``target``.
            weights: changed in place.

        Returns:
            What these rows gave before the encoder was scaled, which changes hardly anything about
            which latents fire.

        Source: for the biases, Conerly et al. 2025, "Dictionary Learning Optimization Techniques".
        """
        settings = self.settings
        if not settings.traits.takes_k:
            l0 = settings.target_l0 or _FIRST_L0 * x.shape[1]
            often = max(1, round(len(x) * l0 / settings.d_sae))
            pre = torch.addmm(weights.b_enc, x, weights.encoder.T)
            largest = pre.topk(min(often + 1, len(x)), dim=0).values
            # Between two rows, so that no rounding decides whether one is above it.
            self.start_at(largest[-2:].mean(dim=0), weights)
        first = self.by_dense_products(x, target, weights)
        self.follow(first, weights)  # so that the first batch, too, has few candidates
        wanted = target - weights.b_dec
        rebuilt = wanted - first.residual
        # The length that makes the reconstruction the least squares' one.
        tiny = torch.finfo(x.dtype).tiny
        length = (wanted * rebuilt).sum() / rebuilt.square().sum().clamp(min=tiny)
        length = length.clamp(max=self.longest_row)
        weights.encoder.mul_(length)
        weights.b_enc.mul_(length)
        for name in self.in_units_of_pre:
            weights.own[name].mul_(length)
        return first

    def own_of(self, sae: SAE, norm: Float[Tensor, " d_sae"]) -> dict[str, Tensor]:
        """The own parameters of a trained `SAE`, of which `fields` makes what it has.

        Args:
            sae: its tensors in fp64.
            norm: what a latent is multiplied by to be in the activations' own units.
        """
        return {}

    @torch.no_grad()
    def unfolded(self, sae: SAE, read: Normalisation, written: Normalisation) -> Dictionary:
        """The weights of this process's latents of which `folded` makes an SAE, up to rounding:
        where a training goes on from another's weights, on activations with other statistics.

        Raises:
            SaeflowError: the SAE is of another kind, size or width.
        """
        self._require_alike(sae, len(read.mean), len(written.mean))
        read, written = read.in_fp64(), written.in_fp64()
        part = self.parallel.latents(self.settings.d_sae)
        exact: dict[str, Any] = {name: each.double().cpu() for name, each in tensors_of(sae)}
        sae = replace(sae, **exact)
        rows = sae.W_dec[part] * written.scale
        norm = 1 / rows.norm(dim=1)
        encoder = sae.W_enc.T[part] / norm[:, None]
        b_enc = sae.b_enc if sae.b_gate is None else sae.b_enc + sae.b_gate
        own = {
            name: value[part] if value.ndim else value
            for name, value in self.own_of(sae, 1 / (sae.W_dec * written.scale).norm(dim=1)).items()
        }
        weights = Dictionary(
            encoder=encoder / read.scale,
            decoder=rows * norm[:, None],
            b_enc=b_enc[part] / norm + encoder @ read.mean,
            b_dec=(sae.b_dec - written.mean) * written.scale,
            own=own,
        )
        return weights.mapped(lambda _, tensor: tensor.float())

    def _require_alike(self, sae: SAE, d_in: int, d_out: int) -> None:
        settings = self.settings
        theirs = (sae.architecture, sae.d_sae, sae.d_model, sae.d_out)
        ours = (self.inference, settings.d_sae, d_in, d_out)
        names = ("architecture", "d_sae", "width that it reads", "width that it writes")
        for name, its, own in zip(names, theirs, ours, strict=True):
            if its != own:
                raise SaeflowError(
                    f"sae: init_from has {name} {its}, and this training has {own}; name an SAE "
                    "of the same kind"
                )
        if sae.per_token is not None or sae.W_skip is not None:
            raise SaeflowError(
                "sae: init_from normalises every token by itself, or passes activations by its "
                "latents, which no training here does; name another SAE"
            )

    @torch.no_grad()
    def folded(
        self,
        weights: Dictionary,
        read: Normalisation,
        written: Normalisation,
        metadata: Mapping[str, Any],
    ) -> SAE:
        """The SAE that reads raw activations and gives, in their units, exactly what this one
        gives.

        With x̂ = s (x - m), a decoder row is divided by the scale of what is written; the norm n
        that it then has goes to the latent: ``W_enc = n s encoder``, ``b_enc = n (b_enc - m s
        encoder)``, and so on in `fields`.

        Args:
            weights: of all processes.
            read: normalisation of what is read.
            written: of what is rebuilt.
            metadata: of the SAE.
        """
        read, written = read.in_fp64(), written.in_fp64()
        own = {name: value.detach().double().cpu() for name, value in weights.of_latents().items()}
        # The matrices in place and one after the other: each is twice its size in fp64.
        rows = weights.decoder.detach().double().cpu().div_(written.scale)
        norm = rows.norm(dim=1)
        w_dec = rows.div_(norm[:, None]).float()
        del rows
        encoder = weights.encoder.detach().double().cpu().mul_(read.scale)
        b_enc = (weights.b_enc.detach().double().cpu() - encoder @ read.mean) * norm
        w_enc = torch.empty(encoder.shape[::-1]).copy_(encoder.mul_(norm[:, None]).T)
        del encoder
        b_dec = weights.b_dec.detach().double().cpu() / written.scale + written.mean
        return SAE(
            architecture=self.inference,
            W_enc=w_enc,
            W_dec=w_dec,
            b_dec=b_dec.float(),
            metadata=metadata,
            **self.fields(own, norm, b_enc),
        )
