"""The files of the analyses of latents: token sets and vocabulary, examples, tables of the lens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from saeflow.analyses.logit_lens.checking import Check
from saeflow.analyses.logit_lens.enrichment import ENRICHMENT, SPLITS
from saeflow.analyses.logit_lens.lens_tables import (
    GSEA,
    HISTOGRAMS,
    LATENTS,
    SCORES,
    TOKENS,
    LensResult,
)
from saeflow.analyses.logit_lens.token_sets import MemberSet
from saeflow.config import TokenSet, read_token_sets
from saeflow.models.vocabulary import Vocabulary
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


def save_sets(directory: Path, vocabulary: Vocabulary, sets: Sequence[MemberSet]) -> None:
    """Write vocabulary.parquet, sets.parquet and members.parquet."""
    columns = {"token_id": vocabulary.ids, "token": vocabulary.texts, "special": vocabulary.special}
    write_table(directory / "vocabulary.parquet", pl.DataFrame(columns), VOCABULARY)
    rows = [
        (
            member_set.name,
            member_set.kind,
            len(member_set.members),
            member_set.description,
            member_set.left_out,
        )
        for member_set in sets
    ]
    write_table(directory / "sets.parquet", pl.DataFrame(rows, schema=SETS, orient="row"))
    names = [member_set.name for member_set in sets for _ in member_set.members]
    ids = [vocabulary.ids[member_set.members] for member_set in sets]
    members = {"set": names, "token_id": np.concatenate([np.empty(0, np.int32), *ids])}
    write_table(directory / "members.parquet", pl.DataFrame(members, schema=MEMBERS))


class SavedSets(NamedTuple):
    """A vocabulary, and the token sets that are looked at."""

    vocabulary: Vocabulary
    sets: list[MemberSet]


def load_sets(directory: Path) -> SavedSets:
    """Read what `save_sets` wrote, without the sets that were left out.

    Raises:
        SaeflowError: a file is absent or damaged.
    """
    tokens = read_table(directory / "vocabulary.parquet", VOCABULARY)
    ids, special = tokens["token_id"].to_numpy(), tokens["special"].to_numpy()
    vocabulary = Vocabulary(ids, tokens["token"].to_list(), special)
    described = read_table(directory / "sets.parquet", SETS).filter(pl.col("left_out").is_null())
    listed = (
        read_table(directory / "members.parquet", MEMBERS)
        .group_by("set", maintain_order=True)
        .agg("token_id")
    )
    members = {name: np.searchsorted(ids, own).astype(np.int32) for name, own in listed.iter_rows()}
    rows = described.select("set", "kind", "description").iter_rows()
    return SavedSets(
        vocabulary,
        [MemberSet(name, kind, description, members[name]) for name, kind, description in rows],
    )


def save_lens(directory: Path, result: LensResult) -> None:
    """Write the tables of one SAE; gsea.parquet only where there is one."""
    for name, schema in LENS_FILES.items():
        table = getattr(result, name)
        if table is not None:
            write_table(directory / f"{name}.parquet", table, schema)


def save_check(directory: Path, check: Check) -> None:
    """Write causal.parquet and causal_latents.parquet."""
    write_table(directory / "causal.parquet", check.causal)
    write_table(directory / "causal_latents.parquet", check.causal_latents)
