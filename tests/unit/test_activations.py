"""The cache of activations: what is captured, kept, vouched for and read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_dictionary import METADATA, cached, shard_of
from tiny_models import tiny_language_model, tiny_tokens

from saeflow.activations import io
from saeflow.activations.capture import capture_shard
from saeflow.activations.io import ActivationStore, read_shard, write_manifest, write_shard
from saeflow.activations.reader import ShuffledReader
from saeflow.activations.store import merge, n_shards, statistics, torch_dtype
from saeflow.config.sections import Activations
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.running import capture

HOOK = "blocks.1.hook_resid_post"


def numbered(rows: int, d_model: int = 4) -> torch.Tensor:
    """Rows that can be told apart by their first number."""
    return torch.arange(rows, dtype=torch.float32)[:, None] * torch.ones(d_model)


@pytest.fixture
def pieces_of_64(monkeypatch):
    monkeypatch.setattr(io, "PIECE_ROWS", 64)


@pytest.fixture(scope="module")
def lm():
    return tiny_language_model("llama")


@pytest.fixture(scope="module")
def blocks():
    return TokenBlocks(tiny_tokens(rows=10).numpy().astype(np.int32), {}, {})


def test_shards_hold_the_models_activations_without_bos(lm, blocks):
    settings = Activations(blocks_per_shard=4)
    shards = [capture_shard(lm, blocks, index, HOOK, settings, batch=3) for index in range(3)]
    whole = capture(lm, torch.from_numpy(blocks.tokens).long(), [HOOK])[HOOK][:, 1:].flatten(0, 1)
    torch.testing.assert_close(torch.cat([shard.activations for shard in shards]), whole)
    for shard in shards:
        assert (blocks.tokens[shard.blocks, shard.positions] == shard.tokens).all()
        assert shard.positions.min() == 1
    assert np.unique(np.concatenate([shard.blocks for shard in shards])).tolist() == list(range(10))


def test_bos_is_kept_on_request(lm, blocks):
    shard = capture_shard(lm, blocks, 0, HOOK, Activations(exclude_bos=False), batch=4)
    assert len(shard.activations) == blocks.tokens.size
    assert (shard.tokens[shard.positions == 0] == 0).all()


def test_a_shard_that_does_not_exist_is_refused(lm, blocks):
    with pytest.raises(SaeflowError, match=r"shard 3 does not exist; the split fills 3 shards \(0..2\)"):
        capture_shard(lm, blocks, 3, HOOK, Activations(blocks_per_shard=4), batch=4)
    assert n_shards(600_000, 64, 2048) == 5


def test_activations_that_overflow_float16_are_reported(lm, blocks, monkeypatch):
    monkeypatch.setattr(
        "saeflow.activations.capture.capture", lambda lm, ids, hooks: {HOOK: torch.full((2, 12, 32), 1e5)}
    )
    with pytest.raises(SaeflowError, match=r"do not fit float16; set activations\.dtype to bfloat16"):
        capture_shard(lm, blocks, 0, HOOK, Activations(dtype="float16"), batch=16)


@pytest.mark.parametrize("format_", ["parquet", "hdf5"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_shard_survives_the_way_to_disk_in_every_format(tmp_path, pieces_of_64, format_, dtype):
    settings = Activations(format=format_, dtype=dtype)
    shard = shard_of(torch.randn(150, 6).to(torch_dtype(dtype)))
    path = io.shard_path(tmp_path, 0, settings)
    write_shard(path, shard, settings, METADATA)
    back = read_shard(path)
    assert torch.equal(back.activations, shard.activations)
    for field in ("tokens", "positions", "blocks"):
        assert np.array_equal(getattr(back, field), getattr(shard, field))
    write_manifest(tmp_path, [path])
    store = ActivationStore.open(tmp_path)
    assert [piece.rows for piece in store.pieces()] == [64, 64, 22]
    assert torch.equal(torch.cat([store.read(piece) for piece in store.pieces()]), shard.activations)


def test_statistics_of_shards_merge_to_those_of_all_rows(tmp_path):
    rows = torch.randn(1000, 5) * 3 + 100
    store = cached(tmp_path, rows, shards=7)
    exact = rows.double()
    assert (store.rows, store.d_model, store.hook, store.model) == (1000, 5, METADATA["hook"], METADATA["model"])
    torch.testing.assert_close(store.mean, exact.mean(0), rtol=1e-13, atol=0)
    assert store.variance == pytest.approx(float((exact - exact.mean(0)).square().sum(1).mean()), rel=1e-12)
    assert store.mean_norm == pytest.approx(float(exact.norm(dim=1).mean()), rel=1e-13)
    assert merge([statistics(rows[:1]), statistics(rows[1:])]).scatter == pytest.approx(statistics(rows).scatter)


@pytest.mark.parametrize("format_", ["parquet", "hdf5"])
def test_a_damaged_shard_is_one_sentence(tmp_path, format_):
    store = cached(tmp_path, torch.randn(600, 16), Activations(format=format_))
    path = tmp_path / store.shards[1]["file"]
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(SaeflowError, match=r"is damaged \(its checksum differs"):
        ActivationStore.open(tmp_path).verify()
    with pytest.raises(SaeflowError, match=r"shard-00001.* is damaged"):
        store.read(store.pieces()[1])
    path.write_bytes(whole[:-100])
    with pytest.raises(SaeflowError, match="bytes, not"):
        ActivationStore.open(tmp_path)
    with pytest.raises(SaeflowError, match="is damaged"):
        read_shard(path)
    path.unlink()
    with pytest.raises(SaeflowError, match="is absent"):
        ActivationStore.open(tmp_path)
    with pytest.raises(SaeflowError, match="no such file"):
        write_manifest(tmp_path, [path])


def test_shards_of_two_caches_do_not_mix(tmp_path):
    paths = [tmp_path / f"shard-0000{index}.parquet" for index in range(2)]
    for path, model in zip(paths, ["one", "other"], strict=True):
        write_shard(path, shard_of(torch.randn(9, 3)), Activations(), {**METADATA, "model": model})
    with pytest.raises(SaeflowError, match="is of another cache"):
        write_manifest(tmp_path, paths)


@pytest.mark.parametrize("buffer_rows", [128, 300, 100_000])
def test_every_row_is_read_exactly_once_per_epoch(tmp_path, pieces_of_64, buffer_rows):
    store = cached(tmp_path, numbered(1000))
    reader = ShuffledReader(store, batch_size=48, seed=1, buffer_rows=buffer_rows)
    run = torch.cat([next(reader)[:, 0] for _ in range(63)])
    epochs = [run[start : start + 1000].tolist() for start in (0, 1000, 2000)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(1000))
        assert epoch != sorted(epoch)
    assert epochs[0] != epochs[1]


def test_any_batch_can_be_sought(tmp_path, pieces_of_64):
    store = cached(tmp_path, numbered(1000))
    run = ShuffledReader(store, 48, seed=1, buffer_rows=300)
    states, batches = zip(*[(run.state(), next(run)) for _ in range(50)], strict=True)
    other = ShuffledReader(store, 48, seed=1, buffer_rows=300)
    for index in (41, 3, 20, 49):
        other.seek(states[index])
        assert torch.equal(next(other), batches[index])


def test_the_buffer_never_holds_more_than_its_rows(tmp_path, pieces_of_64):
    reader = ShuffledReader(cached(tmp_path, numbered(1000)), 48, seed=0, buffer_rows=200)
    held = [len(reader._buffer) for _ in range(60) if next(reader) is not None]
    assert max(held) <= 200
    with pytest.raises(SaeflowError, match="a buffer of 63 rows is too small; give at least 64"):
        ShuffledReader(reader.store, 8, seed=0, buffer_rows=63)


def test_a_cache_that_fits_the_buffer_is_read_once(tmp_path, monkeypatch):
    store = cached(tmp_path, numbered(500))
    reads = []
    original = ActivationStore.read
    monkeypatch.setattr(ActivationStore, "read", lambda self, piece: reads.append(piece) or original(self, piece))
    reader = ShuffledReader(store, 100, seed=0)
    for _ in range(20):
        next(reader)
    assert len(reads) == len(store.pieces())
