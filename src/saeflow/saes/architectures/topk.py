"""TopK: of every row the k largest pre-activations, as far as positive.

Source: Gao et al. 2024, arXiv 2406.04093.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from saeflow.saes.architectures.architecture import Architecture, Scan
from saeflow.saes.sparse import Entries, Largest


class TopK(Architecture):
    """The number of active latents is the same in every row."""

    inference = "topk"

    def select(self, scan: Scan, own: Mapping[str, Tensor]) -> Entries:
        k, parallel = self.k, self.parallel
        here = min(k, self.settings.d_sae // parallel.world)
        entries = scan(Largest(here))
        if parallel.world == 1:
            return entries
        # Among the largest of every process are the largest of all.
        smallest = parallel.kth_largest(entries.values.view(-1, here), k)
        return entries.keep(entries.values >= smallest[:, 0][entries.rows])

    def fields(self, own: Mapping[str, Tensor], norm: Tensor, b_enc: Tensor) -> dict[str, Any]:
        return {"b_enc": b_enc.float(), "k": self.settings.k}


ARCHITECTURE = TopK
