"""The files of the analyses of latents: token sets and vocabulary, examples, tables of the lens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64

from saeflow import seals
from saeflow.activations.io import ActivationStore
from saeflow.analysis import examples
from saeflow.analysis.checking import Check
from saeflow.analysis.enrichment import ENRICHMENT, SPLITS
from saeflow.analysis.entries import entry_writer, read_entries
from saeflow.analysis.lens_tables import GSEA, HISTOGRAMS, LATENTS, SCORES, TOKENS, LensResult
from saeflow.analysis.token_sets import MemberSet
from saeflow.analysis.windows import Blocks, Windows, fill
from saeflow.artifacts import atomic, stamp, write_sealed_json
from saeflow.config import TokenSet, read_token_sets
from saeflow.config.sections import Examples
from saeflow.corpora.io import count_blocks, load_blocks
from saeflow.models.vocabulary import Vocabulary
from saeflow.saes.sae import SAE
from saeflow.tables import Schema, read_table, write_table

VOCABULARY: Schema = {"token_id": pl.Int32, "token": pl.String, "special": pl.Boolean}
SETS: Schema = {
    "set": pl.String,
    "kind": pl.String,
    "size": pl.Int32,
    "description": pl.String,
    "left_out": pl.String,
}
MEMBERS: Schema = {"set": pl.String, "token_id": pl.Int32}
LENS_FILES: dict[str, Schema] = {
    "latents": LATENTS,
    "tokens": TOKENS,
    "histograms": HISTOGRAMS,
    "scores": SCORES,
    "enrichment": ENRICHMENT,
    "splits": SPLITS,
    "gsea": GSEA,
}
_BLOCKS_AT_ONCE = 4096


def read_set_files(paths: Iterable[Path]) -> dict[str, Mapping[str, TokenSet]]:
    """The user's token sets, by the file they stand in; raises as `config.read_token_sets` does."""
    return {str(path): read_token_sets(path) for path in paths}


def save_sets(directory: Path, known: Vocabulary, sets: Sequence[MemberSet]) -> None:
    """Write vocabulary.parquet, sets.parquet and members.parquet."""
    columns = {"token_id": known.ids, "token": known.texts, "special": known.special}
    write_table(directory / "vocabulary.parquet", pl.DataFrame(columns), VOCABULARY)
    rows = [(one.name, one.kind, len(one.members), one.description, one.left_out) for one in sets]
    write_table(directory / "sets.parquet", pl.DataFrame(rows, schema=SETS, orient="row"))
    names = [one.name for one in sets for _ in one.members]
    ids = [known.ids[one.members] for one in sets]
    members = {"set": names, "token_id": np.concatenate([np.empty(0, np.int32), *ids])}
    write_table(directory / "members.parquet", pl.DataFrame(members, schema=MEMBERS))


class KnownSets(NamedTuple):
    """A vocabulary, and the token sets that are looked at."""

    known: Vocabulary
    sets: list[MemberSet]


def load_sets(directory: Path) -> KnownSets:
    """Read what `save_sets` wrote, without the sets that were left out.

    Raises:
        SaeflowError: a file is absent or damaged.
    """
    tokens = read_table(directory / "vocabulary.parquet", VOCABULARY)
    ids, special = tokens["token_id"].to_numpy(), tokens["special"].to_numpy()
    known = Vocabulary(ids, tokens["token"].to_list(), special)
    described = read_table(directory / "sets.parquet", SETS).filter(pl.col("left_out").is_null())
    listed = (
        read_table(directory / "members.parquet", MEMBERS)
        .group_by("set", maintain_order=True)
        .agg("token_id")
    )
    members = {name: np.searchsorted(ids, own).astype(np.int32) for name, own in listed.iter_rows()}
    rows = described.select("set", "kind", "description").iter_rows()
    return KnownSets(
        known, [MemberSet(name, kind, told, members[name]) for name, kind, told in rows]
    )


def save_lens(directory: Path, result: LensResult) -> None:
    """Write the tables of one SAE; gsea.parquet only where there is one."""
    for name, schema in LENS_FILES.items():
        table = getattr(result, name)
        if table is not None:
            write_table(directory / f"{name}.parquet", table, schema)


def write_examples(
    directory: Path,
    store: ActivationStore,
    sae: SAE,
    corpus: Path,
    known: Vocabulary,
    settings: Examples,
    seed: int,
    progress: examples.Progress | None = None,
    companions: examples.Progress | None = None,
) -> None:
    """Find out where the latents of an SAE fire, and write it as a folder that appears when it is
    whole.

    Args:
        directory: the folder.
        store: the cache of activations.
        sae: that reads it.
        corpus: the split of the corpus that the cache is of.
        known: the model's vocabulary.
        settings: what is kept.
        seed: the study's.
        progress: told how many rows are done.
        companions: told of how many latents the companions are known.

    Raises:
        SaeflowError: a file is absent or damaged, or the SAE reads activations of another width.
    """
    with atomic(directory) as temporary:
        once = examples.FirstPass(sae.d_sae, int(known.ids[-1]) + 1, settings.top)
        with entry_writer(temporary) as writer:
            for part in examples.firings(store, sae, progress):
                once.add(part)
                writer.append(part)
        totals = once.totals()
        again = examples.SecondPass(totals, once.tokens(), settings, seed)
        for part in read_entries(temporary):
            again.add(part)
        tokens, counts = again.most_frequent()
        texts = dict(zip(known.ids.tolist(), known.texts, strict=True))
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
        _write_contexts(temporary / "contexts.parquet", windows)
        write_sealed_json(temporary / "summary.json", examples.summary(totals, writer.shards))


def _text(corpus: Path) -> Iterator[Blocks]:
    for first in range(0, count_blocks(corpus), _BLOCKS_AT_ONCE):
        yield Blocks(first, load_blocks(corpus, slice(first, first + _BLOCKS_AT_ONCE)).tokens)


def _write_contexts(path: Path, windows: Windows) -> None:
    """Write row groups of whole latents, so that one latent is read without most others."""
    writer: pq.ParquetWriter | None = None
    for table in windows.tables():
        arrow = table.to_arrow()
        schema = arrow.schema.with_metadata(stamp())
        writer = writer or pq.ParquetWriter(
            path, schema, compression="zstd", write_statistics=["latent"]
        )
        writer.write_table(arrow)
    if writer:
        writer.close()
        seals.seal(path)


class Firing(NamedTuple):
    """How often and how much each latent fires."""

    density: Float64[np.ndarray, " d_sae"]
    typical: Float32[np.ndarray, " d_sae"]


def read_firing(directory: Path) -> Firing:
    """Share of tokens on which each latent fires, and the mean of its activations there.

    Raises:
        SaeflowError: the table is absent or damaged.
    """
    table = read_table(directory / "latents.parquet", examples.LATENTS)
    return Firing(table["density"].to_numpy(), table["mean_active"].to_numpy())


def read_contexts(directory: Path) -> pl.DataFrame:
    """The contexts of all latents, without their text.

    Raises:
        SaeflowError: the table is absent or damaged.
    """
    return read_table(directory / "contexts.parquet").select(
        "latent", "group", "rank", "activation", "block", "position"
    )


def save_check(directory: Path, found: Check) -> None:
    """Write causal.parquet and causal_latents.parquet."""
    write_table(directory / "causal.parquet", found.causal)
    write_table(directory / "causal_latents.parquet", found.causal_latents)
