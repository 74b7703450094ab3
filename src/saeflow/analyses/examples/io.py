"""The files that tell where latents fire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64

from saeflow import seals
from saeflow.activations.io import ActivationStore
from saeflow.analyses.examples import examples
from saeflow.analyses.examples.entries import entry_writer, read_entries
from saeflow.analyses.examples.settings import Examples
from saeflow.analyses.examples.windows import Blocks, Windows, fill
from saeflow.artifacts import atomic, write_sealed_json
from saeflow.corpora.io import count_blocks, load_blocks
from saeflow.models.vocabulary import Vocabulary
from saeflow.saes.sae import SAE
from saeflow.seals import stamp
from saeflow.tables import Schema, read_table, write_table

VOCABULARY: Schema = {"token_id": pl.Int32, "token": pl.String}
"""Of the tokens that stand in contexts, so that these can be read without the tokenizer."""
_BLOCKS_AT_ONCE = 4096


def write_examples(
    directory: Path,
    store: ActivationStore,
    sae: SAE,
    corpus: Path,
    vocabulary: Vocabulary,
    settings: Examples,
    seed: int,
    progress: examples.OnProgress | None = None,
    companions: examples.OnProgress | None = None,
) -> None:
    """Find out where the latents of an SAE fire, and write it as a folder that appears when it is
    whole.

    Args:
        directory: the folder.
        store: the cache of activations.
        sae: that reads it.
        corpus: the split of the corpus that the cache is of.
        vocabulary: the model's vocabulary.
        settings: what is kept.
        seed: the study's.
        progress: told how many rows are done.
        companions: told of how many latents the companions are known.

    Raises:
        SaeflowError: a file is absent or damaged, or the SAE reads activations of another width.
    """
    with atomic(directory) as temporary:
        once = examples.FirstPass(sae.d_sae, int(vocabulary.ids[-1]) + 1, settings.top)
        with entry_writer(temporary) as writer:
            for part in examples.firings(store, sae, progress):
                once.add(part)
                writer.append(part)
        totals = once.totals()
        again = examples.SecondPass(totals, once.tokens(), settings, seed)
        for part in read_entries(temporary):
            again.add(part)
        tokens, counts = again.most_frequent()
        texts = dict(zip(vocabulary.ids.tolist(), vocabulary.texts, strict=True))
        write_table(
            temporary / "latents.parquet", examples.latent_table(totals, tokens, counts, texts)
        )
        write_table(
            temporary / "histogram.parquet", examples.histogram_table(totals, again.counts())
        )
        write_table(temporary / "cofiring.parquet", again.companions(companions))
        places = examples.context_places(once.best, again.drawn(), settings.strata)
        windows = Windows(places, settings.before, settings.after)
        fill(windows, read_entries(temporary), read_entries(temporary), _text(corpus))
        shown = _write_contexts(temporary / "contexts.parquet", windows)
        columns = {"token_id": shown, "token": [texts.get(token) for token in shown]}
        read = pl.DataFrame(columns, schema=VOCABULARY).drop_nulls()
        write_table(temporary / "vocabulary.parquet", read)
        write_sealed_json(temporary / "summary.json", examples.summary(totals, writer.shards))


def _text(corpus: Path) -> Iterator[Blocks]:
    for first in range(0, count_blocks(corpus), _BLOCKS_AT_ONCE):
        yield Blocks(first, load_blocks(corpus, slice(first, first + _BLOCKS_AT_ONCE)).tokens)


def _write_contexts(path: Path, windows: Windows) -> list[int]:
    """Write row groups of whole latents, so that one latent is read without most others; return
    the ids of all tokens in them."""
    writer: pq.ParquetWriter | None = None
    shown: set[int] = set()
    for table in windows.tables():
        shown.update(table["token_ids"].explode().drop_nulls().unique().to_list())
        arrow = table.to_arrow()
        schema = arrow.schema.with_metadata(stamp())
        writer = writer or pq.ParquetWriter(
            path, schema, compression="zstd", write_statistics=["latent"]
        )
        writer.write_table(arrow)
    if writer:
        writer.close()
        seals.seal(path)
    return sorted(shown)


class LatentActivity(NamedTuple):
    """How often and how much each latent fires."""

    density: Float64[np.ndarray, " d_sae"]
    typical: Float32[np.ndarray, " d_sae"]


def read_firing(directory: Path) -> LatentActivity:
    """Share of tokens on which each latent fires, and the mean of its activations there.

    Raises:
        SaeflowError: the table is absent or damaged.
    """
    table = read_table(directory / "latents.parquet", examples.LATENTS)
    return LatentActivity(table["density"].to_numpy(), table["mean_active"].to_numpy())


def read_contexts(directory: Path) -> pl.DataFrame:
    """The contexts of all latents, without their text.

    Raises:
        SaeflowError: the table is absent or damaged.
    """
    return read_table(directory / "contexts.parquet").select(
        "latent", "group", "rank", "activation", "block", "position"
    )
