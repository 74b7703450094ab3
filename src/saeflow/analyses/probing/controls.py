"""What is random, beside what was trained: latents of equal density, and projections."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy import sparse

from saeflow.analyses.probing.sparse_columns import Latents
from saeflow.seeds import numpy_generator

_AT_ONCE = 2048


def random_latents(
    activations: Float[np.ndarray, "n d"], latents: Latents, seed: int, name: str
) -> Latents:
    """Latents of random directions, each active in as many rows as one of the SAE's.

    A latent is by how much a row's projection exceeds a threshold that so many rows exceed; it
    looks at no label.

    Args:
        activations: that the SAE reads.
        latents: of the same rows.
        seed: of the study.
        name: of the SAE and the set.
    """
    n, d = activations.shape
    active = np.bincount(latents.indices, minlength=latents.shape[1])
    which = np.flatnonzero(active)
    random = numpy_generator(seed, "probing", "random latents", name)
    centred = (activations - activations.mean(axis=0)).astype(np.float32)
    parts = [sparse.csr_array((n, 0), dtype=np.float32)]
    for first in range(0, len(which), _AT_ONCE):
        counts = active[which[first : first + _AT_ONCE]]
        directions = random.standard_normal((d, len(counts)), dtype=np.float32)
        projected = centred @ (directions / np.linalg.norm(directions, axis=0))
        ranked = np.sort(projected, axis=0)[::-1]
        # Half-way to the first row that stays below; a latent of every row has no such row.
        above = ranked[counts - 1, np.arange(len(counts))]
        below = np.where(
            counts < n, ranked[np.minimum(counts, n - 1), np.arange(len(counts))], above - 1
        )
        excess = projected - (above + below) / 2
        parts.append(sparse.csr_array(np.maximum(excess, 0)))
    return sparse.csr_array(sparse.hstack(parts, format="csr"))


def random_projections(
    activations: Float[np.ndarray, "n d"], count: int, seed: int, name: str
) -> Float32[np.ndarray, "n count"]:
    """Projections on random directions."""
    random = numpy_generator(seed, "probing", "random projections", name)
    directions = random.standard_normal((activations.shape[1], count), dtype=np.float32)
    return np.asarray(activations @ directions, np.float32)
