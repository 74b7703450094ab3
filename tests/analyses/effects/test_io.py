"""Files of effects: read back what was written, merge in order, and say in one sentence what is
wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from effect_blocks import block_of, same

from saeflow.analyses.effects.approximator import fit
from saeflow.analyses.effects.io import (
    load_approximation,
    load_baseline,
    measure_in_parts,
    merge_blocks,
    open_effects,
    read_block,
    save_baseline,
    save_fit,
    write_block,
)
from saeflow.analyses.effects.measure import Baseline, EffectBlock
from saeflow.analyses.effects.scale import Start
from saeflow.analyses.effects.settings import Approximator
from saeflow.errors import SaeflowError
from saeflow.tables import read_table

METADATA = {"hook": "blocks.1.hook_resid_post", "settings": {"samples": 4, "scale": 0.5}}


def write_blocks(directory: Path, sizes: Sequence[int] = (4, 4, 2), **changes: Any) -> list[Path]:
    paths, start = [], 0
    for number, size in enumerate(sizes):
        path = directory / f"block-{number:04d}.safetensors"
        write_block(path, block_of(range(start, start + size)), number, {**METADATA, **changes})
        paths.append(path)
        start += size
    return paths


def test_a_block_is_read_back_with_its_metadata(tmp_path: Path) -> None:
    write_block(tmp_path / "b.safetensors", block_of(range(4)), 7, METADATA)
    block, metadata = read_block(tmp_path / "b.safetensors")
    assert same(block, block_of(range(4)))
    assert metadata == {"block": 7, **METADATA}


def test_equal_blocks_are_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_block(tmp_path / name, block_of(range(4)), 0, METADATA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_blocks_merge_by_number_in_whatever_order_they_are_named(
    tmp_path: Path, dtype: Any
) -> None:
    paths = write_blocks(tmp_path)
    assert merge_blocks(paths[::-1], tmp_path / "effects.h5", dtype) == 10
    with open_effects(tmp_path / "effects.h5") as table:
        whole = block_of(range(10))
        np.testing.assert_allclose(
            table.effects[:], whole.effects.numpy(), rtol=0 if dtype == "float32" else 1e-3
        )
        assert table.effects.dtype == dtype
        assert torch.equal(table.vectors, whole.vectors)
        assert table.scale.tolist() == whole.scale.tolist()
        assert table.usable.tolist() == [False] + [True] * 9
        assert table.metadata == METADATA


def test_effects_too_large_for_float16_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    paths = write_blocks(tmp_path)
    large = block_of(range(4, 8))
    large.effects[2, 1] = 70_000.0
    write_block(paths[1], large, 1, METADATA)
    with pytest.raises(
        SaeflowError,
        match=r"block-0001.safetensors: has effects beyond .* set effects.dtype: float32",
    ):
        merge_blocks(paths, tmp_path / "effects.h5", "float16")
    assert not (tmp_path / "effects.h5").exists()
    assert merge_blocks(paths, tmp_path / "effects.h5") == 10


def test_a_fit_reads_float16_from_disk(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(200, 4, generator=generator), dim=1)
    W_dec = torch.randn(6, 4, generator=generator)
    block = block_of(range(200))._replace(
        vectors=rows, effects=rows @ W_dec.T + 1, standard_error=torch.zeros(200, 6).half()
    )
    write_block(tmp_path / "b", block, 0, METADATA)
    fits = []
    for dtype in ("float32", "float16"):
        merge_blocks([tmp_path / "b"], tmp_path / "effects.h5", dtype)
        with open_effects(tmp_path / "effects.h5") as table:
            fits.append(fit(table.vectors, table.effects, Approximator(), W_dec, 0, table.usable))
    torch.testing.assert_close(fits[1].approximation.M, fits[0].approximation.M, atol=5e-3, rtol=0)
    assert fits[1].metrics["r2"] > 0.999


@pytest.mark.parametrize("how", ["cut short", "overwritten", "emptied"])
def test_a_broken_block_is_one_sentence_and_no_merged_file(tmp_path: Path, how: str) -> None:
    paths = write_blocks(tmp_path)
    content = paths[1].read_bytes()
    paths[1].write_bytes(
        {"cut short": content[:-20], "overwritten": b"x" * len(content), "emptied": b""}[how]
    )
    with pytest.raises(
        SaeflowError, match=r"block-0001.safetensors: is no whole block of effects .*; if the"
    ):
        merge_blocks(paths, tmp_path / "effects.h5")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(path.name for path in paths)


def test_a_missing_block_is_named(tmp_path: Path) -> None:
    paths = write_blocks(tmp_path)
    with pytest.raises(SaeflowError, match="block 1 is missing"):
        merge_blocks([paths[0], paths[2]], tmp_path / "effects.h5")
    with pytest.raises(SaeflowError, match="no such block of effects"):
        merge_blocks([*paths, tmp_path / "absent"], tmp_path / "effects.h5")
    with pytest.raises(SaeflowError, match="there are no blocks to merge"):
        merge_blocks([], tmp_path / "effects.h5")


def test_a_block_named_twice_is_refused(tmp_path: Path) -> None:
    paths = write_blocks(tmp_path)
    with pytest.raises(SaeflowError, match="is block 1 for the second time"):
        merge_blocks([*paths, paths[1]], tmp_path / "effects.h5")


def test_blocks_of_different_sizes_that_overlap_are_refused(tmp_path: Path) -> None:
    paths = write_blocks(tmp_path)
    write_block(paths[1], block_of(range(3, 7)), 1, METADATA)
    with pytest.raises(SaeflowError, match="starts at vector 3 and the block before it ends at 3"):
        merge_blocks(paths, tmp_path / "effects.h5")


def test_blocks_measured_with_other_settings_are_refused(tmp_path: Path) -> None:
    paths = write_blocks(tmp_path)
    write_block(paths[2], block_of(range(8, 10)), 2, {**METADATA, "seed": 4})
    with pytest.raises(SaeflowError, match="was measured with other settings"):
        merge_blocks(paths, tmp_path / "effects.h5")


class Died(Exception):  # noqa: N818 - a kill is not an error
    """A job that is killed."""


def test_a_block_that_was_interrupted_goes_on_after_its_last_whole_part(tmp_path: Path) -> None:
    path, measured = tmp_path / "block-0000.safetensors", []

    def measure(ids: Sequence[int], dies_at: int = -1) -> EffectBlock:
        if dies_at in ids:
            raise Died
        measured.append(list(ids))
        return block_of(ids)

    with pytest.raises(Died):
        measure_in_parts(path, range(10), 3, lambda ids: measure(ids, dies_at=6), METADATA)
    (tmp_path / f"{path.name}.part-3").write_bytes(b"broken")
    block = measure_in_parts(path, range(10), 3, measure, METADATA)
    assert measured == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [6, 7, 8], [9]]
    assert same(block, block_of(range(10)))
    assert list(tmp_path.iterdir()) == []


def test_parts_of_other_settings_are_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "block-0000.safetensors"
    write_block(tmp_path / f"{path.name}.part-0", block_of([0, 1, 2]), 0, {**METADATA, "seed": 9})
    measured: list[int] = []

    def measure(ids: Sequence[int]) -> EffectBlock:
        measured.extend(ids)
        return block_of(ids)

    measure_in_parts(path, range(4), 3, measure, METADATA)
    assert measured == [0, 1, 2, 3]


def test_the_baseline_is_read_back(tmp_path: Path) -> None:
    baseline = Baseline(
        torch.rand(5, dtype=torch.float64),
        torch.rand(5, dtype=torch.float64),
        12,
        3.25,
        Start(1.5, 2.0, 1.1),
        512,
    )
    save_baseline(tmp_path / "baseline.safetensors", baseline, METADATA)
    read = load_baseline(tmp_path / "baseline.safetensors")
    assert torch.equal(read.mean, baseline.mean)
    assert torch.equal(read.standard_error, baseline.standard_error)
    assert read[2:] == (12, 3.25, Start(1.5, 2.0, 1.1), 512)


def test_the_approximator_is_read_back(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, W_dec = torch.randn(60, 4, generator=generator), torch.randn(6, 4, generator=generator)
    fitted = fit(vectors, vectors @ W_dec.T, Approximator(), W_dec, 0)
    save_fit(tmp_path, fitted, METADATA)
    read = load_approximation(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(read, fitted.approximation, strict=True))
    assert read_table(tmp_path / "predictions.parquet").equals(fitted.predictions)
    assert read_table(tmp_path / "latents.parquet").equals(fitted.latents)
    with pytest.raises(
        SaeflowError, match=r"approximator.safetensors: no such approximator; make it first"
    ):
        load_approximation(tmp_path / "elsewhere")


def test_a_merged_file_cut_short_is_one_sentence(tmp_path: Path) -> None:
    merge_blocks(write_blocks(tmp_path), tmp_path / "effects.h5")
    content = (tmp_path / "effects.h5").read_bytes()
    (tmp_path / "effects.h5").write_bytes(content[: len(content) // 2])
    with (
        pytest.raises(SaeflowError, match=r"effects.h5: is damaged"),
        open_effects(tmp_path / "effects.h5"),
    ):
        pass
