"""Matryoshka: BatchTopK whose first latents must reconstruct alone, too.

Source: Bussmann et al. 2025, arXiv 2503.17547.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from saeflow.saes.architectures.batchtopk import BatchTopK
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.objective import Fit, PreActivations, mean_square


class Matryoshka(BatchTopK):
    """The loss is the mean over prefixes of the latents (eq. 4)."""

    def fit(self, pre: PreActivations, latents: Tensor, target: Tensor, weights: Dictionary) -> Fit:
        d_sae, here = self.settings.d_sae, self.parallel.latents(self.settings.d_sae)
        lengths = {max(1, round(share * d_sae)) for share in self.settings.prefixes}
        excess, errors = weights.b_dec - target, []
        # A prefix is the one before it and some latents more, so each latent is decoded once.
        for first, last in pairwise([0, *sorted(lengths | {d_sae})]):
            part = slice(max(0, first - here.start), max(0, last - here.start))
            excess = excess + self.parallel.all_sum(pre.decode(latents, weights, part))
            errors.append(mean_square(excess))
        return Fit(torch.stack(errors).mean(), errors[-1], excess.detach())


ARCHITECTURE = Matryoshka
