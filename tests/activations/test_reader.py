"""Shuffled batches: every row once per epoch, any batch at once, within the memory that was
stated."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc

import pyarrow as pa
import pytest
import torch
from planted_dictionary import METADATA, cached

from saeflow.activations import formats, io
from saeflow.activations.io import ActivationStore
from saeflow.activations.reader import AlignedReader, ShuffledReader
from saeflow.config.sections import Activations
from saeflow.errors import DamagedError, SaeflowError
from saeflow.saes.feeds import cache_feed

WHOLE, PORTIONS, SMALLEST = 1 << 30, 20_000, 11_000  # bytes of memory for 1,000 rows of 16 bytes


def numbered(rows: int, d_model: int = 4) -> torch.Tensor:
    """Rows that can be told apart by their first number."""
    return torch.arange(rows, dtype=torch.float32)[:, None] * torch.ones(d_model)


@pytest.fixture
def pieces_of_64(monkeypatch):
    for module in (io, formats):
        monkeypatch.setattr(module, "PIECE_ROWS", 64)


@pytest.fixture
def store(tmp_path, pieces_of_64):
    return cached(tmp_path, numbered(1000))


@pytest.mark.parametrize("memory", [WHOLE, PORTIONS, SMALLEST])
def test_every_row_is_read_exactly_once_per_epoch(store, memory):
    reader = ShuffledReader(store, batch_size=48, seed=1, memory=memory)
    run = torch.cat([next(reader)[:, 0] for _ in range(63)])
    epochs = [run[start : start + 1000].tolist() for start in (0, 1000, 2000)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(1000))
        assert epoch != sorted(epoch)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("memory", [WHOLE, PORTIONS])
def test_a_batch_may_be_larger_than_the_cache(store, memory):
    batch = next(ShuffledReader(store, 2500, seed=0, memory=memory + 8 * 16 * 2500))
    counts = torch.bincount(batch[:, 0].long(), minlength=1000)
    assert counts.min() == 2
    assert counts.max() == 3


def test_neighbours_in_the_text_come_far_apart(store):
    order = torch.cat(
        [
            batch[:, 0]
            for batch, _ in zip(ShuffledReader(store, 40, 0, PORTIONS), range(25), strict=False)
        ]
    )
    places = order.argsort()
    assert (places[1:] - places[:-1]).abs().float().median() > 60


@pytest.mark.parametrize("memory", [WHOLE, PORTIONS, SMALLEST])
def test_any_batch_can_be_sought(store, memory):
    run = ShuffledReader(store, 48, seed=1, memory=memory)
    states, batches = zip(*[(run.state(), next(run).clone()) for _ in range(50)], strict=True)
    other = ShuffledReader(store, 48, seed=1, memory=memory)
    for index in (41, 3, 20, 21, 22, 49, 0):
        other.seek(states[index])
        assert torch.equal(next(other), batches[index])
    assert states[41] == {"batch": 41}


def test_only_the_portion_of_the_batch_and_in_the_background_the_next_are_read(store, monkeypatch):
    reads = []
    original = ActivationStore.read_into

    def noted(self, piece, out):
        reads.append(threading.current_thread())
        original(self, piece, out)

    monkeypatch.setattr(ActivationStore, "read_into", noted)
    reader = ShuffledReader(store, 8, seed=1, memory=PORTIONS)
    reader.seek({"batch": 10**6})
    next(reader)
    until = time.monotonic() + 10
    in_two_portions = 2 * len(store.pieces()) // reader._n_portions
    while len(reads) < in_two_portions and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert in_two_portions <= len(reads) <= in_two_portions + 2
    assert threading.current_thread() not in reads


def test_a_cache_that_fits_the_memory_is_read_once(store, monkeypatch):
    reads = []
    original = ActivationStore.read_into
    monkeypatch.setattr(
        ActivationStore,
        "read_into",
        lambda self, piece, out: reads.append(piece) or original(self, piece, out),
    )
    reader = ShuffledReader(store, 100, seed=0)
    for _ in range(35):
        next(reader)
    assert sorted(reads) == store.pieces()


@pytest.mark.parametrize("rows", [40_000, 400_000])
def test_memory_stays_within_what_was_stated_however_large_the_cache(tmp_path, monkeypatch, rows):
    for module in (io, formats):
        monkeypatch.setattr(module, "PIECE_ROWS", 512)
    store = cached(tmp_path, numbered(rows, 16))
    memory = 1 << 20
    original, arrow = ActivationStore.read_into, [0]

    def watched(self, piece, out):
        original(self, piece, out)
        arrow.append(pa.total_allocated_bytes() - before)

    monkeypatch.setattr(ActivationStore, "read_into", watched)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    reader = ShuffledReader(store, 1024, seed=0, memory=memory)
    for _ in range(2 * rows // 1024):
        next(reader)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    batches = 3 * 1024 * 64  # torch's own, which tracemalloc does not see
    overhead = 200_000  # Python objects: code, futures, footers of files
    assert held + max(arrow) + batches <= memory + overhead


def test_too_small_a_memory_is_one_sentence_that_says_how_much_is_needed(store):
    with pytest.raises(
        SaeflowError, match="a memory of 5000 bytes is too small; give at least 9472"
    ):
        ShuffledReader(store, 48, seed=0, memory=5000)
    ShuffledReader(store, 48, seed=0, memory=9472)


def test_a_shard_that_is_damaged_meanwhile_is_told_by_the_batch_that_needs_it(store):
    reader = ShuffledReader(store, 48, seed=0, memory=PORTIONS)
    next(reader)
    path = store.path(1)
    whole = bytearray(path.read_bytes())
    whole[whole.index(numbered(1000)[500].numpy().tobytes())] ^= 255
    path.write_bytes(whole)
    with pytest.raises(DamagedError, match=r"shard-00001\.parquet: is damaged"):
        torch.cat(list(itertools.islice(reader, 50)))


def two(tmp_path, second=None, settings=None):
    """A cache, and another of the same tokens."""
    first = numbered(1000)
    second = -first if second is None else second
    return [
        cached(tmp_path / name, values, settings and settings[index])
        for index, (name, values) in enumerate([("a", first), ("b", second)])
    ]


@pytest.mark.parametrize("memory", [WHOLE, 40_000])
def test_caches_of_the_same_tokens_are_read_row_by_row(tmp_path, pieces_of_64, memory):
    reader = AlignedReader(two(tmp_path), 48, seed=1, memory=memory)
    batches = torch.cat([next(reader) for _ in range(21)])[:1000]
    assert batches.shape == (1000, 2, 4)
    assert torch.equal(batches[:, 0], -batches[:, 1])
    assert sorted(batches[:, 0, 0].tolist()) == list(range(1000))


@pytest.mark.parametrize("memory", [WHOLE, 60_000])
def test_caches_of_unlike_width_come_as_a_pair(tmp_path, pieces_of_64, memory):
    wide = numbered(1000, 6) + 0.5
    stores = two(tmp_path, wide)
    reader, alone = (
        AlignedReader(stores, 48, seed=1, memory=memory),
        ShuffledReader(stores[0], 48, seed=1),
    )
    pairs = [next(reader) for _ in range(21)]
    first, second = (torch.cat([pair[side] for pair in pairs])[:1000] for side in (0, 1))
    assert (first.shape, second.shape) == ((1000, 4), (1000, 6))
    assert torch.equal(second, wide[first[:, 0].long()])
    assert sorted(first[:, 0].tolist()) == list(range(1000))
    if memory == WHOLE:
        assert torch.equal(first, torch.cat([next(alone) for _ in range(21)])[:1000])


def test_a_transcoder_is_fed_from_caches_of_unlike_width_and_a_crosscoder_is_not(tmp_path):
    stores = two(tmp_path, numbered(1000, 6))
    feed = cache_feed(stores[:1], stores[1], 48, seed=0)
    x, y = feed.next("cpu")
    assert (feed.d_in, feed.d_out, x.shape, y.shape) == (4, 6, (48, 4), (48, 6))
    assert feed.metadata["hook_name_out"] == stores[1].hook
    with pytest.raises(
        SaeflowError,
        match=r"a crosscoder's sources have one width, these differ \(.*a: 4, .*b: 6\)",
    ):
        cache_feed(stores, None, 48, seed=0)
    with pytest.raises(SaeflowError, match="give one manifest with a target, or no target"):
        cache_feed(stores, stores[0], 48, seed=0)
    both = cache_feed([stores[0], stores[0]], None, 48, seed=0)
    assert (both.n_sources, both.d_in, both.d_out, both.next("cpu")[0].shape) == (
        2,
        8,
        None,
        (48, 8),
    )


def test_the_order_of_one_cache_is_that_of_several(tmp_path):
    stores = two(tmp_path)
    alone, beside = ShuffledReader(stores[0], 48, seed=3), AlignedReader(stores, 48, seed=3)
    for _ in range(30):
        assert torch.equal(next(alone), next(beside)[:, 0])


def test_caches_that_do_not_match_are_one_sentence(tmp_path):
    other_text = [
        cached(tmp_path / "a", numbered(1000)),
        cached(tmp_path / "b", numbered(1000), shards=2),
    ]
    with pytest.raises(
        SaeflowError, match=r"b and .*a hold other tokens; cache both from the same corpus"
    ):
        AlignedReader(other_text, 48, seed=0)
    halves = two(tmp_path / "halves", settings=[Activations(), Activations(dtype="bfloat16")])
    with pytest.raises(
        SaeflowError, match=r"holds torch\.bfloat16, .* torch\.float32; read side by side"
    ):
        AlignedReader(halves, 48, seed=0)


def test_a_truncated_shard_is_told_before_anything_is_read(store):
    store.path(2).write_bytes(store.path(2).read_bytes()[:-1])
    with pytest.raises(DamagedError, match="bytes, not"):
        ShuffledReader(store, 48, seed=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_batches_come_to_the_accelerator_as_they_come_to_the_processor(store):
    here, there = (
        ShuffledReader(store, 48, seed=0),
        ShuffledReader(store, 48, seed=0, device="cuda"),
    )
    for _ in range(30):
        batch = next(there)
        assert batch.device.type == "cuda"
        assert torch.equal(batch.cpu(), next(here))


def test_a_reader_says_what_its_order_depends_on(store):
    assert METADATA["hook"] == store.hook
    readers = [
        ShuffledReader(store, 48, seed=1),
        ShuffledReader(store, 48, seed=1, memory=PORTIONS),
    ]
    assert readers[0].identity != readers[1].identity
    assert readers[0].identity == ShuffledReader(store, 48, seed=1, memory=WHOLE // 2).identity
