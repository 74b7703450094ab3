"""Describes an artifact without loading it: shapes, dtypes, rows, metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saeflow.artifacts import read_json
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    import polars as pl

LONGEST_VALUE = 300
LONGEST_CELL = 90
WIDEST_TABLE = 120
"""Characters; a table whose lines would be longer is shown row by row."""


def describe(path: Path) -> list[str]:
    """Lines that describe a file or folder of results.

    Raises:
        SaeflowError: there is no such file, its kind is not known, or it is damaged.
    """
    if not path.exists():
        raise SaeflowError(f"{path}: no such file")
    kind = "folder" if path.is_dir() else path.suffix
    if kind not in DESCRIPTIONS:
        raise SaeflowError(
            f"{path}: files that end in '{path.suffix}' are not artifacts of saeflow "
            f"({', '.join(DESCRIPTIONS)})"
        )
    try:
        return list(DESCRIPTIONS[kind](path))
    except SaeflowError:
        raise
    except Exception as error:
        raise SaeflowError(
            f"{path}: is damaged or not what its name says ({' '.join(str(error).split())})"
        ) from None


def first_rows(path: Path, count: int) -> list[str]:
    """The first rows of a table, or the first texts of a corpus in the folder of a study that has
    its tokenizer; nothing for other artifacts.

    Raises:
        SaeflowError: the tokenizer cannot be read.
    """
    if path.suffix == ".parquet" and count:
        return _table(path, count)
    study = path.resolve().parent.parent
    if path.suffix == ".safetensors" and (study / "config.yaml").is_file() and count:
        return _texts(path, study, count)
    return []


def _table(path: Path, count: int) -> list[str]:
    import polars as pl

    table = pl.scan_parquet(path).head(count).collect()
    with pl.Config(
        tbl_cols=-1,
        tbl_rows=count,
        tbl_width_chars=10_000,
        fmt_str_lengths=40,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
    ):
        lines = str(table).splitlines()
    return lines if len(lines[0]) <= WIDEST_TABLE else list(_row_by_row(table))


def _row_by_row(table: pl.DataFrame) -> Iterator[str]:
    """A line for each cell: in one line, columns of two letters would tell nobody anything."""
    widest = max(map(len, table.columns))
    for number, row in enumerate(table.iter_rows(named=True)):
        yield f"row {number}"
        for name, value in row.items():
            text = f"{value:.6g}" if isinstance(value, float) else repr(value)
            cut = text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} …"
            yield f"  {name:<{widest}}  {'' if value is None else cut}".rstrip()


def _texts(path: Path, study: Path, count: int) -> list[str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        if "tokens" not in file.keys():  # noqa: SIM118 - the file is no dictionary
            return []
        tokens = file.get_slice("tokens")
        blocks = tokens[: min(count, tokens.get_shape()[0])]
    models = [folder for folder in sorted((study / "models").glob("*")) if folder.is_dir()]
    if not models:
        return []
    from saeflow.models.language_model import load_tokenizer

    texts = map(str, load_tokenizer(models[0]).batch_decode(blocks.tolist()))
    return [f"  {number}: {text[:LONGEST_VALUE]!r}" for number, text in enumerate(texts)]


def _safetensors(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        for name in sorted(file.keys()):
            tensor = file.get_slice(name)
            yield f"{name}  {_shape(tensor.get_shape())}  {tensor.get_dtype()}"
        yield from _metadata(file.metadata() or {})


def _hdf5(path: Path) -> Iterator[str]:
    from saeflow.tensors import open_hdf5

    with open_hdf5(path) as file:
        for name, dataset in sorted(file.items()):
            yield f"{name}  {_shape(dataset.shape)}  {dataset.dtype}"
        texts = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in file.attrs.items()
        }
        yield from _metadata(texts)


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    yield f"{file.metadata.num_rows} rows"
    yield from (f"{field.name}  {field.type}" for field in file.schema_arrow)
    metadata = file.schema_arrow.metadata or {}
    yield from _metadata(
        {key.decode(): value.decode(errors="replace") for key, value in metadata.items()}
    )


def _json(path: Path) -> Iterator[str]:
    yield from json.dumps(read_json(path), indent=2, ensure_ascii=False).splitlines()


def _folder(path: Path) -> Iterator[str]:
    for child in sorted(path.iterdir()):
        yield f"{child.name}{'/' if child.is_dir() else f'  {child.stat().st_size:,} bytes'}"
    for name in ("cfg.json", "manifest.json", "model.json", "config.json", "metrics.json"):
        if (path / name).is_file():
            yield f"-- {name}"
            yield from _metadata(read_json(path / name))


def _text(path: Path) -> Iterator[str]:
    yield from path.read_text().splitlines()


def _metadata(values: dict[str, Any]) -> Iterator[str]:
    for key, value in sorted(values.items()):
        text = str(value)
        yield f"  {key}: {text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + ' …'}"


def _shape(sizes: Any) -> str:
    return "[" + ", ".join(str(size) for size in sizes) + "]"


DESCRIPTIONS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".safetensors": _safetensors,
    ".h5": _hdf5,
    ".parquet": _parquet,
    ".json": _json,
    ".yaml": _text,
    ".csv": _text,
    "folder": _folder,
}
