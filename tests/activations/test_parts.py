"""A cache less some blocks of its text is read as a cache of the other blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_dictionary import cached

from saeflow.activations.parts import PartOfStore, without_blocks
from saeflow.activations.reader import ShuffledReader
from saeflow.activations.store import statistics
from saeflow.errors import SaeflowError

ROWS = 10_000  # of eight to a block, in one shard of three pieces
LEFT_OUT = np.array([0, 3, 700, *range(512, 1024)])  # the whole of the second piece is among them


def test_a_part_holds_the_rows_of_the_other_blocks_and_their_statistics(tmp_path: Path) -> None:
    activations = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0)) + 2
    whole = cached(tmp_path, activations, shards=1)
    part = without_blocks(whole, LEFT_OUT)
    assert isinstance(part, PartOfStore)
    expected = activations[~np.isin(np.arange(ROWS) // 8, LEFT_OUT)]
    pieces = part.pieces()
    assert len(pieces) == len(whole.pieces()) - 1
    assert torch.equal(torch.cat([part.read(piece) for piece in pieces]), expected)
    own = statistics(expected)
    assert part.rows == len(expected)
    torch.testing.assert_close(part.mean, torch.from_numpy(own.mean))
    assert part.variance == pytest.approx(own.variance)
    assert part.mean_norm == pytest.approx(own.mean_norm)
    places = list(part.with_places())
    assert [piece for piece, _ in places] == pieces
    blocks = np.concatenate([own_blocks for _, (_, own_blocks, _) in places])
    assert not np.isin(blocks, LEFT_OUT).any()
    assert len(blocks) == part.rows


def test_an_epoch_of_a_part_is_each_of_its_rows_once(tmp_path: Path) -> None:
    activations = torch.arange(ROWS, dtype=torch.float32)[:, None].repeat(1, 2)
    part = without_blocks(cached(tmp_path, activations, shards=1), LEFT_OUT)
    batch = part.rows // 4
    reader = ShuffledReader(part, batch, seed=0)
    rows = torch.cat([next(reader)[:, 0] for _ in range(4)]).long()
    assert len(set(rows.tolist())) == 4 * batch
    assert not np.isin(rows.numpy() // 8, LEFT_OUT).any()


def test_parts_with_other_rows_are_other_parts(tmp_path: Path) -> None:
    whole = cached(tmp_path, torch.randn(400, 4), shards=1)
    parts = [without_blocks(whole, np.array(blocks)) for blocks in ([1], [2], [2])]
    assert parts[0].identity != parts[1].identity == parts[2].identity


def test_nothing_left_is_a_sentence(tmp_path: Path) -> None:
    whole = cached(tmp_path, torch.randn(400, 4), shards=1)
    with pytest.raises(SaeflowError, match="no block of text is left to train on; leave out fewer"):
        without_blocks(whole, np.arange(50))
