"""On a full disk every writer says so in a sentence, leaves nothing half-written, and can be called again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from planted_dictionary import METADATA, rows_of
from small_disk import small_disk

from saeflow.activations.io import write_shards
from saeflow.analyses.effects.io import merge_blocks, write_block
from saeflow.analyses.effects.measure import EffectBlock
from saeflow.artifacts import write_json
from saeflow.checkpoints import save_checkpoint
from saeflow.config.sections import Activations
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.saes.io import save_sae
from saeflow.saes.sae import SAE
from saeflow.tables import write_table

NUMBERS = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))  # half a megabyte
KILOBYTES = 300
BLOCK = EffectBlock(
    NUMBERS[:, :4].clone(),
    NUMBERS,
    NUMBERS.abs().half(),
    np.ones(256),
    np.zeros(256, np.uint8),
    np.arange(256),
    np.ones(256),
    np.ones(256, dtype=np.int64),
)


def merge(disk: Path) -> None:
    block = disk.parent / "block"
    write_block(block, BLOCK, 0, {"hook": "h"})
    merge_blocks([block], disk / "effects.h5")


def shard(format_: str) -> Callable[[Path], None]:
    settings, suffix = Activations(format=format_), {"parquet": "parquet", "hdf5": "h5"}[format_]  # type: ignore[arg-type]
    return lambda disk: write_shards(
        {METADATA["hook"]: disk / f"shard.{suffix}"},
        [{METADATA["hook"]: rows_of(NUMBERS)}],
        settings,
        METADATA,
    )


WRITERS: dict[str, Callable[[Path], object]] = {
    "tokens": lambda disk: save_blocks(
        disk / "t.safetensors", TokenBlocks(NUMBERS.int().numpy(), {}, {})
    ),
    "block of effects": lambda disk: write_block(disk / "block", BLOCK, 0, {}),
    "table of effects": merge,
    "shard in Parquet": shard("parquet"),
    "shard in HDF5": shard("hdf5"),
    "SAE": lambda disk: save_sae(
        disk, SAE("standard", NUMBERS, NUMBERS.T.contiguous(), torch.zeros(512), torch.zeros(256))
    ),
    "checkpoint": lambda disk: save_checkpoint(disk / "c.pt", "x", {"weights": NUMBERS}),
    "table": lambda disk: write_table(disk / "t.parquet", pl.DataFrame(NUMBERS.numpy())),
    "table as text": lambda disk: write_table(disk / "t.csv", pl.DataFrame(NUMBERS.numpy())),
    "JSON": lambda disk: write_json(disk / "t.json", NUMBERS.tolist()),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_and_the_file_is_written_once_there_is_space(
    kind: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", KILOBYTES) as disk:
        with pytest.raises(SaeflowError) as raised:
            WRITERS[kind](disk)
        assert str(raised.value).endswith(
            "the disk is full; make space and start again, finished files are kept"
        )
        assert [file for file in disk.iterdir() if file.is_file()] == []
    (tmp_path / "space").mkdir()
    WRITERS[kind](tmp_path / "space")
    assert [file for file in (tmp_path / "space").iterdir() if not file.name.startswith(".")]
