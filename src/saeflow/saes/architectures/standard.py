"""Standard: ReLU, and a price on the sum of the latents.

Source: Bricken et al. 2023, "Towards Monosemanticity"; over sources, Lindsey et al. 2024, "Sparse
    Crosscoders".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from saeflow.saes.architectures.architecture import Architecture, Scan
from saeflow.saes.sparse import Entries, above


class Standard(Architecture):
    """All positive pre-activations are active."""

    inference = "standard"
    # Its latents begin at zero just above the floor, so the first reconstructions ask for long
    # rows; Adam's steps have one size whatever a row's length is, and a long row turns slowly.
    longest_row = 1 / 2

    def select(self, scan: Scan, own: Mapping[str, Tensor]) -> Entries:
        return scan(partial(above, floor=0.0))

    def penalty(self, pre: Tensor, own: Mapping[str, Tensor], rows: int) -> Tensor:
        """Sum of positive pre-activations times the norms of their decoder rows."""
        activity = self.parallel.all_sum((pre.relu() * own["decoder_norm"]).sum())
        return self.settings.coefficient * activity / rows


ARCHITECTURE = Standard
