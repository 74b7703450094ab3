"""Rows that are at hand, as a training reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from saeflow.activations.store import statistics


class InMemory:
    """Batches of rows that are at hand, in a fixed random order."""

    identity = "planted"

    def __init__(self, *tensors: torch.Tensor, batch_size: int = 512) -> None:
        self.tensors, self.batch_size, self.batch = tensors, batch_size, 0
        self.order = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(9))

    def state(self) -> dict[str, int]:
        return {"batch": self.batch}

    def seek(self, state: dict[str, int]) -> None:
        self.batch = state["batch"]

    def __next__(self) -> Any:
        places = torch.arange(
            self.batch * self.batch_size, (self.batch + 1) * self.batch_size
        ) % len(self.order)
        self.batch += 1
        batch = tuple(tensor[self.order[places]] for tensor in self.tensors)
        return batch if len(batch) > 1 else batch[0]


def statistics_of(x: torch.Tensor) -> SimpleNamespace:
    """The statistics of a cache of these rows."""
    measured = statistics(x)
    return SimpleNamespace(mean=torch.from_numpy(measured.mean), variance=measured.variance)


def codes(rows: int, features: int, generator: torch.Generator) -> torch.Tensor:
    on = torch.rand(rows, features, generator=generator) < 2.5 / features
    return on * (0.5 + torch.rand(rows, features, generator=generator))
