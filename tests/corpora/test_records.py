"""The same documents in every kind of file, packing and coding that text comes in."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import zstandard

from saeflow.config.sections import Corpus
from saeflow.corpora import records
from saeflow.corpora.text import documents
from saeflow.errors import SaeflowError

TEXTS = [f'Document {i}, "quoted" and zażółć 𝛼,\nspeaks of {i * i}.' for i in range(120)]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def table(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([("id", "text"), *((i, text) for i, text in enumerate(TEXTS))])
    return file.getvalue().encode()


def arrow(stream: bool) -> bytes:
    file = io.BytesIO()
    data = pa.table({"id": range(len(TEXTS)), "text": TEXTS})
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, data.schema) as writer:
        writer.write_table(data, max_chunksize=7)
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pl.DataFrame({"id": range(len(TEXTS)), "text": TEXTS}).write_parquet(file, row_group_size=50)
    return file.getvalue()


RECORDS = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
LINES = "\n".join(map(json.dumps, RECORDS))
FILES = {
    "a.txt": "\n\n".join(TEXTS).encode(),
    "a.jsonl": LINES.encode(),
    "a.ndjson": LINES.replace("\n", "\r\n").encode(),
    "lines.json": LINES.encode(),
    "list.json": json.dumps(RECORDS, indent=1, ensure_ascii=False).encode(),
    "texts.json": json.dumps(TEXTS).encode(),
    "one-line.json": "".join(map(json.dumps, RECORDS)).encode(),
    "a.csv": table(","),
    "a.tsv": table("\t"),
    "a.parquet": parquet(),
    "stream.arrow": arrow(stream=True),
    "file.arrow": arrow(stream=False),
}


def read(path: Path, **settings: object) -> list[str]:
    corpus = Corpus.model_validate({"kind": "text", "path": str(path), **settings})
    texts = [text for split in ("sae", "eval") for text in documents(corpus, split)]
    assert all(isinstance(text, str) for text in texts)
    return sorted(map(str, texts))


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_in_every_packing_holds_the_same_documents(
    tmp_path: Path, name: str, packing: str
) -> None:
    file = tmp_path / f"{name}{packing}"
    file.write_bytes(PACK[packing](FILES[name]))
    assert read(file) == sorted(TEXTS)


@pytest.mark.parametrize("name", ["A.TXT", "a.JSONL.GZ", "a.Csv"])
def test_endings_in_capitals_are_read(tmp_path: Path, name: str) -> None:
    packing = ".gz" if name.endswith("GZ") else ""
    kind = name.removesuffix(".GZ").lower()
    (tmp_path / name).write_bytes(PACK[packing](FILES[kind]))
    assert read(tmp_path / name) == sorted(TEXTS)


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "list.json", "a.csv"])
def test_a_mark_of_the_order_of_bytes_says_how_a_file_is_coded(
    tmp_path: Path, name: str, coding: str
) -> None:
    (tmp_path / name).write_bytes(FILES[name].decode().encode(coding))
    assert read(tmp_path / name) == sorted(TEXTS)


def test_marks_and_line_ends_of_joined_files_are_no_part_of_texts(tmp_path: Path) -> None:
    part = "\ufeffone\r\n\r\ntwo"
    (tmp_path / "a.txt").write_bytes(f"{part}\r\n\r\n{part}".encode())
    line = '\ufeff{"text": "one"}\r\n{"text": "two"}\r\n'
    (tmp_path / "a.jsonl").write_bytes(f"{line}\r\n{line}".encode())
    for name in ("a.txt", "a.jsonl"):
        assert read(tmp_path / name) == ["one", "one", "two", "two"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_utf_16_without_a_mark_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("plain text ".encode("utf-16-le") * 50)
    with pytest.raises(SaeflowError, match="full of zero bytes, as UTF-16 without a mark"):
        read(tmp_path / name)


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_packed_file_whose_name_hides_it_is_told_how_to_name_it(
    tmp_path: Path, name: str, packing: str
) -> None:
    (tmp_path / name).write_bytes(PACK[packing](FILES[name]))
    with pytest.raises(SaeflowError, match=rf"is packed as {packing}, .*let it end in {packing}"):
        read(tmp_path / name)


def test_cells_beyond_the_columns_of_a_table_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1,once\n2,one, and two\n")
    with pytest.raises(SaeflowError, match=r"a.csv, line 3: has more cells .*put a text that hold"):
        read(path)
    path.write_text("text,text\none,two\n")
    with pytest.raises(SaeflowError, match="has two columns 'text'; rename or remove one"):
        read(path)


def test_documents_of_nothing_are_left_out(tmp_path: Path) -> None:
    texts = ["", " ", "\n\t", "\0\0", "whole", "with \0 inside"]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in [*texts, None])
    )
    pl.DataFrame({"text": [*texts, None]}).write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert read(tmp_path / name) == ["whole", "with \0 inside"]


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "list.json", "a.parquet", "stream.arrow"])
def test_a_packed_file_that_is_cut_is_one_sentence(tmp_path: Path, name: str, packing: str) -> None:
    file = tmp_path / f"{name}{packing}"
    whole = PACK[packing](FILES[name])
    file.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(SaeflowError, match=r"is cut or damaged|is not a whole"):
        read(file)


def test_several_frames_of_one_packed_file_are_one_text(tmp_path: Path) -> None:
    half = len(FILES["a.jsonl"]) // 2
    for packing in (".gz", ".bz2", ".xz", ".zst"):
        pack = PACK[packing]
        file = tmp_path / f"a.jsonl{packing}"
        file.write_bytes(pack(FILES["a.jsonl"][:half]) + pack(FILES["a.jsonl"][half:]))
        assert read(file) == sorted(TEXTS)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_one_huge_record_is_refused_before_it_fills_the_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST", 1 << 22)
    start = "" if name == "a.txt" else '{"text": "'
    (tmp_path / f"{name}.zst").write_bytes(PACK[".zst"](start.encode() + b"word " * (1 << 24)))
    tracemalloc.start()
    wanted = r"set corpus\.separator" if name == "a.txt" else "is one record of more than 4 Mi"
    with pytest.raises(SaeflowError, match=wanted):
        read(tmp_path / f"{name}.zst")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20  # of 80 MB


def test_a_long_file_is_read_in_little_memory(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"text": f"{i} " + "word " * 200}) for i in range(40_000))
    for name, content in (
        ("a.jsonl.gz", lines),
        ("a.json.gz", f"[{lines.replace(chr(10), ',')}]"),
        ("a.txt.gz", lines.replace("\n", "\n\n")),
    ):
        (tmp_path / name).write_bytes(gzip.compress(content.encode(), 1))
        corpus = Corpus(kind="text", path=str(tmp_path / name))
        tracemalloc.start()
        count = sum(1 for split in ("sae",) for _ in documents(corpus, split))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count > 30_000
        assert peak < 16 << 20  # of 40 MB
