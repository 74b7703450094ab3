"""Plausible tables about the latents of an SAE that never was, for the tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
from safetensors.numpy import save_file

HOSTILE_TOKEN = "</script><script>alert('token')</script>"
BREAKING = (
    HOSTILE_TOKEN,
    "\u2028",
    "</template>",
    "\n",
    "\u202etxet",
    "<img src=x onerror=alert(1)>",
    "\\xE2",
    " ",
)
WINDOW = 24
SETS = ("starts with space", "capitals", "digits", "brackets")


def words(count: int) -> list[str]:
    """A vocabulary: hostile tokens first, then words; those with even numbers start with a
    space."""
    letters = [
        a + b + c
        for a in "bdfklmnprstvz"
        for b in "aeiou"
        for c in ("", "n", "r", "st", "th", "ng")
    ]
    made = (f"{a}{b}" for a in letters for b in letters)
    plain = [
        f" {word}" if place % 2 else word for place, word in zip(range(count), made, strict=False)
    ]
    return [*BREAKING, *plain][:count]


def write_latents(
    root: Path,
    sae: str,
    d_sae: int,
    vocabulary: Sequence[str],
    contexts: int = 6,
    d_model: int = 16,
) -> None:
    """Write every table about latents; every 50th latent is dead.

    Args:
        contexts: per latent; 0 also leaves out whatever else a latent's page is made of, but for
            its tokens.
    """
    generator = np.random.default_rng(5)
    latents = np.arange(d_sae, dtype=np.int32)
    alive = latents % 50 != 49
    maximum = np.where(alive, generator.gamma(4, 1.5, d_sae), 0).astype(np.float32)
    density = np.where(alive, 10 ** generator.normal(-3, 0.7, d_sae).clip(-5, -0.5), 0)
    fires = generator.integers(0, len(vocabulary), d_sae)
    _parquet(
        root / "logit_lens/vocabulary",
        token_id=np.arange(len(vocabulary), dtype=np.int32),
        token=list(vocabulary),
    )
    _parquet(
        root / f"examples/{sae}/latents",
        latent=latents,
        density=density,
        tokens=(density * 1e6).astype(np.int64),
        maximum=maximum,
        mean_active=maximum / 3,
        top_token_id=[
            int(token) if live else None for token, live in zip(fires, alive, strict=True)
        ],
        top_token=[
            vocabulary[token] if live else None for token, live in zip(fires, alive, strict=True)
        ],
        top_token_share=np.where(alive, generator.beta(2, 2, d_sae), 0),
    )
    _parquet(
        root / f"logit_lens/{sae}/latents",
        latent=latents,
        mean=generator.normal(0, 0.01, d_sae),
        std=generator.gamma(9, 0.02, d_sae),
        skewness=generator.normal(0, 1.2, d_sae),
        kurtosis=generator.gamma(1.5, 6, d_sae),
        entropy=generator.normal(9, 0.4, d_sae),
        log10_density=[float(np.log10(share)) if share else None for share in density],
        **{
            "class": [
                ("none", "partition", "suppression", "prediction")[i % 4] for i in range(d_sae)
            ]
        },
    )
    _tokens(root / f"logit_lens/{sae}", d_sae, vocabulary, generator)
    if not contexts:
        return
    _histograms(root, sae, maximum, generator)
    _enrichment(root / f"logit_lens/{sae}", d_sae, generator)
    _parquet(
        root / f"examples/{sae}/vocabulary",
        token_id=np.arange(len(vocabulary), dtype=np.int32),
        token=list(vocabulary),
    )
    _contexts(
        root / f"examples/{sae}", latents[alive], maximum, len(vocabulary), contexts, generator
    )
    _others(root, sae, d_sae, d_model, generator)


def _tokens(
    folder: Path, d_sae: int, vocabulary: Sequence[str], generator: np.random.Generator
) -> None:
    rank = np.tile(np.arange(10, dtype=np.int32), 2)
    tokens = generator.integers(0, len(vocabulary), d_sae * 20)
    _parquet(
        folder / "tokens",
        latent=np.repeat(np.arange(d_sae, dtype=np.int32), 20),
        side=(["top"] * 10 + ["bottom"] * 10) * d_sae,
        rank=np.tile(rank, d_sae),
        token_id=tokens.astype(np.int32),
        token=[vocabulary[token] for token in tokens],
        weight=np.tile(
            np.concatenate([np.linspace(2, 1, 10), np.linspace(-2, -1, 10)]), d_sae
        ).astype(np.float32),
    )


def _histograms(root: Path, sae: str, maximum: np.ndarray, generator: np.random.Generator) -> None:
    latents = np.arange(len(maximum), dtype=np.int32)
    bell = generator.poisson(
        2000 * np.exp(-(np.linspace(-3, 3, 64) ** 2)), (len(maximum), 64)
    ).astype(np.uint32)
    fall = generator.poisson(800 * np.exp(-np.linspace(0, 6, 64)), (len(maximum), 64)).astype(
        np.uint32
    )
    fall[maximum == 0] = 0
    low, high = np.full(len(maximum), -2.5, np.float32), np.full(len(maximum), 2.5, np.float32)
    _parquet(
        root / f"logit_lens/{sae}/histograms",
        latent=latents,
        low=low,
        high=high,
        counts=_lists(bell, pl.UInt32),
    )
    zeros = np.zeros(len(maximum), np.float32)
    _parquet(
        root / f"examples/{sae}/histogram",
        latent=latents,
        low=zeros,
        high=maximum,
        counts=_lists(fall, pl.UInt32),
    )


def _enrichment(folder: Path, d_sae: int, generator: np.random.Generator) -> None:
    """Every other latent has two enriched sets."""
    latents = np.repeat(np.arange(0, d_sae, 2, dtype=np.int32), 2)
    ks = generator.uniform(-0.8, 0.8, len(latents)).astype(np.float32)
    _parquet(
        folder / "enrichment",
        latent=latents,
        set=[SETS[i % len(SETS)] for i in range(len(latents))],
        ks=ks,
        auc=(ks + 1) / 2,
        effect=ks,
        p=np.full(len(latents), 1e-9),
        q_bh=np.full(len(latents), 1e-7),
        q_by=np.full(len(latents), 1e-6),
        leading_size=np.full(len(latents), 3, np.int32),
        leading_edge=[[0, 9, 12]] * len(latents),
    )


def _contexts(
    folder: Path,
    latents: np.ndarray,
    maximum: np.ndarray,
    vocabulary: int,
    count: int,
    generator: np.random.Generator,
) -> None:
    """Half of a latent's contexts are its strongest, the others a part of its range each."""
    top = max(1, count // 2)
    groups = ["top"] * top + [f"q{1 + i % 3}" for i in range(count - top)]
    n = len(latents) * count
    activations = np.where(
        generator.uniform(size=(n, WINDOW)) < 0.12, generator.uniform(size=(n, WINDOW)), 0
    )
    activations[:, WINDOW // 2] = np.tile(np.linspace(1, 0.2, count), len(latents))
    activations *= np.repeat(maximum[latents], count)[:, None]
    tokens = generator.integers(0, vocabulary, (n, WINDOW))
    _parquet(
        folder / "contexts",
        latent=np.repeat(latents, count),
        group=groups * len(latents),
        rank=np.tile(np.arange(count, dtype=np.int32), len(latents)),
        activation=activations[:, WINDOW // 2].astype(np.float32),
        block=generator.integers(0, 999, n).astype(np.int32),
        position=np.full(n, WINDOW // 2, np.int32),
        offset=np.full(n, WINDOW // 2, np.int32),
        token_ids=_lists(tokens, pl.Int32),
        activations=_lists(activations, pl.Float32),
    )


def _others(root: Path, sae: str, d_sae: int, d_model: int, generator: np.random.Generator) -> None:
    latents = np.repeat(np.arange(d_sae, dtype=np.int32), 3)
    ranks = np.tile(np.arange(3, dtype=np.int32), d_sae)
    _parquet(
        root / f"examples/{sae}/cofiring",
        latent=latents,
        other=(latents + 1 + ranks) % d_sae,
        rank=ranks,
        count=np.full(len(latents), 40 - ranks),
        jaccard=np.full(len(latents), 0.3, np.float32),
        correlation=np.full(len(latents), 0.5, np.float32),
    )
    folder = root / f"saes/{sae}"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {"W_dec": generator.normal(size=(d_sae, d_model)).astype(np.float32)},
        folder / "sae_weights.safetensors",
    )


def add_vectors(path: Path, d_sae: int) -> None:
    """Give ``effects.h5`` a vector per latent, along it: latent i raises i by 1 and lowers i + 1 by
    a half."""
    with h5py.File(path, "a") as file:
        count = len(file["scale"])
        effects = np.zeros((count, d_sae), np.float32)
        effects[np.arange(count), np.arange(count) % d_sae] = 1
        effects[np.arange(count), (np.arange(count) + 1) % d_sae] = -0.5
        file["effects"], file["vector_id"] = effects, np.arange(count)


def _lists(rows: np.ndarray, kind: type[pl.DataType]) -> pl.Series:
    return (
        pl.Series(rows.tolist(), dtype=pl.List(kind))
        if rows.size < 1e5
        else pl.Series(rows).arr.to_list().cast(pl.List(kind))
    )


def _parquet(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(
        path.with_name(f"{path.name}.parquet"), row_group_size=4096 * 8
    )
