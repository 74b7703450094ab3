"""What differs between two studies: config, versions, and results with the size of the
difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from saeflow import seals
from saeflow.artifacts import read_json, sha256
from saeflow.errors import SaeflowError
from saeflow.tables import read_table

PASSED_OVER = {"logs", "benchmarks", "checkpoints", "report", "judging"}
"""Folders without results: what was said, times, what is in the works, what is made of the rest,
what was paid."""
RECORDS = ("config.yaml", "provenance.json")
NO_TRIGGERS = ("calls", "publish")  # sections that no result depends on
_LONGEST = 60


def differences(first: Path, second: Path) -> Iterator[str]:
    """Lines that name what differs; none where nothing does.

    Args:
        first: folder of a study's results.
        second: folder of another's.

    Raises:
        SaeflowError: a folder is no study's, or a file in it cannot be read.
    """
    for folder in (first, second):
        if not (folder / "config.yaml").is_file():
            raise SaeflowError(
                f"diff: {folder} holds no config.yaml; name the folder of a study, as results/tales"
            )
    yield from _in_records(
        "config", *(_flat(_config(folder / "config.yaml")) for folder in (first, second))
    )
    records = (folder / "provenance.json" for folder in (first, second))
    yield from _in_records(
        "provenance", *(_flat(read_json(file)) if file.is_file() else {} for file in records)
    )
    files = [_files(first), _files(second)]
    for name in sorted(files[0] | files[1]):
        if name not in files[1]:
            yield f"{name}: only in {first}"
        elif name not in files[0]:
            yield f"{name}: only in {second}"
        else:
            yield from (f"{name}: {line}" for line in _in_files(first / name, second / name))


def config_differences(recorded: Path, asked: Mapping[str, Any]) -> Iterator[str]:
    """Lines that name the keys in which a recorded config is not what is asked; how calls are made
    is passed over."""
    made_by, wanted = (
        _flat({key: value for key, value in config.items() if key not in NO_TRIGGERS})
        for config in (_config(recorded), asked)
    )
    yield from _in_records("config", made_by, wanted)


def _config(path: Path) -> Any:
    seals.check(path)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _files(folder: Path) -> set[str]:
    return {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and file.name not in RECORDS and _is_result(file.relative_to(folder))
    }


def _is_result(file: Path) -> bool:
    """A folder that is being written, or that a killed job left, is hidden as its files would
    be."""
    parts = file.parts
    return not PASSED_OVER & set(parts) and not any(part.startswith(".") for part in parts)


def _in_records(what: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key) or (key in first) != (key in second):
            yield (
                f"{what} {key}: {_short(first.get(key, 'absent'))} → "
                f"{_short(second.get(key, 'absent'))}"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys; lists are values."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, content in value.items():
        flat |= _flat(content, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _in_files(first: Path, second: Path) -> Iterator[str]:
    """What differs between two files of the same name; of the values that they hold, not of their
    bytes."""
    if sha256(first) == sha256(second):
        return
    compare = _COMPARISONS.get(first.suffix)
    if not compare:
        yield "has other bytes"
        return
    try:
        yield from compare(first, second)
    except SaeflowError:
        raise
    except Exception as error:
        raise SaeflowError(
            f"{first} and {second}: cannot be compared ({' '.join(str(error).split())})"
        ) from None


def _in_tables(first: Path, second: Path) -> Iterator[str]:
    a, b = read_table(first), read_table(second)
    if a.schema != b.schema:
        yield f"has columns {', '.join(a.columns)} → {', '.join(b.columns)}"
        return
    if a.height != b.height:
        yield f"has {a.height} rows → {b.height}"
        return
    for name in a.columns:
        if changed := int((~a[name].eq_missing(b[name])).sum()):
            numbers = a[name].dtype.is_numeric() and not a[name].dtype.is_nested()
            size = (
                _size(a[name].cast(pl.Float64).to_numpy(), b[name].cast(pl.Float64).to_numpy())
                if numbers
                else ""
            )
            yield f"column {name}: {changed} of {a.height} values differ{size}"


def _in_tensors(first: Path, second: Path) -> Iterator[str]:
    yield from _in_arrays(_tensors(first), _tensors(second))


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return {
            name: (
                tensor.float()
                if (tensor := file.get_tensor(name)).dtype == torch.bfloat16
                else tensor
            ).numpy()
            for name in names
        }


def _in_hdf5(first: Path, second: Path) -> Iterator[str]:
    from saeflow.tensors import open_hdf5

    with open_hdf5(first) as a, open_hdf5(second) as b:
        yield from _in_arrays(a, b)


def _in_arrays(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Arrays by name; of a large one in a file, some rows are in memory at a time."""
    for name in sorted(set(first) | set(second)):
        if name not in first or name not in second:
            yield f"tensor {name}: only in the {'second' if name not in first else 'first'}"
            continue
        a, b = first[name], second[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"tensor {name}: {a.dtype} {list(a.shape)} → {b.dtype} {list(b.shape)}"
            continue
        yield from _in_array(name, a, b)


def _in_array(name: str, a: Any, b: Any) -> Iterator[str]:
    rows = max(1, 2**24 // max(1, int(np.prod(a.shape[1:])))) if a.ndim else 1
    parts = (
        [(a[start : start + rows], b[start : start + rows]) for start in range(0, len(a), rows)]
        if a.ndim
        else []
    )
    changed, largest, norm = 0, 0.0, 0.0
    for x, y in parts or [(a[()], b[()])]:
        x, y = np.asarray(x), np.asarray(y)
        unequal = ~((x == y) | ((x != x) & (y != y)))
        changed += int(unequal.sum())
        apart = np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64))[unequal]
        largest = max(largest, float(np.nanmax(apart, initial=0.0)))
        norm = max(norm, float(np.nanmax(np.abs(np.asarray(x, np.float64)), initial=0.0)))
    if changed:
        size = f"by at most {largest:.3g} (the largest is {norm:.3g})"
        yield f"tensor {name}: {changed} of {int(np.prod(a.shape))} numbers differ, {size}"


def _size(a: NDArray[np.float64], b: NDArray[np.float64]) -> str:
    apart = np.abs(a - b)
    return f", by at most {np.nanmax(apart):.3g}" if np.isfinite(apart).any() else ""


def _in_json(first: Path, second: Path) -> Iterator[str]:
    a, b = (_flat(read_json(path)) for path in (first, second))
    for key in sorted(a.keys() | b.keys()):
        if key.startswith("provenance"):
            continue
        if a.get(key) != b.get(key):
            yield f"{key}: {_short(a.get(key, 'absent'))} → {_short(b.get(key, 'absent'))}"


def _in_text(first: Path, second: Path) -> Iterator[str]:
    a, b = first.read_text().splitlines(), second.read_text().splitlines()
    changed = sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
    yield f"{changed} of {max(len(a), len(b))} lines differ"


_COMPARISONS: dict[str, Callable[[Path, Path], Iterator[str]]] = {
    ".parquet": _in_tables,
    ".safetensors": _in_tensors,
    ".h5": _in_hdf5,
    ".json": _in_json,
    ".csv": _in_text,
}
