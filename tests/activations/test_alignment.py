"""Caches that leave out other positions of one text are read by the rows that all of them have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_dictionary import METADATA

from saeflow.activations import alignment, formats, io
from saeflow.activations.alignment import in_step
from saeflow.activations.io import ActivationStore, shard_path, write_manifest, write_shards
from saeflow.activations.parts import without_blocks
from saeflow.activations.reader import AlignedReader
from saeflow.activations.store import ActivationRows
from saeflow.config.sections import Activations
from saeflow.saes.feeds import cache_feed

ROWS, BLOCK, SHARDS = 1_200, 30, 2


@pytest.fixture(autouse=True)
def pieces_of_64(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (io, formats, alignment):
        monkeypatch.setattr(module, "PIECE_ROWS", 64)


def cache(directory: Path, kept: np.ndarray, sign: float, first_token: int = 0) -> ActivationStore:
    """A cache of some rows of a text; each row holds its number in the text, with a sign."""
    settings, paths = Activations(), []
    for shard, rows in enumerate(np.array_split(np.arange(ROWS), SHARDS)):
        rows = rows[kept[rows]]
        values = sign * torch.from_numpy(rows).float()[:, None].expand(-1, 4).contiguous()
        places = (rows + first_token, rows % BLOCK, rows // BLOCK)
        part = ActivationRows(values, *(place.astype(np.int32) for place in places))
        paths.append(shard_path(directory, shard, settings))
        write_shards({METADATA["hook"]: paths[-1]}, [{METADATA["hook"]: part}], settings, METADATA)
    write_manifest(directory, paths)
    return ActivationStore.open(directory)


def masks() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.uniform(size=ROWS) > share for share in (0.02, 0.1)]


def test_each_batch_holds_the_same_rows_of_both_and_every_common_row_once(tmp_path: Path) -> None:
    first, second = masks()
    common = np.flatnonzero(first & second)
    stores = in_step([cache(tmp_path / "a", first, 1.0), cache(tmp_path / "b", second, -1.0)])
    assert stores[0].text == stores[1].text
    assert [store.rows for store in stores] == [len(common)] * 2
    assert float(stores[0].mean[0]) == pytest.approx(common.mean())
    assert stores[1].variance == pytest.approx(4 * common.var(), rel=1e-6)
    reader = AlignedReader(stores, 50, seed=1)
    batches = torch.cat([next(reader) for _ in range(-(-len(common) // 50))])[: len(common)]
    assert torch.equal(batches[:, 0], -batches[:, 1])
    assert sorted(batches[:, 0, 0].tolist()) == common.tolist()
    assert cache_feed(stores, None, 50, 0).n_sources == 2


def test_words_are_left_out_of_caches_in_step_as_of_any(tmp_path: Path) -> None:
    first, second = masks()
    stores = in_step([cache(tmp_path / "a", first, 1.0), cache(tmp_path / "b", second, -1.0)])
    left_out = np.array([3, 11])
    parts = [without_blocks(store, left_out) for store in stores]
    rows = np.flatnonzero(first & second)
    rows = rows[~np.isin(rows // BLOCK, left_out)]
    reader = AlignedReader(parts, 20, seed=0)
    batches = torch.cat([next(reader) for _ in range(-(-len(rows) // 20))])[: len(rows)]
    assert sorted(batches[:, 0, 0].tolist()) == rows.tolist()
    assert torch.equal(batches[:, 0], -batches[:, 1])


def test_caches_of_the_same_rows_or_of_other_text_stay_as_they_are(tmp_path: Path) -> None:
    first, second = masks()
    same = [cache(tmp_path / name, first, 1.0) for name in ("a", "b")]
    assert in_step(same) == same
    other = [same[0], cache(tmp_path / "c", second, 1.0, first_token=7)]
    assert in_step(other) == other
    assert in_step(same[:1]) == same[:1]


def test_what_a_training_goes_on_from_depends_on_which_rows_are_common(tmp_path: Path) -> None:
    first, second = masks()
    cached = cache(tmp_path / "a", first, 1.0)
    both = in_step([cached, cache(tmp_path / "b", second, -1.0)])
    assert both[0].identity != cached.identity
