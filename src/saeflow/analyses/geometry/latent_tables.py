"""Tables of latents: which stand for words, where they lie, how they split, and where they stand
along lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int64

from saeflow.analyses.examples.entries import read_entries
from saeflow.analyses.examples.io import VOCABULARY
from saeflow.analyses.examples.windows import CONTEXTS
from saeflow.analyses.geometry.latent_groups import (
    GROUPS,
    LEAST_LATENTS,
    MEMBERS,
    WordSet,
    firing_texts,
    group_row,
    members,
    number_of,
    shortage,
    word_set,
)
from saeflow.analyses.geometry.latent_points import CIRCLES, PLACES, Words, circles
from saeflow.analyses.geometry.line import blocks_of
from saeflow.analyses.geometry.periods import (
    DATED,
    LEAST_DATED,
    PERIODS,
    Dated,
    dated,
    halves,
    order_along,
)
from saeflow.analyses.geometry.splitting import (
    COSINE,
    SPLITS,
    TOGETHER,
    by_decoder,
    by_firing,
    split_rows,
)
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator
from saeflow.tables import read_table

if TYPE_CHECKING:
    from saeflow.analyses.geometry.reading import Line, Read
    from saeflow.analyses.geometry.settings import Latents, Nulls, Points
    from saeflow.config import TokenSet
    from saeflow.saes.sae import SAE

SCHEMAS = {
    "latents": MEMBERS,
    "latent_groups": GROUPS,
    "latent_circles": CIRCLES,
    "latent_places": PLACES,
    "splits": SPLITS,
    "periods": PERIODS,
    "dated_latents": DATED,
}
HELD_OUT = "held-out texts"
Row = tuple[object, ...]


class OpenedSAE(NamedTuple):
    """An SAE of the study.

    Attributes:
        name: its name.
        hook: where it reads.
        sae: its weights.
        examples: the folder that tells where its latents fire.
    """

    name: str
    hook: str
    sae: SAE
    examples: Path

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.sae.d_sae


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked for.

    Attributes:
        points: groups of words, and lines.
        latents: groups of latents.
        nulls: what circles and lines are held against.
        sets: token sets of the user's files.
        seed: of the study.
    """

    points: Points
    latents: Latents
    nulls: Nulls
    sets: Mapping[str, TokenSet]
    seed: int


def latent_tables(
    read: Read,
    saes: Sequence[OpenedSAE],
    asked: Asked,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, pl.DataFrame]:
    """Everything that is said of latents.

    Args:
        read: what the model holds of words and texts.
        saes: whose latents are looked at.
        asked: of them.
        progress: called with (SAEs looked at, all of them).

    Returns:
        The tables of `SCHEMAS`.

    Raises:
        SaeflowError: a set is in no file; a latent that is given is none of its SAE; a table is
            absent or damaged.
    """
    rows: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    word_sets = {
        name: word_set(name, group, asked.points, asked.sets)
        for name, group in asked.latents.groups.items()
    }
    tables: dict[tuple[str, str], pl.DataFrame] = {}
    for done, each in enumerate(saes, start=1):
        own = _members(each, word_sets, asked, rows)
        for name, table in own.items():
            tables[name, each.name] = table
            if word_sets[name].order and len(table) >= LEAST_LATENTS:
                _add_circles(read, each, name, word_sets[name], table, asked, rows)
        _add_periods(read, each, own, asked, rows)
        if progress:
            progress(done, len(saes))
    by_width = sorted(saes, key=lambda each: (each.hook, each.width, each.name))
    for _, of_hook in groupby(by_width, key=lambda each: each.hook):
        for narrow, wide in pairwise(of_hook):
            _add_splits(narrow, wide, tables, asked, rows)
    return {
        name: pl.DataFrame(rows[name], schema=schema, orient="row")
        for name, schema in SCHEMAS.items()
    }


def _members(
    each: OpenedSAE,
    word_sets: Mapping[str, WordSet],
    asked: Asked,
    rows: dict[str, list[Row]],
) -> dict[str, pl.DataFrame]:
    """The latents of every group in one SAE."""
    if not word_sets:
        return {}
    contexts = read_table(each.examples / "contexts.parquet", CONTEXTS)
    vocabulary = read_table(each.examples / "vocabulary.parquet", VOCABULARY)
    texts = dict(vocabulary.select("token_id", "token").iter_rows())
    units = {of.unit for of in word_sets.values()}
    fired = {unit: firing_texts(contexts, texts, unit) for unit in units}
    tables = {}
    for name, of in word_sets.items():
        given = asked.latents.groups[name].latents.get(each.name)
        if given and max(given) >= each.width:
            raise SaeflowError(
                f"geometry.latents.groups.{name}.latents.{each.name}: {max(given)} is none of "
                f"{each.width} latents, 0 to {each.width - 1}; correct it"
            )
        table = members(name, each.name, of, fired[of.unit], asked.latents, given)
        left_out = shortage(table, name, each.name, asked.latents)
        if left_out:
            print(f"geometry: {left_out}", flush=True)
        rows["latents"].extend(table.iter_rows())
        rows["latent_groups"].append(
            group_row(table, name, each.name, each.hook, each.width, left_out)
        )
        tables[name] = table
    return tables


def _add_circles(
    read: Read,
    each: OpenedSAE,
    name: str,
    of: WordSet,
    table: pl.DataFrame,
    asked: Asked,
    rows: dict[str, list[Row]],
) -> None:
    chosen = torch.tensor(table["latent"].to_list())
    decoder = each.sae.W_dec[chosen].double().numpy()
    group = asked.points.groups.get(name)
    words = None
    if group is not None and list(group.members) == list(of.order):
        activations = read.words(name, each.hook)
        words = Words(activations, _rebuilt(each.sae, activations, chosen))
    key = (name, each.name, each.hook)
    drawn = circles(key, of.order, table, decoder, words, asked.nulls, asked.seed)
    rows["latent_circles"].extend(drawn.circles)
    rows["latent_places"].extend(drawn.places)


@torch.no_grad()
def _rebuilt(
    sae: SAE, activations: Float64[np.ndarray, "texts n d"], latents: torch.Tensor
) -> Float64[np.ndarray, "texts n d"]:
    """What some latents write where they are as active as they are."""
    x = torch.from_numpy(activations).float()
    z = sae.encode(x)
    kept = torch.zeros_like(z)
    kept[..., latents] = z[..., latents]
    written = sae.reconstruct(x, kept) - sae.reconstruct(x, torch.zeros_like(z))
    return written.double().numpy()


def _add_splits(
    narrow: OpenedSAE,
    wide: OpenedSAE,
    tables: Mapping[tuple[str, str], pl.DataFrame],
    asked: Asked,
    rows: dict[str, list[Row]],
) -> None:
    for name in asked.latents.groups:
        table = tables[name, wide.name]
        if table.is_empty():
            continue
        latents = table["latent"].to_list()
        inside = tables[name, narrow.name]["latent"].to_list()
        generator = numpy_generator(asked.seed, "geometry", "splits", name, narrow.name, wide.name)
        decoder = wide.sae.W_dec[torch.tensor(latents)].numpy()
        key = (name, wide.hook, narrow.name, narrow.width, wide.name, wide.width)
        parents = {
            COSINE: by_decoder(
                decoder, narrow.sae.W_dec.numpy(), asked.nulls.level, asked.nulls.draws, generator
            ),
            TOGETHER: by_firing(
                latents, read_entries(wide.examples), read_entries(narrow.examples), narrow.width
            ),
        }
        for by, of in parents.items():
            rows["splits"].extend(split_rows(key, table, inside, by, of))


def _add_periods(
    read: Read,
    each: OpenedSAE,
    tables: Mapping[str, pl.DataFrame],
    asked: Asked,
    rows: dict[str, list[Row]],
) -> None:
    """Where latents stand along lines at the hook of their SAE."""
    of_words = {name: _of_words(table) for name, table in tables.items()}
    of_words = {name: of for name, of in of_words.items() if len(of.latents)}
    taken = np.concatenate([np.empty(0, np.int64), *(of.latents for of in of_words.values())])
    for name, asked_line in asked.points.lines.items():
        line = read.line(name, [each.hook])
        points = line.points[each.hook]
        blocks = blocks_of(line.values, asked_line.block, name)
        everyone = np.arange(len(points))
        sources = {of: (everyone, numbers) for of, numbers in of_words.items()}
        fitted, held = halves(blocks, line.groups)
        own = read.latents(name, each.name)
        sources[HELD_OUT] = (
            fitted,
            _free(dated(own[held], line.values[held], asked.latents.texts), taken),
        )
        for other in asked_line.read_off:
            texts: Line = read.line(name, [each.hook], other)
            fires = read.latents(name, each.name, other)
            numbers = dated(fires, texts.values, asked.latents.texts)
            sources[other] = (everyone, _free(numbers, taken))
        for of, (fit_on, numbers) in sources.items():
            key = (name, each.hook, each.name, of)
            _add_order(
                key, points[fit_on], line.values[fit_on], blocks[fit_on], each, numbers, asked, rows
            )


def _of_words(table: pl.DataFrame) -> Dated:
    """Specific latents whose word says a number."""
    said = [
        (latent, number)
        for latent, word in table.filter(kind="specific").select("latent", "word").iter_rows()
        if (number := number_of(word)) is not None
    ]
    latents, values = np.array(said, float).reshape(-1, 2).T
    return Dated(latents.astype(np.int64), values, np.zeros(len(said), np.int64))


def _free(of: Dated, taken: Int64[np.ndarray, " t"]) -> Dated:
    """Those latents that stand for no number by their word."""
    kept = ~np.isin(of.latents, taken)
    return Dated(*(column[kept] for column in of))


def _add_order(
    key: tuple[str, str, str, str],
    points: Float64[np.ndarray, "n d"],
    values: Float64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    each: OpenedSAE,
    of: Dated,
    asked: Asked,
    rows: dict[str, list[Row]],
) -> None:
    if len(of.latents) < LEAST_DATED:
        left_out = (
            f"{key[0]}: {len(of.latents)} latents of {each.name} have a number by {key[3]}, and "
            f"{LEAST_DATED} are the least"
        )
        rows["dated_latents"].append((*key, len(of.latents), *[None] * 5, left_out))
        return
    decoder = each.sae.W_dec[torch.from_numpy(of.latents)].numpy()
    generator = numpy_generator(asked.seed, "geometry", "periods", *key)
    nulls = asked.nulls
    renumbered = np.unique(blocks, return_inverse=True)[1].astype(np.int64)
    own, order = order_along(
        points, values, renumbered, decoder, of, nulls.draws, nulls.block_orders, nulls.level,
        generator,
    )  # fmt: skip
    rows["dated_latents"].append((*key, len(of.latents), *order, None))
    rows["periods"].extend((*key, *row) for row in zip(*of, own, strict=True))
