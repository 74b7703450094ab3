"""Where latents fire: what is streamed equals what is counted with everything in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from planted_dictionary import METADATA
from polars.testing import assert_frame_equal

from saeflow.activations.io import ActivationStore, shard_path, write_manifest, write_shards
from saeflow.activations.store import ActivationRows
from saeflow.analyses.examples import entries, examples
from saeflow.analyses.examples.cofiring import cofiring
from saeflow.analyses.examples.io import read_firing, write_examples
from saeflow.analyses.examples.keeping import Best, FrequentTokens
from saeflow.analyses.examples.settings import Examples
from saeflow.config.sections import Activations
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.vocabulary import Vocabulary
from saeflow.saes.sae import SAE
from saeflow.seeds import numpy_generator

BLOCKS, CONTEXT, D_MODEL, D_SAE, D_VOCAB = 60, 20, 12, 30, 25
SETTINGS = Examples(top=5, strata=3, per_stratum=2, before=4, after=3, cofiring=4)
KNOWN = Vocabulary(
    np.arange(D_VOCAB, dtype=np.int32),
    [f"w{i}" for i in range(D_VOCAB)],
    np.zeros(D_VOCAB, dtype=bool),
)


class World:
    """A cache of random activations without BOS, the text, an SAE with two dead latents, and all
    that fires."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generator = numpy_generator(0, "world")
        self.tokens = generator.integers(0, D_VOCAB, (BLOCKS, CONTEXT), dtype=np.int32)
        self.x = torch.from_numpy(generator.standard_normal((BLOCKS, CONTEXT, D_MODEL))).float()
        decoder = torch.nn.functional.normalize(
            torch.from_numpy(generator.standard_normal((D_SAE, D_MODEL))).float()
        )
        bias = torch.full((D_SAE,), -0.8)
        bias[[7, 29]] = -100.0
        self.sae = SAE("standard", decoder.T.contiguous(), decoder, bias, torch.zeros(D_MODEL))
        self.z = self.sae.encode(self.x[:, 1:]).numpy()  # [blocks, pos - 1, d_sae]
        self.corpus = folder / "sae.safetensors"
        save_blocks(self.corpus, TokenBlocks(self.tokens, {}, {}))
        self.store = self.cached(25)

    def cached(self, blocks_per_shard: int) -> ActivationStore:
        settings, shards = Activations(blocks_per_shard=blocks_per_shard), []
        folder = self.folder / f"cache-{blocks_per_shard}"
        for shard, first in enumerate(range(0, BLOCKS, blocks_per_shard)):
            of_shard = range(first, min(first + blocks_per_shard, BLOCKS))
            blocks = np.repeat(np.array(of_shard, np.int32), CONTEXT - 1)
            positions = np.tile(np.arange(1, CONTEXT, dtype=np.int32), len(of_shard))
            rows = ActivationRows(
                self.x[of_shard, 1:].flatten(0, 1),
                self.tokens[blocks, positions],
                positions,
                blocks,
            )
            shards.append(shard_path(folder, shard, settings))
            write_shards(
                {METADATA["hook"]: shards[-1]}, [{METADATA["hook"]: rows}], settings, METADATA
            )
        write_manifest(folder, shards)
        return ActivationStore.open(folder)

    def written(
        self, name: str, settings: Examples = SETTINGS, store: ActivationStore | None = None
    ) -> Path:
        out = self.folder / name
        write_examples(out, store or self.store, self.sae, self.corpus, KNOWN, settings, seed=0)
        return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def folder(world: World) -> Path:
    return world.written("examples")


def test_counts_equal_those_with_everything_in_memory(world: World, folder: Path) -> None:
    table = pl.read_parquet(folder / "latents.parquet")
    assert dict(table.schema) == dict(examples.LATENTS)
    flat, tokens = world.z.reshape(-1, D_SAE), world.tokens[:, 1:].ravel()
    fires = flat > 0
    assert table["tokens"].to_list() == fires.sum(axis=0).tolist()
    assert table["density"].to_numpy() == pytest.approx(fires.mean(axis=0))
    assert table["maximum"].to_numpy() == pytest.approx(flat.max(axis=0))
    with np.errstate(invalid="ignore"):
        assert table["mean_active"].to_numpy() == pytest.approx(
            np.nan_to_num(flat.sum(axis=0) / fires.sum(axis=0))
        )
    for latent in range(D_SAE):
        counts = np.bincount(tokens[fires[:, latent]], minlength=D_VOCAB)
        row = table.row(latent, named=True)
        if not counts.sum():
            assert (row["top_token_id"], row["top_token"], row["top_token_share"]) == (
                None,
                None,
                0,
            )
            continue
        assert row["top_token_id"] == counts.argmax()
        assert row["top_token"] == f"w{counts.argmax()}"
        assert row["top_token_share"] == pytest.approx(counts.max() / counts.sum())
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["rows"], summary["entries"], summary["dead"]) == (len(flat), fires.sum(), 2)
    assert read_firing(folder).density.tolist() == table["density"].to_list()


def test_histograms_equal_numpy_s(world: World, folder: Path) -> None:
    table = pl.read_parquet(folder / "histogram.parquet")
    for latent in range(D_SAE):
        values = world.z[..., latent][world.z[..., latent] > 0]
        row = table.row(latent, named=True)
        assert sum(row["counts"]) == len(values)
        if len(values):
            counts, _ = np.histogram(values, examples.BINS, (0, values.max()))
            assert np.abs(np.array(row["counts"]) - counts).sum() <= 2  # float32 at the edges


def test_the_strongest_contexts_are_the_largest_activations_one_per_block(
    world: World, folder: Path
) -> None:
    table = pl.read_parquet(folder / "contexts.parquet").filter(group="top")
    for latent in range(D_SAE):
        own = table.filter(latent=latent)
        best = np.sort(world.z[..., latent].max(axis=1))[::-1][:5]
        assert own["activation"].to_numpy() == pytest.approx(best[best > 0])
        assert own["rank"].to_list() == list(range(len(own)))
        assert own["block"].n_unique() == len(own)
    assert table.filter(latent=7).is_empty()


def test_windows_show_the_text_and_what_fires_along_it(world: World, folder: Path) -> None:
    table = pl.read_parquet(folder / "contexts.parquet")
    full = np.concatenate([np.zeros((BLOCKS, 1, D_SAE), np.float32), world.z], axis=1)
    for row in table.iter_rows(named=True):
        first, last = max(0, row["position"] - 4), min(CONTEXT, row["position"] + 4)
        assert row["offset"] == row["position"] - first
        assert row["token_ids"] == world.tokens[row["block"], first:last].tolist()
        assert row["activations"] == pytest.approx(full[row["block"], first:last, row["latent"]])
        assert row["activations"][row["offset"]] == pytest.approx(row["activation"])


def test_every_token_of_a_context_has_its_text_beside_it(folder: Path) -> None:
    table = pl.read_parquet(folder / "vocabulary.parquet")
    shown = set(pl.read_parquet(folder / "contexts.parquet")["token_ids"].explode())
    assert table["token_id"].to_list() == sorted(shown)
    assert table["token"].to_list() == [f"w{token}" for token in sorted(shown)]


def test_drawn_contexts_lie_in_their_part_of_the_range(world: World, folder: Path) -> None:
    table = pl.read_parquet(folder / "contexts.parquet").filter(pl.col("group") != "top")
    assert set(table["group"].unique()) == {"q1", "q2", "q3"}
    most = world.z.reshape(-1, D_SAE).max(axis=0)
    for row in table.iter_rows(named=True):
        part = int(row["group"][1:])
        assert (part - 1) / 3 <= row["activation"] / most[row["latent"]] + 1e-6 <= part / 3 + 2e-6
    sizes = table.group_by("latent", "group").len()["len"]
    assert sizes.max() == 2


def test_draws_are_uniform_over_the_entries_of_a_part() -> None:
    """Of a hundred entries, one each in a block of its own, every one is drawn as often as any
    other."""
    drawn = np.zeros(100)
    for seed in range(400):
        totals = examples.Totals(
            100, np.array([100]), np.array([100.0]), np.array([1.0], np.float32)
        )
        places = entries.Rows(*(np.arange(100, dtype=np.int32) for _ in range(3)))
        part = entries.Firings(
            0, np.arange(100), np.zeros(100, np.int32), np.ones(100, np.float32), places
        )
        once = FrequentTokens(100)
        once.add(part.latents, part.tokens)
        second = examples.SecondPass(
            totals, once.counter(), Examples(strata=1, per_stratum=5), seed
        )
        second.add(part)
        drawn[second.drawn().kept().rows] += 1
    assert drawn.sum() == 2000
    assert ((drawn - 20) ** 2 / 20).sum() < 150  # chi-square with 99 degrees of freedom: 99 ± 14


def test_companions_equal_dense_counts(world: World, folder: Path) -> None:
    table = pl.read_parquet(folder / "cofiring.parquet")
    flat = world.z.reshape(-1, D_SAE).astype(np.float64)
    fires = flat > 0
    both = fires.T.astype(int) @ fires.astype(int)
    with np.errstate(invalid="ignore", divide="ignore"):
        jaccard = np.nan_to_num(both / (fires.sum(0)[:, None] + fires.sum(0) - both))
        correlation = np.corrcoef(flat.T)
    np.fill_diagonal(jaccard, -1)
    for row in table.iter_rows(named=True):
        pair = row["latent"], row["other"]
        assert row["count"] == both[pair]
        assert row["jaccard"] == pytest.approx(jaccard[pair])
        assert row["correlation"] == pytest.approx(correlation[pair], abs=1e-5)
    own = table.filter(latent=3)
    assert own["jaccard"].to_numpy() == pytest.approx(np.sort(jaccard[3])[::-1][:4])
    assert table.filter(latent=7).is_empty()


def test_companions_are_the_largest_shares_of_a_dense_table_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ties, latents that never fire and more room than companions; whatever the latents between
    words of progress."""
    generator = numpy_generator(0, "companions")
    fires = generator.random((90, 40)) < np.linspace(0, 0.3, 40)
    flat = np.where(fires, generator.random((90, 40), np.float32) + 0.1, 0)
    fires[:, 1], flat[:, 1] = fires[:, 30], flat[:, 30]
    rows, latents = fires.nonzero()
    both = fires.T.astype(int) @ fires.astype(int)
    either = fires.sum(0)[:, None] + fires.sum(0) - both
    expected = []
    for latent in range(40):
        others = [other for other in range(40) if other != latent and both[latent, other]]
        ranked = sorted(
            others, key=lambda other: (-both[latent, other] / either[latent, other], other)
        )[:6]
        expected += [
            (latent, other, rank, both[latent, other]) for rank, other in enumerate(ranked)
        ]
    monkeypatch.setattr("saeflow.analyses.examples.cofiring._LATENTS_AT_ONCE", 7)
    drawn: list[tuple[int, int]] = []
    entries_of = rows, latents.astype(np.int32), flat[rows, latents].astype(np.float32)
    table = cofiring(*entries_of, 90, 40, 6, lambda *at: drawn.append(at))
    assert table.select("latent", "other", "rank", "count").rows() == expected
    assert table["jaccard"].to_numpy() == pytest.approx(
        [both[a, b] / either[a, b] for a, b, *_ in expected]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.corrcoef(flat.T.astype(np.float64))
    assert table["correlation"].to_numpy() == pytest.approx(
        [correlation[a, b] for a, b, *_ in expected], abs=1e-6
    )
    assert drawn == [(min(last, 40), 40) for last in range(7, 46, 7)]
    assert cofiring(*entries_of, 90, 40, 60)["count"].sum() == both.sum() - np.trace(both)


def test_the_sparse_table_is_all_that_fires_and_leads_back_to_the_text(
    world: World, folder: Path
) -> None:
    table = pl.read_parquet(folder / "activations/*.parquet")
    rows = pl.read_parquet(folder / "rows.parquet")
    dense = np.zeros((len(rows), D_SAE), np.float32)
    dense[table["row"], table["latent"]] = table["value"]
    assert dense == pytest.approx(world.z.reshape(-1, D_SAE))
    assert rows["token"].to_list() == world.tokens[rows["block"], rows["position"]].tolist()


def test_nothing_depends_on_how_the_cache_and_the_entries_are_cut(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "SHARD_ENTRIES", 300)
    monkeypatch.setattr("saeflow.activations.io.PIECE_ROWS", 64)
    monkeypatch.setattr("saeflow.activations.formats.PIECE_ROWS", 64)
    again = world.written("again", store=world.cached(7))
    assert json.loads((again / "summary.json").read_text())["shards"] > 5
    for name in ("latents", "histogram", "contexts", "cofiring", "vocabulary"):
        first, other = (pl.read_parquet(place / f"{name}.parquet") for place in (folder, again))
        assert_frame_equal(first, other, rel_tol=1e-5)


def test_one_latent_is_found_without_reading_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_GROUP_ENTRIES", 100)
    out = world.written("groups")
    file = pq.ParquetFile(out / "activations/shard-00000.parquet")
    latents = [
        file.metadata.row_group(group).column(1).statistics for group in range(file.num_row_groups)
    ]
    assert sum(bounds.min <= 12 <= bounds.max for bounds in latents) <= 4 < file.num_row_groups


def test_rows_are_drawn_for_companions_where_there_are_many(world: World) -> None:
    few = world.written("few", Examples(cofiring_rows=300, strata=0))
    table = pl.read_parquet(few / "cofiring.parquet")
    whole = (world.z.reshape(-1, D_SAE) > 0).sum(axis=0)
    assert 0 < table["count"].max() < whole.max() / 2
    assert set(pl.read_parquet(few / "contexts.parquet")["group"]) == {"top"}


def test_the_best_of_each_group_are_kept_whatever_comes_first() -> None:
    generator = numpy_generator(0, "best")
    groups, blocks = generator.integers(0, 9, 4000), np.sort(generator.integers(0, 300, 4000))
    scores, rows = np.round(generator.random(4000), 2), np.arange(4000)
    best = Best(9, 6)
    for part in np.array_split(np.arange(4000), 37):
        best.add(groups[part], scores[part], rows[part], blocks[part])
    kept = best.kept()
    table = pl.DataFrame({"group": groups, "block": blocks, "score": scores, "row": rows})
    ordered = table.sort("group", -pl.col("score"), "row").unique(
        ["group", "block"], keep="first", maintain_order=True
    )
    expected = ordered.group_by("group", maintain_order=True).head(6)
    assert kept.rows.tolist() == expected["row"].to_list()
    assert kept.groups.tolist() == expected["group"].to_list()


def test_a_frequent_token_is_a_candidate_however_many_rare_ones_come_between() -> None:
    generator = numpy_generator(0, "frequent")
    rare = generator.integers(10, 50_000, 9_000)
    tokens = np.concatenate([rare, np.full(1_200, 7)])[generator.permutation(10_200)].astype(
        np.int32
    )
    frequent = FrequentTokens(50_000, candidates=9)
    for part in np.array_split(tokens, 50):
        frequent.add(np.full(len(part), 2, np.int32), part)
    counter = frequent.counter()
    for part in np.array_split(tokens, 7):
        counter.add(np.full(len(part), 2, np.int32), part)
    most, counts = counter.most(4)
    assert most.tolist() == [-1, -1, 7, -1]
    assert counts.tolist() == [0, 0, 1200, 0]


def test_what_is_damaged_is_told_in_one_sentence(world: World, tmp_path: Path) -> None:
    out = world.written("damaged")
    (out / "activations/shard-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(SaeflowError, match=r"cannot be read .*; if the workflow made"):
        list(entries.read_entries(out))
    narrow = SAE("standard", torch.eye(3), torch.eye(3), torch.zeros(3), torch.zeros(3))
    with pytest.raises(SaeflowError, match="reads activations of width 3"):
        write_examples(tmp_path / "x", world.store, narrow, world.corpus, KNOWN, SETTINGS, seed=0)
    assert not (tmp_path / "x").exists()
