"""How fast this machine is, measured in at most 20 seconds."""

from __future__ import annotations

import statistics
import time

import torch

from saeflow.planning.shape import ModelShape
from saeflow.products import dtype_on, linear

SECONDS = 20.0
ROUNDS = 30  # enough for a median; a fast machine is measured sooner
ROWS = 512
SHARE = 0.4
"""Of a stage's time that its matrix products take, about: 0.37 to 0.6 where it was measured
(docs/benchmarks.md)."""


def products_per_second(shape: ModelShape, d_sae: int, dtype: str, device: str) -> float:
    """Operations per second of the matrix products of one layer and of an SAE's encoder, with 512
    rows at a time.

    Args:
        shape: of the model.
        d_sae: latents of the SAE.
        dtype: of the model.
        device: ``cpu``, ``cuda``, …
    """
    kind = dtype_on(torch.device(device), getattr(torch, dtype))
    sizes = [*((n, m, kind) for n, m in shape.matrices), (shape.d_model, d_sae, torch.float32)]
    pairs = [
        (torch.randn(ROWS, n).to(device, of), torch.randn(m, n).to(device, of))
        for n, m, of in sizes
    ]
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < ROUNDS and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        for x, weight in pairs:
            linear(x, weight)
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * ROWS * sum(n * m for n, m, _ in sizes) / statistics.median(times)
