"""The cache on disk: what is written comes back, and what is damaged is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from checkout import SUPPORT
from planted_dictionary import METADATA, cached, rows_of

from saeflow.activations import formats, io
from saeflow.activations.io import (
    ActivationStore,
    read_shard,
    shard_path,
    write_manifest,
    write_shards,
)
from saeflow.activations.store import torch_dtype
from saeflow.cli import main
from saeflow.config.sections import Activations
from saeflow.errors import DamagedError, SaeflowError

HOOK = METADATA["hook"]
FORMATS = ["parquet", "hdf5"]


@pytest.fixture
def pieces_of_64(monkeypatch):
    for module in (io, formats):
        monkeypatch.setattr(module, "PIECE_ROWS", 64)


def flip(store, shard):
    """Turn the bits of the first byte of a shard's first activation."""
    first = next(piece for piece in store.pieces() if piece.shard == shard)
    row, path = store.read(first)[0].numpy().tobytes(), store.path(shard)
    whole = bytearray(path.read_bytes())
    whole[whole.index(row)] ^= 255
    path.write_bytes(whole)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_shard_survives_the_way_to_disk_in_every_format(
    tmp_path, pieces_of_64, format_, dtype, compress
):
    settings = Activations(format=format_, dtype=dtype, compress=compress)
    rows = rows_of(torch.randn(150, 6).to(torch_dtype(dtype)))
    path = shard_path(tmp_path, 0, settings)
    passes = [
        {HOOK: rows.part(part)}
        for part in (slice(0, 3), slice(3, 3), slice(3, 140), slice(140, None))
    ]
    write_shards({HOOK: path}, passes, settings, METADATA)
    back = read_shard(path)
    assert torch.equal(back.activations, rows.activations)
    for field in ("tokens", "positions", "blocks"):
        assert np.array_equal(getattr(back, field), getattr(rows, field))
    write_manifest(tmp_path, [path])
    store = ActivationStore.open(tmp_path)
    assert [piece.rows for piece in store.pieces()] == [64, 64, 22]
    assert torch.equal(torch.cat([store.read(piece) for piece in store.pieces()]), rows.activations)
    store.verify()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("format_", FORMATS)
def test_the_format_s_library_reads_the_same_as_the_file_s_bytes(
    tmp_path, pieces_of_64, format_, dtype, compress
):
    settings = Activations(format=format_, dtype=dtype, compress=compress)
    path = shard_path(tmp_path, 0, settings)
    values = torch.randn(150, 6).to(torch_dtype(dtype))
    write_shards({HOOK: path}, [{HOOK: rows_of(values)}], settings, METADATA)
    library = formats.FORMATS[format_]
    runs = library.runs(path)
    assert (runs is None) == compress
    expected = torch.split(values, 64)
    for piece, rows in enumerate(expected):
        for read in (library.read, library.unpack):
            out = np.empty(
                (len(rows), 3 * rows.element_size() * 6), np.uint8
            )  # between those of other caches
            mine = slice(rows.element_size() * 6, 2 * rows.element_size() * 6)
            read(path, piece, out[:, mine])
            assert torch.equal(torch.from_numpy(out[:, mine].copy()).view(rows.dtype), rows)
    if runs:
        assert [(run.rows, run.width) for run in runs] == [
            (len(rows), 6 * values.element_size()) for rows in expected
        ]
        whole = path.read_bytes()
        stored = [whole[run.start : run.start + run.rows * run.width] for run in runs]
        assert stored == [formats.as_numpy(rows).tobytes() for rows in expected]
        assert [zlib.crc32(piece) for piece in stored] == [run.checksum for run in runs]


def test_a_file_that_was_written_again_is_not_read_by_what_was_known_of_the_old_one(tmp_path):
    path = tmp_path / "shard-00000.parquet"
    for rows in (9, 30):
        values = torch.randn(rows, 6)
        write_shards({HOOK: path}, [{HOOK: rows_of(values)}], Activations(), METADATA)
        assert torch.equal(read_shard(path).activations, values)


def test_parquet_in_many_pages_is_read_by_its_library(tmp_path, monkeypatch):
    """As files are that were written elsewhere."""
    writer = formats.pq.ParquetWriter
    monkeypatch.setattr(
        formats.pq,
        "ParquetWriter",
        lambda *args, data_page_size, **options: writer(*args, **options, data_page_size=1),
    )
    path, values = tmp_path / "shard-00000.parquet", torch.randn(3000, 6)
    write_shards({HOOK: path}, [{HOOK: rows_of(values)}], Activations(), METADATA)
    assert formats.FORMATS["parquet"].runs(path) is None
    assert torch.equal(read_shard(path).activations, values)


@pytest.mark.parametrize("format_", FORMATS)
def test_compression_makes_a_repetitive_shard_smaller(tmp_path, format_):
    rows = torch.randn(10, 32).repeat(400, 1)
    sizes = [
        cached(
            tmp_path / str(compress), rows, Activations(format=format_, compress=compress), 1
        ).shards[0]["bytes"]
        for compress in (False, True)
    ]
    assert sizes[1] < sizes[0] / 3


def test_shards_of_several_hooks_are_written_side_by_side(tmp_path):
    settings = Activations()
    values = {"a": torch.randn(5000, 4), "b": torch.randn(5000, 7)}
    paths = {hook: shard_path(tmp_path / hook, 0, settings) for hook in values}
    passes = [
        {hook: rows_of(part) for hook, part in zip(values, parts, strict=True)}
        for parts in zip(*(torch.split(v, 700) for v in values.values()), strict=True)
    ]
    write_shards(paths, passes, settings, METADATA)
    for hook, path in paths.items():
        assert torch.equal(read_shard(path).activations, values[hook])
        write_manifest(path.parent, [path])
    stores = [ActivationStore.open(path.parent) for path in paths.values()]
    assert [(store.hook, store.d_model) for store in stores] == [("a", 4), ("b", 7)]
    assert stores[0].text == stores[1].text


def test_the_manifest_holds_the_statistics_of_all_rows(tmp_path):
    rows = torch.randn(1000, 5) * 3 + 100
    store = cached(tmp_path, rows, shards=7)
    exact = rows.double()
    assert (store.rows, store.d_model, store.hook, store.model) == (
        1000,
        5,
        HOOK,
        METADATA["model"],
    )
    torch.testing.assert_close(store.mean, exact.mean(0), rtol=1e-13, atol=0)
    assert store.variance == pytest.approx(
        float((exact - exact.mean(0)).square().sum(1).mean()), rel=1e-12
    )
    assert store.mean_norm == pytest.approx(float(exact.norm(dim=1).mean()), rel=1e-13)


def test_a_manifest_is_enough_to_know_the_cache(tmp_path):
    rows = torch.randn(100, 4)
    for file in cached(tmp_path, rows).directory.glob("shard*"):
        file.unlink()
    assert ActivationStore.open(tmp_path).mean_norm == pytest.approx(float(rows.norm(dim=1).mean()))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_damaged_shard_is_one_sentence_that_names_it_and_what_to_do(tmp_path, format_):
    store = cached(tmp_path, torch.randn(600, 16), Activations(format=format_))
    path = store.path(1)
    whole = path.read_bytes()
    flip(store, 1)
    with pytest.raises(
        DamagedError,
        match=rf"{path.name} damaged \(the checksum differs.*made {path.name} and mani",
    ):
        store.verify()
    with pytest.raises(
        DamagedError, match=rf"{path}: is damaged .*; if the workflow made {path.name} and manifest"
    ):
        store.read(store.pieces()[1])
    store.read(store.pieces()[0])
    path.write_bytes(whole[:-100])
    with pytest.raises(DamagedError, match="bytes, not"):
        store.check()
    with pytest.raises(DamagedError, match="is damaged"):
        read_shard(path)
    with pytest.raises(DamagedError, match="is damaged"):
        write_manifest(tmp_path, [path])
    path.unlink()
    with pytest.raises(DamagedError, match=r"is absent; if the workflow made manifest\.json"):
        store.check()
    with pytest.raises(SaeflowError, match="is absent; start the workflow again"):
        write_manifest(tmp_path, [path])


@pytest.mark.parametrize("format_", FORMATS)
def test_no_damage_goes_unseen(tmp_path, pieces_of_64, format_):
    """Wherever a byte is wrong, the activations are read as they were or not at all."""
    values = torch.randn(100, 4)
    store = cached(tmp_path, values, Activations(format=format_), shards=1)
    whole = store.path(0).read_bytes()
    damaged = 0
    for place in range(0, len(whole), 7):
        store.path(0).write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            assert torch.equal(torch.cat([store.read(piece) for piece in store.pieces()]), values)
        except DamagedError:
            damaged += 1
    assert damaged > values.nbytes / 7


def test_a_job_removes_a_damaged_shard_of_its_study_and_a_person_s_command_does_not(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "activations"
    store = cached(folder, torch.randn(600, 16))
    command = ["saeflow", "activations", "verify", str(folder / "manifest.json")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as done:
        main.main()
    assert done.value.code in (0, None)
    assert "3 shards with 600 rows, as written" in capsys.readouterr().out
    flip(store, 1)
    with pytest.raises(SystemExit) as done:
        main.main()
    assert done.value.code == 1
    assert (
        "; if the workflow made shard-00001.parquet and manifest.json, remove them"
        in capsys.readouterr().err
    )
    assert store.path(1).is_file()
    monkeypatch.setenv("SAEFLOW_STUDY_FOLDER", str(tmp_path))
    with pytest.raises(SystemExit) as done:
        main.main()
    assert done.value.code == 1
    error = capsys.readouterr().err
    assert (
        "shard-00001.parquet and manifest.json are removed, start again and what is missing is "
        "made again" in error
    )
    assert error.count("\n") == 1
    assert sorted(file.name for file in folder.iterdir()) == [
        "shard-00000.parquet",
        "shard-00002.parquet",
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_that_the_system_does_not_open_is_not_called_damaged(tmp_path, format_):
    store = cached(tmp_path, torch.randn(60, 4), Activations(format=format_), shards=1)
    store.path(0).unlink()
    store.path(0).symlink_to(store.path(0))
    with pytest.raises(SaeflowError, match="cannot be read") as raised:
        store.read(store.pieces()[0])
    assert not isinstance(raised.value, DamagedError)


def test_shards_of_two_caches_do_not_mix(tmp_path):
    paths = [tmp_path / f"shard-0000{index}.parquet" for index in range(2)]
    for path, model in zip(paths, ["one", "other"], strict=True):
        write_shards(
            {HOOK: path}, [{HOOK: rows_of(torch.randn(9, 3))}], Activations(), {"model": model}
        )
    with pytest.raises(SaeflowError, match="is of another cache"):
        write_manifest(tmp_path, paths)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_shard_without_rows_is_refused_and_nothing_is_left(tmp_path, format_):
    settings = Activations(format=format_)
    with pytest.raises(SaeflowError, match="no position is left"):
        write_shards(
            {HOOK: shard_path(tmp_path, 0, settings)},
            [{HOOK: rows_of(torch.empty(0, 3))}],
            settings,
            METADATA,
        )
    assert not list(tmp_path.iterdir())


FILL = """
import sys, torch
from pathlib import Path
from planted_dictionary import METADATA, rows_of
from saeflow.activations.io import shard_path, write_shards
from saeflow.config.sections import Activations
from saeflow.errors import SaeflowError

for format_ in ("parquet", "hdf5"):
    settings = Activations(format=format_)
    parts = ({{METADATA["hook"]: rows_of(torch.randn(4096, 64))}} for _ in range(8))
    try:
        write_shards({{METADATA["hook"]: shard_path(Path({disk!r}), 0, settings)}}, parts,
        settings, METADATA)
    except SaeflowError as error:
        print(error)
    print(sorted(file.name for file in Path({disk!r}).iterdir()))
"""


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    """Eight megabytes go into a file system of two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    program = tmp_path / "fill.py"
    program.write_text(FILL.format(disk=str(disk)))
    mount = f"mount -t tmpfs -o size=2m none {disk}"
    for enter in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        if (
            shutil.which("unshare")
            and not subprocess.run([*enter, "sh", "-c", mount], capture_output=True).returncode
        ):
            break
    else:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*enter, "sh", "-c", f"{mount} && {sys.executable} {program}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines[::2]] == [
        "the disk is full; make space and start again, finished files are kept"
    ] * 2
    assert lines[1::2] == ["[]", "[]"]
