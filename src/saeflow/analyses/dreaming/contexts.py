"""The data's own contexts of latents, which dreams begin with and are held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from saeflow.seeds import numpy_generator
from saeflow.tables import read_table


class Window(NamedTuple):
    """Text up to a token on which a latent fires."""

    tokens: list[int]
    """Without BOS and what stands before it; at least one."""
    activation: float
    """There, behind all that stood before."""


class ContextWindows(NamedTuple):
    """What `examples` tells of an SAE's latents; nothing where it was not asked for."""

    contexts: pl.DataFrame
    latents: pl.DataFrame
    bos: int

    @classmethod
    def read(cls, folder: Path | None, bos: int) -> ContextWindows:
        """Those of the folder of an SAE's examples; None has none."""
        if folder is None:
            return cls(pl.DataFrame(), pl.DataFrame(), bos)
        contexts, latents = (
            read_table(folder / f"{name}.parquet") for name in ("contexts", "latents")
        )
        return cls(contexts, latents, bos)

    def of(self, latents: Sequence[int]) -> list[Window]:
        """The contexts of latents, the strongest first."""
        if self.contexts.is_empty() or not latents:
            return []
        own = self.contexts.filter(pl.col("latent").is_in(list(latents)))
        windows = []
        for row in own.sort("activation", descending=True, maintain_order=True).to_dicts():
            tokens = row["token_ids"][: row["offset"] + 1]
            begun = max((i + 1 for i, token in enumerate(tokens) if token == self.bos), default=0)
            if tokens[begun:]:
                windows.append(Window(tokens[begun:], float(row["activation"])))
        return windows

    def maximum(self, latents: Sequence[int]) -> float:
        """The mean of the largest activations of latents; 0 where nothing tells them."""
        if self.latents.is_empty():
            return 0.0
        own = self.latents.filter(pl.col("latent").is_in(list(latents)))["maximum"]
        return float(np.mean(own.to_numpy())) if len(own) else 0.0

    def drawn(self, d_sae: int, count: int, seed: int, sae: str) -> list[int]:
        """So many latents, drawn among those that fire where that is told."""
        there = np.arange(d_sae)
        if not self.latents.is_empty():
            there = self.latents.filter(pl.col("density") > 0)["latent"].to_numpy()
        random = numpy_generator(seed, "dreaming", sae, "latents")
        drawn = random.choice(there, min(count, len(there)), replace=False)
        return sorted(int(latent) for latent in drawn)
