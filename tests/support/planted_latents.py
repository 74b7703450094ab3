"""SAEs of the planted circle: a narrow one whose one latent fires on all words of the circle, and a
wide one with a latent for each of them; and where they fire, as the analysis `examples` writes it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from planted_circle import HOOK, NULLS, POINTS, RING, planted_model

from saeflow.analyses.examples.entries import Firings, Rows, entry_writer
from saeflow.analyses.examples.io import VOCABULARY
from saeflow.analyses.examples.windows import CONTEXTS
from saeflow.analyses.geometry.latent_tables import Asked, OpenedSAE, latent_tables
from saeflow.analyses.geometry.reading import Read, read_all, save_activations
from saeflow.analyses.geometry.settings import Latents
from saeflow.saes.sae import SAE
from saeflow.tables import write_table

WORDS = ("the", "a", "and", "then", ".", ",")
"""Of the line, in the order of their numbers."""
LATENTS = Latents.model_validate(
    {
        "groups": {"ring": {}, "pair": {"words": ["cat", "dog"]}},
        "texts": 2,
    }
)
TOKENS = 400


def planted_saes(folder: Path) -> list[OpenedSAE]:
    """The narrow and the wide SAE, with what they fire on in a text of random words."""
    lm = planted_model()
    embedding = lm.decoder.embed_tokens.weight.float()
    ids = lm.tokenizer.get_vocab()
    ring = torch.stack([embedding[ids[word]] for word in RING])
    line = torch.stack([embedding[ids[word]] for word in WORDS])
    draw = torch.Generator().manual_seed(0)
    apart = torch.randn(7, ring.shape[1], generator=draw)
    common = apart[0] - apart[0] @ torch.linalg.pinv(ring) @ ring  # no word has anything of it
    own = ring / ring.norm(dim=1, keepdim=True)
    wide = torch.cat([own + 0.8 * common / common.norm(), line])
    read = torch.cat([own, line / line.norm(dim=1, keepdim=True)])
    bias = torch.cat([-0.8 * ring.norm(dim=1), -0.8 * line.norm(dim=1)])
    narrow = torch.cat([common[None], apart[1:4]])
    text = np.random.default_rng(0).choice([ids[word] for word in (*RING, *WORDS)], TOKENS)
    fires = {
        "wide": [text == ids[word] for word in (*RING, *WORDS)],
        "narrow": [np.isin(text, [ids[word] for word in RING]), np.ones(TOKENS, bool)],
    }
    weights = {"wide": (wide, read, bias), "narrow": (narrow, narrow, torch.zeros(len(narrow)))}
    opened = []
    for name, (decoder, encoder, b_enc) in weights.items():
        unit = decoder / decoder.norm(dim=1, keepdim=True)
        b_dec = torch.zeros(unit.shape[1])
        sae = SAE("standard", encoder.T.contiguous(), unit.contiguous(), b_enc, b_dec)
        _write_examples(folder / name, text, fires[name], lm.tokenizer.get_vocab())
        opened.append(OpenedSAE(name, HOOK, sae, folder / name))
    return opened


def _write_examples(
    folder: Path, text: np.ndarray, fires: list[np.ndarray], vocabulary: dict[str, int]
) -> None:
    """Shards of half the text each, and twelve contexts of every latent."""
    folder.mkdir(parents=True)
    with entry_writer(folder) as writer:
        for first in (0, TOKENS // 2):
            part = slice(first, first + TOKENS // 2)
            pairs = [np.stack([np.full(own[part].sum(), latent), np.flatnonzero(own[part])])
                     for latent, own in enumerate(fires)]  # fmt: skip
            latents, rows = np.concatenate(pairs, axis=1)
            places = Rows(*(text[part].astype(np.int32) for _ in range(3)))
            values = np.ones(len(rows), np.float32)
            writer.append(Firings(first, rows, latents.astype(np.int32), values, places))
    contexts = [
        (latent, "top", rank, 1.0, rank, 1, 1, [2, int(text[place])], [0.0, 1.0])
        for latent, own in enumerate(fires)
        for rank, place in enumerate(np.flatnonzero(own)[:12])
    ]
    write_table(folder / "contexts.parquet", pl.DataFrame(contexts, schema=CONTEXTS, orient="row"))
    tokens = sorted((index, f" {word}") for word, index in vocabulary.items())
    write_table(
        folder / "vocabulary.parquet", pl.DataFrame(tokens, schema=VOCABULARY, orient="row")
    )


@cache
def planted_latent_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """All tables of latents of that model.

    Args:
        folder: where its activations and examples are written.
    """
    opened = planted_saes(folder)
    saes = {each.name: (each.hook, each.sae) for each in opened}
    path = folder / "activations.safetensors"
    save_activations(path, read_all(planted_model(), POINTS, [HOOK], {}, 0, saes))
    return latent_tables(Read(path), opened, Asked(POINTS, LATENTS, NULLS, {}, 0))
