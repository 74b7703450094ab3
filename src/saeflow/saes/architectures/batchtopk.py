"""BatchTopK: of a batch the k × rows latents that are worth most; rows may differ in how many.

Source: Bussmann et al. 2024, arXiv 2412.06410; over sources, Minder, Dumas et al. 2025, arXiv
    2504.02922.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from saeflow.saes.architectures.architecture import Architecture, Scan
from saeflow.saes.dictionary import Dictionary
from saeflow.saes.objective import Outcome
from saeflow.saes.sae import SAE
from saeflow.saes.sparse import Entries, above

_CANDIDATES_ABOVE = (0.8, 0.4, 0.0)  # of the running threshold
# of the running mean that becomes the threshold; longer, it lags and L0 misses k
_MEMORY = 0.95


class BatchTopK(Architecture):
    """A latent is worth its value times its decoder norm.

    What a batch happened to need becomes one threshold for all latents, a running mean, by which
    the trained SAE works without a batch.
    """

    inference = "jumprelu"
    in_units_of_pre = ("threshold",)

    def own_parameters(self, n_latents: int) -> dict[str, Tensor]:
        return {"threshold": torch.zeros(())}

    def select(self, scan: Scan, own: Mapping[str, Tensor]) -> Entries:
        norm, threshold, parallel = own["decoder_norm"].detach(), own["threshold"], self.parallel
        # The running threshold, somewhat lowered, leaves out nearly all candidates beforehand;
        # should it leave out too many, it is lowered further.
        for lowered in _CANDIDATES_ABOVE if threshold > 0 else (0.0,):
            entries = scan(partial(above, floor=lowered * threshold / norm))
            wanted = self.k * (len(entries.offsets) - 1)
            candidates = parallel.all_count(len(entries.values))
            if candidates >= wanted:
                break
        if candidates <= wanted:
            return entries
        worth = entries.values * (norm[entries.columns] if norm.ndim else norm)
        return entries.keep(worth >= parallel.kth_largest(worth, wanted))

    def follow(self, outcome: Outcome, weights: Dictionary) -> None:
        smallest, threshold = self.parallel.all_min(outcome.smallest), weights.own["threshold"]
        if smallest.isfinite():
            memory = _MEMORY if threshold else 0.0
            threshold.lerp_(smallest.to(threshold.dtype), 1 - memory)

    def project(self, weights: Dictionary) -> None:
        weights.own["threshold"].clamp_(min=0)  # of a transcoder the first length may be negative

    def fields(self, own: Mapping[str, Tensor], norm: Tensor, b_enc: Tensor) -> dict[str, Any]:
        threshold = own["threshold"] / own["decoder_norm"] * norm
        return {"b_enc": b_enc.float(), "threshold": threshold.float()}

    def own_of(self, sae: SAE, norm: Tensor) -> dict[str, Tensor]:
        """One threshold for all: the mean, of an SAE whose latents had thresholds of their own."""
        threshold = torch.zeros_like(norm) if sae.threshold is None else sae.threshold
        return {"threshold": (threshold / norm).mean().clamp_min(0)}


ARCHITECTURE = BatchTopK
